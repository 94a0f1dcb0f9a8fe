"""The device thread: runs batches first-in first-out, and finds the bad row when one fails. Knows no torch."""

from __future__ import annotations

import concurrent.futures
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from nlp_worker.errors import InferenceFailedError, OutOfMemoryError, RequestError
from nlp_worker.isolation import isolate
from nlp_worker.poll import BatchRun
from nlp_worker.progress import Progress, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.clock import Clock
    from nlp_worker.poll import Row


def _as_it_is(error: Exception) -> Exception:
    return error


class Executor:
    """One device, one thread.

    Args:
        translate: Returns what an exception of a forward means, or the exception itself: a FatalError ends the
            process, an OutOfMemoryError may do without its batch's other half. `device_errors.translate` knows torch's.
        clock: Of the batches' times.
    """

    def __init__(self, translate: Callable[[Exception], Exception] = _as_it_is, clock: Clock = time) -> None:
        self._translate = translate
        self._clock = clock
        self.progress = Progress()
        self._last: Future[BatchRun] | None = None
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="device", initializer=self.progress.watch_thread
        )

    def submit(self, batch: Batch) -> Future[BatchRun]:
        """Run the batch when those before it are done.

        A row that fails, alone, has its error for an output; the future itself raises for a FatalError, and Stopped
        for what was given up.
        """
        self._last = self._thread.submit(self._run, batch)
        return self._last

    @property
    def busy(self) -> bool:
        """Whether a batch runs, or waits for its turn."""
        return self._last is not None and not self._last.done()

    def _run(self, batch: Batch) -> BatchRun:
        started, began = self._clock.time(), self._clock.monotonic()
        memory_was_short = False
        fitted = 0

        def run_part(rows: Sequence[Row]) -> Sequence[Any]:
            nonlocal memory_was_short, fitted
            part = batch.part(rows)
            try:
                outputs = self._forward(part)
            except OutOfMemoryError:
                memory_was_short = True
                raise
            fitted = max(fitted, part.size)
            return outputs

        outputs = isolate(batch.rows, run_part)
        seconds = self._clock.monotonic() - began
        outputs = [_request_error(output) if isinstance(output, Exception) else output for output in outputs]
        return BatchRun(outputs, started, seconds, fitted if memory_was_short else None)

    def _forward(self, part: Batch) -> Sequence[Any]:
        self.progress.step()
        try:
            return part.task.forward(part.task.collate(part))
        except Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs one request and not its neighbours
            failure = error
        except BaseException as error:  # noqa: BLE001 - SystemExit, or a panic of Rust: nobody asks this thread to end
            failure = InferenceFailedError(f"the model raised {type(error).__name__}")
        # Tracebacks hold frames, and these the device's tensors: without them, and outside of except, these are free.
        failure.__traceback__ = failure.__cause__ = failure.__context__ = None
        raise self._translate(failure)

    def wait(self, futures: Sequence[Future[BatchRun]], seconds: float) -> None:
        """Return when all are done, or after that many seconds."""
        concurrent.futures.wait(futures, timeout=seconds)

    def stop(self) -> None:
        """Give up what runs, at its next step, and what has not begun: their futures raise Stopped."""
        self.progress.stop()

    def close(self) -> None:
        """Let go of the thread: what has not begun is cancelled, what runs is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _request_error(error: Exception) -> RequestError:
    return error if isinstance(error, RequestError) else InferenceFailedError.caused_by(error, "the model")
