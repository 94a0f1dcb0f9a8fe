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
        self,
        clock: ManualClock,
        seconds: float = 0.0,
        per_token: float = 0.001,
        memory: int = BUDGET,
        new_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds
        self.per_token = per_token
        self.memory = memory
        self.new_tokens = new_tokens
        self.sizes: list[int] = []

    def forward(self, inputs: list[str]) -> list[str]:
        size = sum(map(len, inputs))
        self.sizes.append(size)
        if size > self.memory:
            raise OutOfMemoryError("too much")
        self.clock.now += self.seconds + self.per_token * size
        return super().forward(inputs)

    def warm_up_rows(self) -> list[Row]:
        return [Row({"input_ids": [1] * 10}, new_tokens=self.new_tokens)] * 2


def warmed_up(device: FakeTask, clock: ManualClock, planner: Planner | None = None) -> Planner:
    planner = planner or Planner(BUDGET)
    with contextlib.closing(Executor(clock=clock)) as executor:
        planner.warm_up(device, executor)
    return planner


def planned(planner: Planner, device: FakeTask, lengths: Sequence[int]) -> list[list[int]]:
    entry = Entry(None, device.name, task=device)  # type: ignore[arg-type]  # nothing is asked of its record
    entry.rows = [Row({"input_ids": [1] * length}) for length in lengths]
    return [[row.length for row in batch.rows] for batch in planner.plan(Poll([entry], {}))]


def test_batches_double_up_to_the_budget() -> None:
    """So that a full one is known to fit. Each is run twice: what a new shape sets up is none of the device's speed."""
    device = Device(clock := ManualClock(), per_token=1e-6)
    warmed_up(device, clock)
    assert device.sizes == [size for size in (20, 40, 80, 160, 320, 640, 1000) for _ in range(2)]


def test_a_slow_device_is_let_off() -> None:
    """A start takes no longer than a batch that shows its speed: 0.3 s."""
    device = Device(clock := ManualClock(), per_token=0.005)
    warmed_up(device, clock)
    assert device.sizes == [20, 20, 40, 40, 80, 80]


def test_what_a_new_shape_sets_up_is_none_of_the_devices_speed() -> None:
    """A device that takes a second for each size that it has not seen is planned for as one that does not."""

    class SettingUp(Device):
        def forward(self, inputs: list[str]) -> list[str]:
            if sum(map(len, inputs)) not in self.sizes:
                self.clock.now += 1.0
            return super().forward(inputs)

    lengths = [100, 90, 10, 10, 10, 10]
    plans = []
    for kind in (Device, SettingUp):
        device = kind(clock := ManualClock(), seconds=0.0001, per_token=0.0001)
        plans.append(planned(warmed_up(device, clock), device, lengths))
    assert plans[0] == plans[1]


@pytest.mark.parametrize(("overhead", "tokens"), [(1, 2_048), (100, 3_000), (10_000, 16_384)])
def test_a_batch_is_as_large_as_the_device_gains_by(overhead: int, tokens: int) -> None:
    """Where no setting says: as many tokens as make the time of a forward small, and neither too few nor too many."""
    device = Device(clock := ManualClock(), seconds=overhead * 1e-6, per_token=1e-6, memory=10**6)
    plan = planned(warmed_up(device, clock, Planner()), device, [10] * 10_000)
    assert 10 * max(map(len, plan)) == pytest.approx(tokens, rel=0.05)


def test_what_is_generated_has_a_budget_of_its_own() -> None:
    """Keys and values of each token are kept: memory decides, and not what a forward takes."""
    device = Device(clock := ManualClock(), per_token=1e-6, memory=10**6, new_tokens=10)
    plan = planned(warmed_up(device, clock, Planner(cache_tokens=3_000)), device, [10] * 1_000)
    assert max(map(len, plan)) == 300


def test_a_setting_is_what_a_batch_has() -> None:
    """Whatever the device would gain by."""
    device = Device(clock := ManualClock(), per_token=1e-6, memory=10**6)
    plan = planned(warmed_up(device, clock, Planner(500)), device, [10] * 1_000)
    assert max(map(len, plan)) == 50


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
