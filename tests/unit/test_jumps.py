"""What retention deleted is told, and what only looks like it is not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

from fakes import ManualClock
from nlp_worker.jumps import Jumps
from nlp_worker.poll import Partition

if TYPE_CHECKING:
    from collections.abc import Collection

P0 = Partition("requests", 0)


@pytest.fixture(autouse=True)
def loud_log(quiet_log: None) -> None:
    del quiet_log
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


class Bench:
    """A partition whose beginning is where the test puts it."""

    def __init__(self) -> None:
        self.beginning: int | None = 0
        self.look_ups = 0
        self.clock = ManualClock()
        self.jumps = Jumps(self.beginnings, self.clock)

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int] | None:
        self.look_ups += 1
        return None if self.beginning is None else dict.fromkeys(partitions, self.beginning)

    def check(self) -> list[dict[str, Any]]:
        self.clock.now += 2
        with capture_logs() as logs:
            self.jumps.check()
        return [dict(entry) for entry in logs]


def test_requests_that_were_deleted_before_they_were_read_are_counted() -> None:
    """While it runs: read to 10, and the next record that is there is 50."""
    bench = Bench()
    bench.jumps.note(P0, 0, 10)
    bench.beginning = 50
    bench.jumps.note(P0, 50, 60)
    (told,) = bench.check()
    assert (told["event"], told["requests"], told["log_level"]) == ("requests_deleted", 40, "error")
    assert bench.jumps.deleted == 40
    assert bench.check() == []


def test_requests_that_were_deleted_before_the_start_are_counted() -> None:
    """The committed offset is 10, the first record that is there is 50."""
    bench = Bench()
    bench.beginning = 50
    bench.jumps.note(P0, 50, 60)
    bench.jumps.expect(P0, 10)
    assert [told["requests"] for told in bench.check()] == [40]


@pytest.mark.parametrize("beginning", [0, 10])
def test_markers_and_compaction_are_no_loss(beginning: int) -> None:
    """Offsets that hold no record, behind the partition's beginning."""
    bench = Bench()
    bench.beginning = beginning
    bench.jumps.note(P0, 0, 10)
    bench.jumps.note(P0, 11, 12)
    bench.jumps.note(P0, 15, 16)
    assert (bench.check(), bench.jumps.deleted) == ([], 0)


def test_offsets_that_went_back_are_told() -> None:
    """A topic that was deleted and made anew begins at 0 again."""
    bench = Bench()
    bench.jumps.note(P0, 0, 10)
    with capture_logs() as logs:
        bench.jumps.note(P0, 0, 5)
    assert [entry["event"] for entry in logs] == ["offsets_went_back"]


def test_look_ups_are_rare_and_repeated_until_the_broker_answers() -> None:
    """A topic that is written in transactions jumps at every one of them."""
    bench = Bench()
    bench.beginning = None
    for number in range(100):
        bench.jumps.note(P0, 2 * number, 2 * number + 1)
        bench.jumps.check()
    assert bench.look_ups == 0
    bench.check()
    bench.check()
    assert bench.look_ups == 2
    bench.beginning = 7
    assert [told["requests"] for told in bench.check()] == [3]  # at 1, 3 and 5


def test_what_was_given_up_is_forgotten() -> None:
    """Another member reads on; where it comes back is no jump."""
    bench = Bench()
    bench.beginning = 50
    bench.jumps.note(P0, 0, 10)
    bench.jumps.forget([P0])
    bench.jumps.note(P0, 50, 60)
    assert bench.check() == []
