"""Time, as the worker reads it."""

from typing import Protocol


class Clock(Protocol):
    """The two readings of the standard library's ``time`` module, which is the clock outside the tests."""

    def monotonic(self) -> float:
        """Seconds from some start: for durations and deadlines."""
        ...

    def time(self) -> float:
        """Seconds since 1970: for what is compared with a record's timestamp."""
        ...
