"""The device thread: runs batches first-in first-out, and finds the bad row when one fails."""

from __future__ import annotations

import concurrent.futures
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch

from nlp_worker.errors import DeviceLostError, InferenceFailedError, OutOfMemoryError, RequestError
from nlp_worker.isolation import isolate
from nlp_worker.poll import BatchRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.clock import Clock
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Task


class Executor:
    """One device, one thread."""

    def __init__(self, clock: Clock = time) -> None:
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    def submit(self, batch: Batch) -> Future[BatchRun]:
        """Run the batch when those before it are done.

        A row that fails, alone, has its error for an output; the future itself raises for a FatalError only.
        """
        return self._thread.submit(self._run, batch.task, batch.rows)

    def _run(self, task: Task, rows: Sequence[Row]) -> BatchRun:
        started, began = self._clock.time(), self._clock.monotonic()
        outputs = isolate(rows, lambda part: _forward(task, part))
        outputs = [_request_error(output) if isinstance(output, Exception) else output for output in outputs]
        return BatchRun(outputs, started, self._clock.monotonic() - began)

    def wait(self, futures: Sequence[Future[BatchRun]], seconds: float) -> None:
        """Return when all are done, or after that many seconds."""
        concurrent.futures.wait(futures, timeout=seconds)

    def close(self) -> None:
        """Let go of the thread: what has not begun is cancelled, what runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _forward(task: Task, rows: Sequence[Row]) -> Sequence[Any]:
    try:
        return task.forward(task.collate(rows))
    except torch.AcceleratorError as error:
        # After a device-side assert or a lost GPU every later call fails too: nothing can be isolated.
        raise DeviceLostError(f"the device failed: {error}") from error
    except torch.OutOfMemoryError:
        # The failed attempt's blocks are cached, in sizes that the halves do not need.
        torch.cuda.empty_cache()
        raise


def _request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        failure = OutOfMemoryError("the request does not fit the device's memory, even alone: shorten it")
        failure.__cause__ = error
        return failure
    return InferenceFailedError.caused_by(error, "the model")
