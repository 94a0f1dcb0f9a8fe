"""What was polled and is in no poll yet: entries in offset order, read ahead, and cut into polls."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from nlp_worker.intake import Intake
    from nlp_worker.parts import Limits
    from nlp_worker.planner import Planner
    from nlp_worker.poll import Entry, Partition, Record
    from nlp_worker.quarantine import Quarantine

#: Bytes of requests that are decoded, and of answers that are built, for one poll: what it holds in memory.
POLL_REQUEST_BYTES: Final = 8 * 2**20
POLL_ANSWER_BYTES: Final = 64 * 2**20


class Waiting:
    """Entries that wait for the device."""

    def __init__(self, intake: Intake, planner: Planner, quarantine: Quarantine, limits: Limits) -> None:
        self._intake = intake
        self._planner = planner
        self._quarantine = quarantine
        self._limits = limits
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    @property
    def first(self) -> Entry:
        return self._entries[0]

    def add(self, records: Iterable[Record]) -> None:
        self._entries.extend(map(self._intake.entry, records))

    def clear(self) -> None:
        self._entries.clear()

    def disown(self, revoked: Collection[Partition]) -> None:
        """Give up what belongs to these partitions."""
        self._entries = deque(entry for entry in self._entries if entry.partition not in revoked)

    def read_ahead(self) -> None:
        """Decode and preprocess the next entries, as many as a poll could take, up to one that must run alone."""
        unread: list[Entry] = []
        request_bytes = 0
        for entry in self._entries:
            request_bytes += entry.request_bytes
            if (unread and request_bytes > POLL_REQUEST_BYTES) or self._quarantine.is_suspect(entry):
                break
            if not entry.read:
                unread.append(entry)
        self._intake.read(unread)

    def cut(self) -> list[Entry]:
        """Take entries that were read, until a bound of a poll is reached; one entry may exceed a bound alone."""
        taken: list[Entry] = []
        seconds, answer_bytes = 0.0, 0
        while self._entries and self.first.read:
            seconds += self._planner.device_seconds(self.first)
            answer_bytes += self.first.output_bytes
            if taken and (seconds > self._limits.device_seconds or answer_bytes > POLL_ANSWER_BYTES):
                break
            taken.append(self._entries.popleft())
        return taken

    def cut_suspect(self) -> list[Entry]:
        """Take the next entry, which may end the process, when nothing else would be brought down with it."""
        if not self._quarantine.attempt(self.first):
            return []
        self._intake.read([self.first])
        return [self._entries.popleft()]
