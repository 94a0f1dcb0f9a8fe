"""How the device thread says that it moves, and how it is told to stop in the middle of a long generation."""

from __future__ import annotations

from contextvars import ContextVar
from threading import Event


class Stopped(BaseException):
    """The work was given up while it ran: it is neither answered nor committed.

    Not an Exception: what a model or a task does about errors must not swallow it, and no row is to blame for it.
    """


class Progress:
    """Of one thread: only that thread counts steps, any other may read them, or stop it."""

    def __init__(self) -> None:
        self._stopping = Event()
        #: Batches begun, parts of a batch that failed, tokens generated: a thread whose number stands still is stuck
        #: or within one forward.
        self.steps = 0

    def stop(self) -> None:
        """Make the thread's next step raise, and every later one."""
        self._stopping.set()

    def step(self) -> None:
        """Count a step.

        Raises:
            Stopped: `stop` was called.
        """
        self.steps += 1
        if self._stopping.is_set():
            raise Stopped

    def watch_thread(self) -> None:
        """Make `step()` of this module count here for the thread that calls this."""
        _of_thread.set(self)


_of_thread: ContextVar[Progress] = ContextVar("progress")


def step() -> None:
    """Count a step of this thread, which may raise Stopped; does nothing where no progress is watched.

    For code deep within a forward, which a generation step is: what lies between would only hand the object on.
    """
    if (progress := _of_thread.get(None)) is not None:
        progress.step()
