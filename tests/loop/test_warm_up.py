"""The warm-up: what the device can, and what it cannot, is known before the first request."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from fakes import FakeTask, ManualClock
from nlp_worker.errors import CheckpointError, OutOfMemoryError
from nlp_worker.executor import Executor
from nlp_worker.planner import Planner
from nlp_worker.poll import Entry, Poll, Row

if TYPE_CHECKING:
    from collections.abc import Sequence

BUDGET = 1_000


class Device(FakeTask):
    """Takes a second for each forward and a millisecond for each token, and has memory for so many tokens."""

    def __init__(
        self, clock: ManualClock, seconds: float = 0.0, per_token: float = 0.001, memory: int = BUDGET
    ) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.per_token = per_token
        self.memory = memory
        self.sizes: list[int] = []

    def forward(self, inputs: list[str]) -> list[str]:
        size = sum(map(len, inputs))
        self.sizes.append(size)
        if size > self.memory:
            raise OutOfMemoryError("too much")
        self.clock.now += self.seconds + self.per_token * size
        return super().forward(inputs)

    def warm_up_rows(self) -> list[Row]:
        return [Row({"input_ids": [1] * 10})] * 2


def warmed_up(device: FakeTask, clock: ManualClock) -> Planner:
    planner = Planner(BUDGET)
    with contextlib.closing(Executor(clock=clock)) as executor:
        planner.warm_up(device, executor)
    return planner


def planned(planner: Planner, device: FakeTask, lengths: Sequence[int]) -> list[list[int]]:
    entry = Entry(None, device.name, task=device)  # type: ignore[arg-type]  # nothing is asked of its record
    entry.rows = [Row({"input_ids": [1] * length}) for length in lengths]
    return [[row.length for row in batch.rows] for batch in planner.plan(Poll([entry], {}))]


def test_batches_double_up_to_the_budget() -> None:
    """The first is run twice: what it sets up would count as the device's speed."""
    device = Device(clock := ManualClock(), per_token=1e-6)
    warmed_up(device, clock)
    assert device.sizes == [20, 20, 40, 80, 160, 320, 640]


def test_a_slow_device_is_let_off() -> None:
    """A start takes no longer than a batch that shows its speed: 0.3 s."""
    device = Device(clock := ManualClock(), per_token=0.005)
    warmed_up(device, clock)
    assert device.sizes == [20, 20, 40, 80]


@pytest.mark.parametrize(
    ("seconds", "batches"), [(0.0001, [[100], [90], [10] * 4]), (0.2, [[10, 10, 10, 10, 90, 100]])]
)
def test_the_first_poll_is_planned_by_what_the_device_has_shown(seconds: float, batches: list[list[int]]) -> None:
    """Where a forward costs next to nothing no row is padded for it, and where it costs much rows are."""
    device = Device(clock := ManualClock(), seconds=seconds, per_token=0.0001)
    assert planned(warmed_up(device, clock), device, [100, 90, 10, 10, 10, 10]) == batches


def test_what_does_not_fit_lowers_the_budget_before_the_first_request() -> None:
    """No request has to run out of memory for it."""
    device = Device(clock := ManualClock(), per_token=1e-6, memory=200)
    planner = warmed_up(device, clock)
    device.sizes.clear()
    assert planned(planner, device, [10] * 32) == [[10] * 16] * 2


def test_a_checkpoint_that_cannot_run_is_told_before_the_first_request() -> None:
    """With the reason; else each of its requests would be answered with an error."""

    class Broken(Device):
        def forward(self, inputs: list[str]) -> list[str]:
            raise ValueError(f"no kernel for {len(inputs)} rows")

    with pytest.raises(CheckpointError, match="fake/checkpoint cannot run: ValueError: no kernel for 1 rows"):
        warmed_up(Broken(clock := ManualClock()), clock)
