"""What torch says when memory is short or the device is gone, and what the worker makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fakes import FakeTask
from nlp_worker.batching import Batch
from nlp_worker.device_errors import translate
from nlp_worker.errors import DeviceLostError, OutOfMemoryError
from nlp_worker.executor import Executor
from nlp_worker.poll import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes that no machine has.
ABSURD = 2**50

GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, ...)`")


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor(translate)
    yield executor
    executor.close()


class HungryTask(FakeTask):
    """Asks torch for absurd memory for more than so many tokens."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, inputs: list[str]) -> list[str]:
        self.calls.append(len(inputs))
        torch.empty(ABSURD if sum(map(len, inputs)) > self.most else 1, dtype=torch.uint8)
        return inputs


def row(text: str) -> Row:
    return Row({"input_ids": [ord(character) for character in text]})


def accelerator_error(message: str, code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError(message)
    error.error_code = code  # type: ignore[attr-defined]  # as torch's C++ sets it
    return error


def test_a_batch_that_is_too_large_is_answered_in_parts(executor: Executor) -> None:
    """A real failure of torch's allocator, mended by halves; the run says how much fitted."""
    task = HungryTask(most=20)
    run = executor.submit(Batch(task, [row("12345")] * 16)).result(timeout=10)
    assert run.outputs == ["12345"] * 16
    assert run.fitted == 20
    assert task.calls == [16, 8, 4, 4, 8, 4, 4]


def test_a_row_that_is_too_large_alone_is_out_of_memory_and_its_neighbours_are_answered(executor: Executor) -> None:
    """One error, with torch's own as its cause."""
    texts = ["a", "b", "far too long", "c"]
    run = executor.submit(Batch(HungryTask(most=3), list(map(row, texts)))).result(timeout=10)
    assert [output for output in run.outputs if isinstance(output, str)] == ["a", "b", "c"]
    assert isinstance(run.outputs[2], OutOfMemoryError)
    assert isinstance(run.outputs[2].__cause__, RuntimeError)


@pytest.mark.parametrize(
    "error",
    [
        GPU,
        accelerator_error("CUDA error: out of memory", 2),
        accelerator_error("HIP error: hipErrorOutOfMemory", 2),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] . DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_out_of_memory_has_many_names(error: Exception) -> None:
    """Of the GPU's allocator, the CPU's, Python's, and of the libraries that ask past them."""
    assert isinstance(translate(error), OutOfMemoryError)


@pytest.mark.parametrize(
    "error",
    [
        accelerator_error("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later", 710),
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("HIP error: unspecified launch failure"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA driver shutting down"),
        RuntimeError("the device is no longer in a usable state"),
    ],
    ids=str,
)
def test_a_lost_device_is_known_by_its_words(error: Exception) -> None:
    """The first line alone is told: the rest is advice for those who write kernels."""
    meaning = translate(error)
    assert isinstance(meaning, DeviceLostError)
    assert str(meaning) == f"the device failed: {str(error).splitlines()[0]}"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("x" * 10_000_000 + "CUDA error: "),
        RuntimeError(object()),
        RuntimeError(),
        ValueError("DefaultCPUAllocator: not enough memory"),
        CUBLAS,
    ],
    # Not by their texts: an object's has its address, and parallel runs must call a test the same.
    ids=["shapes", "far-behind", "an-object", "no-text", "memory-of-another-kind", "cublas"],
)
def test_what_says_nothing_of_the_device_stays_what_it_is(error: Exception) -> None:
    """It costs one request. An error of cuBLAS may be of one call only."""
    assert translate(error) is error


@pytest.mark.parametrize(
    ("error", "probe", "meaning"),
    [
        (CUBLAS, torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceLostError),
        (CUBLAS, GPU, RuntimeError),
        (GPU, RuntimeError("CUDA error: unknown error"), DeviceLostError),
        (GPU, GPU, OutOfMemoryError),
    ],
)
def test_a_device_that_computes_nothing_any_more_is_lost(
    monkeypatch: pytest.MonkeyPatch, error: Exception, probe: Exception, meaning: type[Exception]
) -> None:
    """Whatever the error said: a probe tells. That it finds no memory is another process's doing, and passes."""

    def fail() -> None:
        raise probe

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", fail)
    assert isinstance(translate(error), meaning)
