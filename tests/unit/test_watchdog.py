"""A thread that stands still although it has work ends the process; one that moves, or has nothing to do, never."""

from __future__ import annotations

import os
import subprocess
import sys

from fakes import ManualClock
from nlp_worker.watchdog import Watchdog, Watched


class Bench:
    """A thread whose steps the test counts."""

    def __init__(self) -> None:
        self.steps, self.busy, self.stuck = 0, True, 0
        self.clock = ManualClock()
        watched = Watched("device", lambda: self.steps, lambda: self.busy)
        self.watchdog = Watchdog(60, [watched], self.note, self.clock)

    def note(self) -> None:
        self.stuck += 1

    def look(self, seconds: float) -> int:
        self.clock.now += seconds
        self.watchdog.look()
        return self.stuck


def test_a_thread_that_stands_still_is_stuck_when_its_time_is_over() -> None:
    """Not before."""
    bench = Bench()
    assert [bench.look(30), bench.look(29), bench.look(1)] == [0, 0, 1]


def test_a_thread_that_moves_is_not_stuck() -> None:
    """However slowly, as long as it takes a step within its time: a token of a long generation is one."""
    bench = Bench()
    for _ in range(10):
        bench.look(59)
        bench.steps += 1
    assert bench.stuck == 0


def test_a_thread_without_work_is_not_stuck() -> None:
    """And its time begins when it gets some."""
    bench = Bench()
    bench.busy = False
    bench.look(600)
    bench.busy = True
    assert [bench.look(59), bench.look(1)] == [0, 1]


def test_a_stuck_thread_is_named_between_the_looks() -> None:
    """For a probe: until it moves, or has nothing to do."""
    bench = Bench()
    bench.clock.now += 59
    assert bench.watchdog.stuck() is None
    bench.clock.now += 1
    assert bench.watchdog.stuck() == "device"
    bench.busy = False
    assert bench.watchdog.stuck() is None
    bench.busy = True
    bench.steps += 1
    assert bench.watchdog.stuck() is None


SCRIPT = """
import os, threading
from nlp_worker.watchdog import Watchdog, Watched
def what_it_hangs_in(): threading.Event().wait(60)
threading.Thread(target=what_it_hangs_in, daemon=True).start()
Watchdog(0.5, [Watched("control", lambda: 0, lambda: True)], lambda: os._exit(10)).start()
what_it_hangs_in()
"""


def test_a_stuck_process_ends_with_all_its_stacks() -> None:
    """For whoever has to find out where: both threads' frames are on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=30, env=os.environ
    )
    assert (done.returncode, done.stderr.count("in what_it_hangs_in")) == (10, 2)
