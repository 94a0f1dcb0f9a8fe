"""How far a group of workers is behind, as anybody sees it who may read its offsets and topics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors

from nlp_schemas import requests_topic
from nlp_worker import connection
from nlp_worker.errors import BrokerError
from nlp_worker.kafka_clients import open_consumer
from nlp_worker.quarantine import Mark

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kafka import KafkaAdminClient

    from nlp_worker.settings import Settings

#: Milliseconds for the broker to say where partitions begin and end.
LOOK_UP_TIMEOUT_MS: Final = 30_000

#: Seconds for the oldest record of each partition: what does not come by then has no age here.
OLDEST_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class TaskLag:
    """Of one task."""

    task: str
    workers: int
    """Members of the group that have partitions of it."""
    records: int
    """Requests that are not answered."""
    oldest_seconds: float | None
    """Age of the oldest of them; None where there is none, or none that says when it was sent."""
    device_seconds: float | None
    """What one device takes for all of them; None until a worker has answered some."""
    deleted: int
    """Requests that the topic deleted before they were answered."""

    @property
    def drain_seconds(self) -> float | None:
        """How long the workers take for all of them, if nothing else comes; None where nobody can tell."""
        if self.records == 0:
            return 0.0
        return None if self.device_seconds is None or self.workers == 0 else self.device_seconds / self.workers


class GroupLag:
    """Looks at the lag of the tasks that have a requests topic.

    Args:
        settings: Which group, and where.
        tasks: Those that are looked at.

    Raises:
        BrokerError: the broker cannot be reached.
        TopicError: a topic, or the group, is missing or not allowed.
        SettingsError: a setting under [kafka] cannot be used.
    """

    def __init__(self, settings: Settings, tasks: Collection[str]) -> None:
        self._group = settings.group
        self._admin: KafkaAdminClient = connection.connect(settings)
        topics = {requests_topic(task, settings.topic_prefix): task for task in tasks}
        connection.check_topics(self._admin, read=topics, write=[])
        self._partitions = connection.partitions_of(self._admin, topics)
        self._topics = topics
        # What is there is there: a fetch that waited would hold up the look.
        self._client = open_consumer(settings, group_id=None, fetch_max_wait_ms=0, max_poll_records=1)

    def look(self) -> list[TaskLag]:
        """Return the lag of each task now.

        Raises:
            BrokerError: the broker stopped answering.
            TopicError: the group may not be seen.
        """
        partitions, group = self._partitions, self._group
        committed = connection.of_group(lambda: self._admin.list_group_offsets({group: partitions})[group], group)
        owners = connection.of_group(self._owners, group)
        try:
            starts = self._client.beginning_offsets(partitions, timeout_ms=LOOK_UP_TIMEOUT_MS)
            ends = self._client.end_offsets(partitions, timeout_ms=LOOK_UP_TIMEOUT_MS)
            # Without a commit a worker begins at the beginning.
            positions = {
                p: commit.offset if (commit := committed.get(p)) and commit.offset >= 0 else starts[p]
                for p in partitions
            }
            first = {p: max(positions[p], starts[p]) for p in partitions}
            counts = {p: max(ends[p] - first[p], 0) for p in partitions}
            ages = self._ages({p: first[p] for p in partitions if counts[p]})
        except kafka_errors.KafkaError as error:
            raise BrokerError(f"the broker stopped answering: {type(error).__name__}: {error}") from None
        found = []
        for topic, task in self._topics.items():
            own = [p for p in partitions if p.topic == topic]
            marks = [Mark.decode(commit.metadata or "") for p in own if (commit := committed.get(p))]
            costs = [mark.request_us / 1e6 for mark in marks if mark.request_us]
            records = sum(counts[p] for p in own)
            seconds = sum(costs) / len(costs) * records if costs else None
            found.append(
                TaskLag(
                    task=task,
                    workers=owners[topic],
                    records=records,
                    oldest_seconds=max((ages[p] for p in own if p in ages), default=None),
                    device_seconds=seconds if records else 0.0,
                    deleted=sum(first[p] - positions[p] for p in own),
                )
            )
        return found

    def _owners(self) -> Mapping[str, int]:
        """Return how many members have partitions of each topic."""
        described: Mapping[str, Any] = self._admin.describe_groups([self._group])[self._group]
        return {topic: sum(_has(member, topic) for member in described["members"]) for topic in self._topics}

    def _ages(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, float]:
        """Return how old, in seconds, the first record of each partition from its position on is."""
        self._client.assign(list(positions))
        for partition, offset in positions.items():
            self._client.seek(partition, offset)
        ages: dict[TopicPartition, float] = {}
        deadline = time.monotonic() + OLDEST_SECONDS
        waiting = set(positions)
        while waiting and time.monotonic() < deadline:
            for partition, (record, *_) in self._client.poll(timeout_ms=200).items():
                if partition in waiting and record.timestamp >= 0:
                    ages[partition] = max(time.time() - record.timestamp / 1000, 0.0)
                waiting.discard(partition)
                self._client.pause(partition)
        return ages

    def close(self) -> None:
        self._client.close(autocommit=False)
        self._admin.close()


def _has(member: Mapping[str, Any], topic: str) -> bool:
    assigned = (member.get("member_assignment") or {}).get("assigned_partitions") or []
    return any(part["topic"] == topic and part["partitions"] for part in assigned)
