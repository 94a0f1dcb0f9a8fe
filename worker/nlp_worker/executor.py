"""The device thread: runs batches first-in first-out, and finds the bad row when one fails. Knows no torch."""

from __future__ import annotations

import concurrent.futures
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nlp_worker.errors import InferenceFailedError, OutOfMemoryError, RequestError
from nlp_worker.isolation import isolate
from nlp_worker.poll import BatchRun
from nlp_worker.progress import Progress, Stopped
from nlp_worker.tasks.base import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.clock import Clock
    from nlp_worker.poll import Row


Output = TypeVar("Output")


def _as_it_is(error: Exception) -> Exception:
    return error


@dataclass(slots=True)
class _Attempt:
    """A batch that was begun, to be computed at once: what came of that is isolated only when it has failed."""

    batch: Batch
    future: Future[BatchRun]
    started: float
    """Seconds since 1970."""
    began: float
    """Seconds of the monotonic clock."""
    outcome: Sequence[Any] | Pending | BaseException | None
    """None when it was looked at."""


class Executor:
    """One device, one thread.

    Where the device computes by itself (CUDA) the next batch is collated, and put behind it, before this thread waits
    for the outputs of the one that runs: the device goes from one to the next without a gap.

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
        # Batches; each is counted on by one thread alone.
        self._submitted = self._begun = 0
        # Of the device thread: what the device may still compute, and since when it has computed all before.
        self._underway: _Attempt | None = None
        self._free_since = clock.monotonic()

    def submit(self, batch: Batch) -> Future[BatchRun]:
        """Run the batch when those before it are done.

        A row that fails, alone, has its error for an output; the future itself raises for a FatalError, and Stopped
        for what was given up.
        """
        future: Future[BatchRun] = Future()
        self._last = future
        self._submitted += 1
        self._thread.submit(self._run, batch, future)
        return future

    @property
    def busy(self) -> bool:
        """Whether a batch runs, or waits for its turn."""
        return self._last is not None and not self._last.done()

    def _run(self, batch: Batch, future: Future[BatchRun]) -> None:
        self._begun += 1
        attempt = self._begin(batch, future) if future.set_running_or_notify_cancel() else None
        before, self._underway = self._underway, None
        if before is not None:
            self._finish(before)
        if attempt is None:
            return
        pending = isinstance(attempt.outcome, Pending) and not attempt.outcome.ready
        if pending and self._begun < self._submitted:
            self._underway = attempt
        else:
            self._finish(attempt)

    def _begin(self, batch: Batch, future: Future[BatchRun]) -> _Attempt:
        started, began = self._clock.time(), self._clock.monotonic()
        outcome: Sequence[Any] | Pending | BaseException
        try:
            outcome = self._forward(batch)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to this batch's future
            outcome = error
        return _Attempt(batch, future, started, began, outcome)

    def _finish(self, attempt: _Attempt) -> None:
        try:
            run = self._isolated(attempt)
        except BaseException as error:  # noqa: BLE001 - a FatalError, or Stopped: the control thread's to see
            attempt.future.set_exception(error)
        else:
            attempt.future.set_result(run)

    def _isolated(self, attempt: _Attempt) -> BatchRun:
        memory_was_short = False
        fitted = 0

        def run_part(rows: Sequence[Row]) -> Sequence[Any]:
            nonlocal memory_was_short, fitted
            part = attempt.batch.part(rows)
            outcome, attempt.outcome = attempt.outcome, None
            try:
                if isinstance(outcome, BaseException):
                    raise outcome
                outputs = self._outputs(outcome if outcome is not None else self._forward(part))
            except OutOfMemoryError:
                memory_was_short = True
                raise
            fitted = max(fitted, part.size)
            return outputs

        outputs = isolate(attempt.batch.rows, run_part)
        outputs = [_request_error(output) if isinstance(output, Exception) else output for output in outputs]
        before, self._free_since = self._free_since, self._clock.monotonic()
        seconds = self._free_since - max(before, attempt.began)
        idle = max(attempt.began - before, 0.0)
        return BatchRun(outputs, attempt.started, seconds, fitted if memory_was_short else None, idle)

    def _forward(self, part: Batch) -> Sequence[Any] | Pending:
        self.progress.step()
        return self._guarded(lambda: part.task.forward(part.task.collate(part)))

    def _outputs(self, outcome: Sequence[Any] | Pending) -> Sequence[Any]:
        return self._guarded(outcome.get) if isinstance(outcome, Pending) else outcome

    def _guarded(self, compute: Callable[[], Output]) -> Output:
        """Raise what an error of the device, or of a task, means."""
        try:
            return compute()
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
