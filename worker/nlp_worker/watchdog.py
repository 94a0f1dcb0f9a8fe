"""Ends a process in which nothing moves although there is work: the group gives its partitions to one that does."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_worker.clock import Clock

log = structlog.get_logger()

#: Looks within the time that a thread may stand still: how much later than that it is noticed.
LOOKS: Final = 10


class Watched(NamedTuple):
    """A thread that should move."""

    name: str
    steps: Callable[[], int]
    """A number that changes while it does."""
    busy: Callable[[], bool]
    """Whether it has something to do."""


class Watchdog:
    """Looks at threads, in one of its own.

    Args:
        seconds: How long a thread that has work may stand still.
        watched: The threads.
        stuck: Called when one does, after all stacks were written to standard error; does not return.
        clock: Tells how long.
    """

    def __init__(
        self, seconds: float, watched: Sequence[Watched], stuck: Callable[[], None], clock: Clock = time
    ) -> None:
        self._seconds = seconds
        self._end = stuck
        self._clock = clock
        self._last = {one: (one.steps(), clock.monotonic()) for one in watched}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._seconds / LOOKS):
            self.look()

    def stuck(self) -> str | None:
        """Name a thread that has stood still for too long since the looks noticed it; from any thread."""
        now = self._clock.monotonic()
        for one, (steps, since) in self._last.items():
            if now - since >= self._seconds and one.steps() == steps and one.busy():
                return one.name
        return None

    def look(self) -> None:
        """Compare each thread's steps with those of the last look."""
        now = self._clock.monotonic()
        for one, (steps, since) in self._last.items():
            if one.steps() != steps or not one.busy():
                self._last[one] = one.steps(), now
            elif now - since >= self._seconds:
                log.critical("stuck", thread=one.name, seconds=round(now - since, 1), steps=steps)
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                self._end()
