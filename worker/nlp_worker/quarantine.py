"""A record that brings the process down, by SIGSEGV, the OOM killer or a lost device, does not do so for ever.

What is known of it must outlive the process, and the next owner of the partition must find it: it is kept in the
metadata of the partition's committed offset. Who begins with a partition commits there that it did. A commit that
moves the offset clears it. So whoever finds two starts knows that the last two owners ended before they had finished
anything, and runs that partition's records alone from then on, each attempt committed before it is made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import structlog

from nlp_schemas import Stage
from nlp_worker.errors import QuarantinedError
from nlp_worker.poll import Commit, Committed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from nlp_worker.poll import Entry, Partition

log = structlog.get_logger()

#: Starts without progress after which records run alone: one may be a deployment, or a machine that was lost.
SUSPICIOUS_STARTS: Final = 2

#: Attempts, each alone, after which a record is answered with `quarantined` instead of being tried again.
MAX_ATTEMPTS: Final = 3


class Mark(NamedTuple):
    """What a committed offset's metadata says of the records from there on."""

    starts: int = 0
    """Workers that began here, none of which finished anything."""
    attempts: int = 0
    """Of the next record, alone."""
    alone_until: int = 0
    """Up to this offset records run alone: one of them ended a process."""
    request_us: int = 0
    """Microseconds that a device takes for a request: what `nlp-worker lag` tells the time to drain by."""

    def encode(self) -> str:
        return json.dumps({name: value for name, value in self._asdict().items() if value}) if any(self) else ""

    @classmethod
    def decode(cls, metadata: str) -> Mark:
        """Read a mark; whatever else stands there, another tool's note for one, is none."""
        try:
            found = json.loads(metadata or "{}")
            values = {name: found[name] for name in cls._fields if name in found}
        except (ValueError, TypeError):
            return cls()
        return cls(**values) if all(type(value) is int and value >= 0 for value in values.values()) else cls()


class Begun(NamedTuple):
    """What this worker committed last for a partition."""

    offset: int
    mark: Mark

    @property
    def commit(self) -> Commit:
        return Commit(self.offset, self.mark.encode())


class MarkKeeper(Protocol):
    """Where marks are kept: the consumer."""

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Commit] | None:
        """Return what the group has committed; None while the broker does not say."""
        ...

    def begin(self, marks: Mapping[Partition, Commit], before: Mapping[Partition, Commit]) -> Committed:
        """Commit marks; ``before`` is what stands there again if the partition is given up without progress."""
        ...


class Quarantine:
    """Decides how a partition's records run: together, alone, or not at all.

    Args:
        consumer: Where marks are kept.
        in_flight: The most records of a partition that are in flight at once: one of so many ended a process.
        request_seconds: Says how long the device takes for a request of a topic.
    """

    def __init__(self, consumer: MarkKeeper, in_flight: int, request_seconds: Callable[[str], float]) -> None:
        self._consumer = consumer
        self._in_flight = in_flight
        self._request_seconds = request_seconds
        self._begun: dict[Partition, Begun] = {}

    def begin(self, entries: Iterable[Entry]) -> bool:
        """Mark the partitions of entries that are new here; whether work on all of them may start."""
        first: dict[Partition, int] = {}
        for entry in entries:
            if entry.partition not in self._begun:
                first.setdefault(entry.partition, entry.record.offset)
        if not first:
            return True
        if (committed := self._consumer.committed(first)) is None:
            return False
        # Of a partition of which nothing was committed, or of a topic that was made anew, the first record counts.
        before = {
            partition: commit
            if (commit := committed.get(partition)) is not None and commit.offset <= offset
            else Commit(offset)
            for partition, offset in first.items()
        }
        begun = {partition: self._start(partition, commit) for partition, commit in before.items()}
        return self._mark(begun, before)

    def _start(self, partition: Partition, commit: Commit) -> Begun:
        found = Mark.decode(commit.metadata)
        mark = found._replace(starts=found.starts + 1)
        if found.starts >= SUSPICIOUS_STARTS and mark.alone_until <= commit.offset:
            mark = mark._replace(alone_until=commit.offset + self._in_flight)
            log.warning(
                "records_run_alone",
                reason="the partition's last owners ended before they had finished anything",
                topic=partition.topic,
                partition=partition.partition,
                first=commit.offset,
                until=mark.alone_until,
            )
        return Begun(commit.offset, mark)

    def _mark(self, begun: Mapping[Partition, Begun], before: Mapping[Partition, Commit]) -> bool:
        marks = {partition: one.commit for partition, one in begun.items()}
        if self._consumer.begin(marks, before) is not Committed.DONE:
            return False
        self._begun.update(begun)
        return True

    def is_suspect(self, entry: Entry) -> bool:
        """Whether the entry's record must run alone."""
        begun = self._begun.get(entry.partition)
        return begun is not None and entry.record.offset < begun.mark.alone_until

    def attempt(self, entry: Entry) -> bool:
        """Commit that a suspect's turn has come; False where that must wait for the next poll.

        One that was tried often enough fails here, untouched.
        """
        begun = self._begun[entry.partition]
        entry.attempt = begun.mark.attempts + 1
        if entry.attempt > MAX_ATTEMPTS:
            entry.attempt = MAX_ATTEMPTS
            reason = f"the worker's process ended in each of {MAX_ATTEMPTS} attempts to answer this"
            entry.fail(QuarantinedError(reason), Stage.FORWARD)
            return True
        tried = begun._replace(mark=begun.mark._replace(attempts=entry.attempt))
        return self._mark({entry.partition: tried}, {entry.partition: begun.commit})

    def commits(self, offsets: Mapping[Partition, int]) -> dict[Partition, Commit]:
        """Return what to commit when the records before these offsets are answered: marks are cleared by it."""
        return {partition: self._after(partition, offset).commit for partition, offset in offsets.items()}

    def progress(self, offsets: Mapping[Partition, int]) -> None:
        """Keep that these were committed."""
        self._begun.update({partition: self._after(partition, offset) for partition, offset in offsets.items()})

    def _after(self, partition: Partition, offset: int) -> Begun:
        begun = self._begun.get(partition)
        until = begun.mark.alone_until if begun is not None else 0
        request_us = round(self._request_seconds(partition.topic) * 1e6)
        return Begun(offset, Mark(alone_until=until if offset < until else 0, request_us=request_us))

    def forget(self, partitions: Collection[Partition]) -> None:
        """Of partitions that were given up: what comes back is begun anew."""
        for partition in partitions:
            self._begun.pop(partition, None)
