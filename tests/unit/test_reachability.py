"""When the log tells that the broker is away, and when it tells nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from fakes import ManualClock
from nlp_worker.reachability import Reachability

SERVERS = "kafka-1:9092,kafka-2:9092"

#: Seconds between two polls.
POLL = 0.25


@pytest.fixture(autouse=True)
def loud_log(quiet_log: None) -> None:
    del quiet_log
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))


class Bench:
    """A connection that the test opens and closes."""

    def __init__(self, *, connected: bool = True) -> None:
        self.connected = connected
        self.looks = 0
        self.clock = ManualClock()
        self.reachability = Reachability(self.look, SERVERS, self.clock)

    def look(self) -> bool:
        self.looks += 1
        return self.connected

    def poll(self, seconds: float) -> list[tuple[str, str, Any]]:
        """Poll for so long, and return level, event and seconds of what was logged."""
        until = self.clock.now + seconds
        with capture_logs() as logs:
            while self.clock.now < until:
                self.reachability.check()
                self.clock.now += POLL
        assert {entry.get("bootstrap_servers", SERVERS) for entry in logs} <= {SERVERS}
        return [(entry["log_level"], entry["event"], entry["seconds"]) for entry in logs]


def test_a_worker_with_a_connection_tells_nothing() -> None:
    """Silence in an hour of polls, and one look a second at most."""
    bench = Bench()
    assert bench.poll(3600) == []
    assert bench.looks == 3600


def test_a_broker_that_is_away_is_told_after_ten_seconds_and_then_each_minute() -> None:
    """No word before 10 s, one then, none again before a minute has passed, and one for each after that."""
    bench = Bench()
    bench.poll(5)
    bench.connected = False
    assert bench.poll(10) == []
    assert bench.poll(1) == [("warning", "broker_away", 10)]
    assert bench.poll(59) == []
    assert bench.poll(1) == [("warning", "broker_away", 70)]
    assert bench.poll(120) == [("warning", "broker_away", 130), ("warning", "broker_away", 190)]


def test_a_broker_that_is_back_is_told_once() -> None:
    """With how long it was away; the next time it is away everything begins anew."""
    bench = Bench(connected=False)
    bench.poll(20)
    bench.connected = True
    assert bench.poll(100) == [("info", "broker_back", 20)]
    bench.connected = False
    assert bench.poll(10) == []
    assert bench.poll(1) == [("warning", "broker_away", 10)]


def test_a_short_absence_is_not_told() -> None:
    """Neither that it began nor that it is over: a broker that restarts behind others is no event."""
    bench = Bench()
    for _ in range(10):
        bench.connected = False
        assert bench.poll(9) == []
        bench.connected = True
        assert bench.poll(2) == []


def test_a_worker_that_never_had_a_connection_tells_it() -> None:
    """The time before the first connection counts like any other."""
    assert Bench(connected=False).poll(11) == [("warning", "broker_away", 10)]
