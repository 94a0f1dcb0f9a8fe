"""Requests that nobody can answer any more: those that Kafka's retention deleted before they were read, told loudly.

The client resumes at a partition's beginning without a word. Positions also jump where nothing is missing: over the
markers of a producer's transactions, and over what compaction removed. The partition's beginning tells which it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from nlp_worker.clock import Clock
    from nlp_worker.poll import Partition

log = structlog.get_logger()

#: Seconds between two look-ups: a topic written in transactions jumps at every one of them.
CHECK_INTERVAL: Final = 1.0


class TopicIds:
    """Tells which topics were deleted and created again.

    The client goes on at its position in the old one: what the new one has below that would be skipped.

    Args:
        topic_id: Returns what identifies a topic beside its name; None while that is not known.
    """

    def __init__(self, topic_id: Callable[[str], object]) -> None:
        self._topic_id = topic_id
        self._known: dict[str, object] = {}

    def changed(self, topics: Collection[str]) -> frozenset[str]:
        """Return the topics that are others than at the last look."""
        found = {topic: identity for topic in topics if (identity := self._topic_id(topic)) is not None}
        changed = frozenset(topic for topic, identity in found.items() if self._known.get(topic, identity) != identity)
        self._known.update(found)
        for topic in sorted(changed):
            reason = "it was deleted and created again: what is there now is answered from its beginning"
            log.error("topic_made_anew", reason=reason, topic=topic)
        return changed


class Jumps:
    """Compares each jump of a position with the partition's beginning.

    Args:
        beginnings: Returns the first offset of partitions; None while the broker does not say.
        clock: For the time between look-ups.
    """

    def __init__(
        self, beginnings: Callable[[Collection[Partition]], Mapping[Partition, int] | None], clock: Clock = time
    ) -> None:
        self._beginnings = beginnings
        self._clock = clock
        self._first: dict[Partition, int] = {}
        self._next: dict[Partition, int] = {}
        self._jumps: dict[Partition, list[tuple[int, int]]] = {}
        self._checked = clock.monotonic()
        #: Requests that were deleted before they were read, since the start.
        self.deleted = 0

    def note(self, partition: Partition, first: int, after: int) -> None:
        """Note records that came, from ``first`` to the one before ``after``."""
        expected = self._next.get(partition)
        if expected is None:
            self._first[partition] = first
        else:
            self._compare(partition, expected, first)
        self._next[partition] = after

    def expect(self, partition: Partition, offset: int) -> None:
        """Note where a new partition's first records should have begun: at its committed offset."""
        if (first := self._first.pop(partition, None)) is not None:
            self._compare(partition, offset, first)

    def _compare(self, partition: Partition, expected: int, found: int) -> None:
        if found < expected:
            log.error(
                "offsets_went_back",
                reason="the topic was made anew or lost its end; what is there now is answered",
                topic=partition.topic,
                partition=partition.partition,
                expected=expected,
                found=found,
            )
        elif found > expected:
            self._jumps.setdefault(partition, []).append((expected, found))

    def check(self) -> None:
        """Look up, now and then, which jumps left requests unanswered."""
        if not self._jumps or self._clock.monotonic() - self._checked < CHECK_INTERVAL:
            return
        self._checked = self._clock.monotonic()
        if (beginnings := self._beginnings(list(self._jumps))) is None:
            return
        jumps, self._jumps = self._jumps, {}
        for partition, of_partition in jumps.items():
            beginning = beginnings.get(partition, 0)
            if deleted := sum(max(min(beginning, found) - expected, 0) for expected, found in of_partition):
                self.deleted += deleted
                log.error(
                    "requests_deleted",
                    reason="the topic's retention deleted requests before they were read: keep them longer",
                    topic=partition.topic,
                    partition=partition.partition,
                    until=beginning,
                    requests=deleted,
                    since_start=self.deleted,
                )

    def forget(self, partitions: Collection[Partition]) -> None:
        """Of partitions that were gained or lost."""
        for partition in partitions:
            self._first.pop(partition, None)
            self._next.pop(partition, None)
            self._jumps.pop(partition, None)
