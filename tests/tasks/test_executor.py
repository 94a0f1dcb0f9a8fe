"""The device thread: one bad row costs one error, a lost device costs the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

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

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, inputs: list[str]) -> list[str]:
        if "bad" in inputs:
            raise self.error
        return inputs


def rows(*texts: str) -> list[Row]:
    return [Row({"input_ids": [ord(character) for character in text]}) for text in texts]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), OutOfMemoryError),
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("index out of range"), InferenceFailedError),
    ],
)
def test_a_row_that_fails_alone_has_its_error_and_its_neighbours_their_outputs(
    executor: Executor, error: Exception, expected: type[Exception]
) -> None:
    """Out of memory too: the halves may fit where the whole did not."""
    run = executor.submit(Batch(FailingTask(error), rows("a", "b", "bad", "c"))).result(timeout=10)
    assert [output for output in run.outputs if isinstance(output, str)] == ["a", "b", "c"]
    assert isinstance(run.outputs[2], expected)
    assert run.seconds >= 0


def test_a_lost_device_is_not_isolated(executor: Executor) -> None:
    """Its future raises, which ends the loop and the process."""
    task = FailingTask(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(DeviceLostError):
        executor.submit(Batch(task, rows("a", "bad"))).result(timeout=10)


def test_batches_run_in_the_order_in_which_they_came(executor: Executor) -> None:
    """First in, first out: committing the oldest finished poll is right only then."""
    futures = [executor.submit(Batch(FakeTask(), rows(str(number)))) for number in range(50)]
    started = [future.result(timeout=10).started for future in futures]
    assert started == sorted(started)
