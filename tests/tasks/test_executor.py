"""The device thread: one bad row costs one error, whatever it raises, a lost device costs the process."""

from __future__ import annotations

import weakref
from threading import Event
from typing import TYPE_CHECKING, Any

import pytest

from fakes import FakeTask
from nlp_worker.batching import Batch
from nlp_worker.errors import DeviceLostError, InferenceFailedError, OutOfMemoryError
from nlp_worker.executor import Executor
from nlp_worker.poll import Row
from nlp_worker.tasks.base import Pending

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor()
    yield executor
    executor.close()


class FailingTask(FakeTask):
    """Raises for a batch in which a text says so."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, inputs: list[str]) -> list[str]:
        self.calls.append(len(inputs))
        if "bad" in inputs:
            raise self.error
        return inputs


class UnreadableError(Exception):
    """Fails again whoever asks what has failed."""

    def __str__(self) -> str:
        raise ValueError("no message")


def rows(*texts: str) -> list[Row]:
    return [Row({"input_ids": [ord(character) for character in text]}) for text in texts]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("index out of range"),
        UnreadableError(),
        RuntimeError("x" * 10_000_000),
        StopIteration(),
        SystemExit(0),
        KeyboardInterrupt(),
        type("PanicException", (BaseException,), {})("as Rust's extensions raise"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_row_that_fails_alone_has_its_error_and_its_neighbours_their_outputs(
    executor: Executor, error: BaseException
) -> None:
    """What would end a thread or a process elsewhere too: nobody but the model asks this thread to end."""
    run = executor.submit(Batch(FailingTask(error), rows("a", "b", "bad", "c"))).result(timeout=10)
    assert [output for output in run.outputs if isinstance(output, str)] == ["a", "b", "c"]
    assert isinstance(run.outputs[2], InferenceFailedError)
    assert f"the model raised {type(error).__name__}" in str(run.outputs[2])
    assert run.seconds >= 0
    assert run.fitted is None
    assert executor.submit(Batch(FakeTask(), rows("next"))).result(timeout=10).outputs == ["next"]


def test_a_lost_device_is_not_isolated() -> None:
    """Its future raises, which ends the loop and the process."""
    executor = Executor(translate=lambda error: DeviceLostError(f"lost: {error}"))
    task = FailingTask(RuntimeError("of a dead device"))
    with pytest.raises(DeviceLostError, match="lost: of a dead device"):
        executor.submit(Batch(task, rows("a", "bad"))).result(timeout=10)
    executor.close()
    assert task.calls == [2]


def test_what_a_failed_forward_held_is_free_before_its_error_is_translated() -> None:
    """Else the halves would run, and cached memory be given back, beside the tensors of the attempt that failed."""
    held: list[weakref.ref[set[str]]] = []
    alive: list[bool] = []

    class Holding(FakeTask):
        def forward(self, inputs: list[str]) -> list[str]:
            activations = set(inputs)
            held.append(weakref.ref(activations))
            try:
                return [inputs[len(activations)]]
            except IndexError as error:
                raise RuntimeError("above") from error

    def translate(error: Exception) -> Exception:
        alive.extend(reference() is not None for reference in held)
        return error

    executor = Executor(translate)
    executor.submit(Batch(Holding(), rows("a", "b"))).result(timeout=10)
    executor.close()
    assert alive
    assert not any(alive)


def test_a_bad_row_in_a_batch_that_is_too_large_is_found_all_the_same() -> None:
    """Halving mends the one and isolates the other; what fitted is known, and only where memory was short."""

    class Large(FailingTask):
        def forward(self, inputs: list[str]) -> list[str]:
            if len(inputs) > 4:
                raise MemoryError
            return super().forward(inputs)

    def translate(error: Exception) -> Exception:
        return OutOfMemoryError() if isinstance(error, MemoryError) else error

    executor = Executor(translate)
    texts = [*"abcdefghijkl", "bad", *"nop"]
    run = executor.submit(Batch(Large(ValueError("bad")), rows(*texts))).result(timeout=10)
    executor.close()
    assert [output for output in run.outputs if isinstance(output, str)] == [text for text in texts if text != "bad"]
    assert isinstance(run.outputs[12], InferenceFailedError)
    assert run.fitted == 4


def test_batches_run_in_the_order_in_which_they_came(executor: Executor) -> None:
    """First in, first out: committing the oldest finished poll is right only then."""
    futures = [executor.submit(Batch(FakeTask(), rows(str(number)))) for number in range(50)]
    started = [future.result(timeout=10).started for future in futures]
    assert started == sorted(started)


class Copy(Pending):
    """Outputs of a device that computes by itself: they are there when the test says so."""

    def __init__(self, task: Asynchronous, inputs: list[str]) -> None:
        self._task = task
        self._inputs = inputs
        self.computed = Event()

    @property
    def ready(self) -> bool:
        return self.computed.is_set()

    def get(self) -> list[str]:
        self._task.waited.set()
        assert self.computed.wait(timeout=10)
        if "lost on the way" in self._inputs:
            raise ValueError("a failed kernel is told when its outputs are looked at")
        return self._inputs


class Asynchronous(FakeTask):
    """Its forward returns before the device has computed anything."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[Copy] = []
        self.begun = [Event() for _ in range(10)]
        self.waited = Event()

    def forward(self, inputs: list[str]) -> Any:
        super().forward(inputs)
        self.copies.append(Copy(self, inputs))
        self.begun[len(self.copies) - 1].set()
        return self.copies[-1]


def hold(executor: Executor) -> Event:
    """Keep the device thread busy until the event is set, so that several batches wait for it."""
    release = Event()

    class Held(FakeTask):
        def forward(self, inputs: list[str]) -> list[str]:
            assert release.wait(timeout=10)
            return inputs

    executor.submit(Batch(Held(), rows("held")))
    return release


def test_the_next_batch_is_behind_the_one_that_runs_before_that_is_waited_for(executor: Executor) -> None:
    """The device goes from one to the next without a gap; each future has its own outputs, in order."""
    task, release = Asynchronous(), hold(executor)
    first, second = (executor.submit(Batch(task, rows(text))) for text in ("a", "b"))
    release.set()
    assert task.begun[1].wait(timeout=10)
    assert not first.done()
    task.copies[0].computed.set()
    assert first.result(timeout=10).outputs == ["a"]
    assert not second.done()
    task.copies[1].computed.set()
    assert second.result(timeout=10).outputs == ["b"]
    assert second.result().idle == 0


def test_the_last_batch_is_waited_for_at_once(executor: Executor) -> None:
    """Nothing comes behind it that would."""
    task = Asynchronous()
    future = executor.submit(Batch(task, rows("a")))
    assert task.waited.wait(timeout=10)
    task.copies[0].computed.set()
    assert future.result(timeout=10).outputs == ["a"]


def test_a_batch_that_is_cancelled_behind_the_one_that_runs_holds_nothing_up(executor: Executor) -> None:
    """Its poll was given up; the outputs of the one before are wanted all the same."""
    task, release = Asynchronous(), hold(executor)
    first, second = (executor.submit(Batch(task, rows(text))) for text in ("a", "b"))
    assert second.cancel()
    release.set()
    assert task.waited.wait(timeout=10)
    task.copies[0].computed.set()
    assert first.result(timeout=10).outputs == ["a"]


def test_what_fails_on_the_way_is_isolated(executor: Executor) -> None:
    """Of the batch that failed each row is tried apart; the one behind it, which had begun, has its outputs."""
    task, release = Asynchronous(), hold(executor)
    first = executor.submit(Batch(task, rows("a", "lost on the way")))
    second = executor.submit(Batch(task, rows("b")))
    release.set()
    assert task.begun[1].wait(timeout=10)
    for number in range(4):
        assert task.begun[number].wait(timeout=10)
        task.copies[number].computed.set()
    good, bad = first.result(timeout=10).outputs
    assert (good, second.result(timeout=10).outputs) == ("a", ["b"])
    assert isinstance(bad, InferenceFailedError)


def test_where_memory_is_short_for_the_next_batch_the_one_that_runs_is_finished_first(executor: Executor) -> None:
    """Its memory is free then; the other is halved as ever."""

    class Short(Asynchronous):
        def forward(self, inputs: list[str]) -> Any:
            if len(inputs) > 1:
                raise OutOfMemoryError("too much")
            return super().forward(inputs)

    task, release = Short(), hold(executor)
    first, second = executor.submit(Batch(task, rows("a"))), executor.submit(Batch(task, rows("b", "c")))
    release.set()
    for number in range(3):
        assert task.begun[number].wait(timeout=10)
        task.copies[number].computed.set()
        if number == 0:
            assert first.result(timeout=10).outputs == ["a"]
    assert second.result(timeout=10).outputs == ["b", "c"]
    assert second.result().fitted == 1
