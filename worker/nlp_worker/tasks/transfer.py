"""Between the CPU and the device: on CUDA both ways go on while the thread does, and while the device computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nlp_worker.tasks.base import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray


def to_device(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Return the array as a tensor of its dtype and shape on the device."""
    tensor = torch.from_numpy(array)
    # Of memory that is not pinned the copy would wait for all that the device has to do before.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def from_device(make: Callable[..., Sequence[Any]], *tensors: torch.Tensor) -> Sequence[Any] | Pending:
    """Return the outputs that are made of tensors, given on the CPU; on CUDA not before they are there."""
    return _Copied(make, tensors) if tensors[0].is_cuda else make(*tensors)


class _Copied(Pending):
    """Copied behind the forward and before the next one: else it would wait for that too."""

    def __init__(self, make: Callable[..., Sequence[Any]], tensors: Sequence[torch.Tensor]) -> None:
        self._make = make
        # To pinned memory, as torch does where it may not block.
        self._tensors = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
        self._copied: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
        self._copied.record(torch.cuda.current_stream(tensors[0].device))

    @property
    def ready(self) -> bool:
        return bool(self._copied.query())

    def get(self) -> Sequence[Any]:
        self._copied.synchronize()
        return self._make(*self._tensors)
