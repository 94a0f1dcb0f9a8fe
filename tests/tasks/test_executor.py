"""The device thread: one bad row costs one error, whatever it raises, a lost device costs the process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import pytest

from fakes import FakeTask
from nlp_worker.batching import Batch
from nlp_worker.errors import DeviceLostError, InferenceFailedError, OutOfMemoryError
from nlp_worker.executor import Executor
from nlp_worker.poll import Row

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
