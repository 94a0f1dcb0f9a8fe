"""A bad deployment leaves a backlog, not an emptied topic: too many failures in a row end the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nlp_schemas import ErrorCode
from nlp_worker.errors import FailuresError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.poll import Entry

#: What the model or the device is to blame for. A producer's bad input never stops anything.
COUNTED: Final = frozenset({ErrorCode.INFERENCE_FAILED, ErrorCode.OUT_OF_MEMORY})


class Breaker:
    """Counts failures in a row.

    Args:
        most: So many end the worker; 0 is never.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_a_row = 0

    def judge(self, entries: Sequence[Entry]) -> None:
        """Decide before entries are published, as often as they are tried.

        Raises:
            FailuresError: with these there are too many failures in a row.
        """
        failures = self._count(entries, stop=self._most)
        if self._most and failures >= self._most:
            last = next(entry.error for entry in reversed(entries) if entry.error is not None)
            raise FailuresError(
                f"{failures} requests in a row failed, the last one with {last.code}: {last}. They are not committed: "
                "mend the deployment, or raise failures_in_a_row where the requests are to blame"
            )

    def settle(self, entries: Sequence[Entry]) -> None:
        """Keep what was published."""
        self._in_a_row = self._count(entries)

    def _count(self, entries: Sequence[Entry], stop: int | None = None) -> int:
        failures = self._in_a_row
        for entry in entries:
            if entry.error is None:
                failures = 0
            elif entry.error.code in COUNTED:
                failures += 1
            if failures == stop:
                break
        return failures
