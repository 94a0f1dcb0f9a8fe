"""What an exception of a forward says about the device: out of memory, lost, or nothing; in torch's words."""

from __future__ import annotations

import re
from typing import Final

import torch

from nlp_worker.errors import DeviceLostError, OutOfMemoryError

#: Of RuntimeErrors: torch has a class of its own for its allocator on the GPU only.
_OUT_OF_MEMORY: Final = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory"
    r"|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
    r"|CUDNN_STATUS_INTERNAL_ERROR_(HOST|DEVICE)_ALLOCATION_FAILED"
    r"|CUDA error: out of memory"
    r"|std::bad_alloc"
)

#: cudaErrorMemoryAllocation, an AcceleratorError's ``error_code`` where memory was asked for past torch's allocator.
_MEMORY_ALLOCATION: Final = 2

#: Of RuntimeErrors. Errors of cuBLAS are "CUDA error: CUBLAS_..." too, and may be of one call: the probe tells.
_LOST: Final = re.compile(r"CUDA error: (?!CUBLAS_)|CUDA driver shutting down|no longer in a usable state")

#: Characters of a message that are read: torch says first what is wrong, others may put whole tensors into theirs.
_READ: Final = 1000


def translate(error: Exception) -> Exception:
    """Return what the error means: DeviceLostError, OutOfMemoryError, or the error itself.

    Memory that the failed forward has left in torch's cache is given back: its blocks have sizes that the halves of
    the batch do not need. The error must have let go of its traceback before, whose frames hold the forward's tensors.
    """
    if not isinstance(error, (RuntimeError, MemoryError)):
        return error
    out_of_memory = _is_out_of_memory(error)
    if not out_of_memory and _says_lost(error):
        return _caused(DeviceLostError(f"the device failed: {_first_line(error)}"), error)
    # After out of memory too: a lost device that says so would answer every request with it.
    if (failure := _probe()) is not None:
        return _caused(DeviceLostError(f"the device does nothing any more: {_first_line(failure)}"), error)
    if out_of_memory:
        return _caused(OutOfMemoryError("the request does not fit the device's memory, even alone: shorten it"), error)
    return error


def _is_out_of_memory(error: Exception) -> bool:
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or (isinstance(error, torch.AcceleratorError) and getattr(error, "error_code", None) == _MEMORY_ALLOCATION)
        or _OUT_OF_MEMORY.search(_message(error)) is not None
    )


def _says_lost(error: Exception) -> bool:
    return isinstance(error, torch.AcceleratorError) or _LOST.search(_message(error)) is not None


def _probe() -> RuntimeError | None:
    """Give cached memory back and compute something tiny on every GPU in use; return what failed, memory apart."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    try:
        torch.cuda.empty_cache()
        for index in range(torch.cuda.device_count()):
            if torch.cuda.memory_allocated(index):
                torch.ones(1, device=f"cuda:{index}").sum().item()
                torch.cuda.synchronize(index)
    except RuntimeError as failure:
        # Another process may have taken all the memory: that passes.
        return None if _is_out_of_memory(failure) else failure
    return None


def _message(error: Exception) -> str:
    # Not str(): a class may say anything there, or raise.
    return " ".join(argument[:_READ] for argument in error.args if isinstance(argument, str))


def _first_line(error: Exception) -> str:
    # What follows is advice for debugging kernels.
    return _message(error).partition("\n")[0]


def _caused(failure: DeviceLostError | OutOfMemoryError, error: Exception) -> Exception:
    failure.__cause__ = error
    return failure
