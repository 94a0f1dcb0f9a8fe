"""Dead letters, as their operators read them: without a group, up to what is there now."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from kafka import TopicPartition
from kafka import errors as kafka_errors
from pydantic import ValidationError

from nlp_schemas import HEADER_PREFIX, DeadLetter, dead_letter_topic, requests_topic
from nlp_worker import connection
from nlp_worker.errors import BrokerError, SettingsError, TopicError
from nlp_worker.kafka_clients import open_consumer
from nlp_worker.topics import Kind, tasks_by_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kafka import KafkaAdminClient

    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

#: Milliseconds of one poll: what is asked for is there, so only a broker that is away lets it pass.
POLL_MS: Final = 200

#: Seconds without a record, a transaction's end or an answer, after which the broker counts as away: a leader's
#: failover takes 12.
ANSWER_SECONDS: Final = 30.0


class Topic(NamedTuple):
    """A topic of a task."""

    name: str
    task: str
    partitions: int
    limit: int
    """Its `max.message.bytes`."""


class Position(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str, topic: str | None = None) -> Self:
        """Read ``topic-partition-offset``, or ``partition:offset`` of the topic that is given.

        Raises:
            SettingsError: it is neither, or `topic` is not given.
        """
        if found := re.fullmatch(r"(.+)-(\d{1,9})-(\d{1,18})", text):
            return cls(found[1], int(found[2]), int(found[3]))
        if (found := re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)) is None:
            raise SettingsError(f"{text!r} is no position: it is TOPIC-PARTITION-OFFSET, or PARTITION:OFFSET")
        if topic is None:
            raise SettingsError(f"{text} is a position in one topic: say of which task with --task")
        return cls(topic, int(found[1]), int(found[2]))


class Range(NamedTuple):
    """Records of a partition, from `start` to before `end`; not every offset has one."""

    topic: Topic
    partition: int
    start: int
    end: int


class Letter(NamedTuple):
    """A record of a dead-letter topic."""

    task: str
    record: Record
    reason: DeadLetter | None
    """None where its headers are not those of a dead letter: anybody may write to the topic."""
    problem: str = ""
    """What is wrong with its headers."""

    @classmethod
    def of(cls, record: Record, task: str) -> Self:
        try:
            return cls(task, record, DeadLetter.from_headers([(name, value or b"") for name, value in record.headers]))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = str(problem["loc"][0]).replace("_", "-")
            return cls(task, record, None, f"{HEADER_PREFIX}{name}: {problem['msg']}")

    @property
    def position(self) -> Position:
        return Position(self.record.topic, self.record.partition, self.record.offset)

    @property
    def original(self) -> Position | None:
        """Where the request is, as long as its topic keeps it."""
        return None if self.reason is None else Position(self.reason.topic, self.reason.partition, self.reason.offset)


def find_topics(admin: KafkaAdminClient, prefix: str, task: str | None) -> list[Topic]:
    """Return the dead-letter topic of the task, or those of all tasks that have one.

    Raises:
        TopicError: there is none, or it may not be read.
    """
    if task is not None:
        return _describe(admin, {dead_letter_topic(task, prefix): task}, right="read")
    return _describe(admin, tasks_by_topic(admin, prefix, Kind.DEAD_LETTER), right="read")


def find_requests(admin: KafkaAdminClient, prefix: str, tasks: Iterable[str]) -> dict[str, Topic]:
    """Return the requests topics of the tasks.

    Raises:
        TopicError: one is missing, or may not be written to.
    """
    found = _describe(admin, {requests_topic(task, prefix): task for task in tasks}, right="write")
    return {topic.task: topic for topic in found}


def _describe(admin: KafkaAdminClient, names: Mapping[str, str], *, right: str) -> list[Topic]:
    connection.check_topics(admin, **{"read": [], "write": []} | {right: sorted(names)})
    limits = connection.max_message_bytes(admin, names)
    partitions = connection.count_partitions(admin, names)
    return [Topic(name, task, partitions[name], limits[name]) for name, task in names.items()]


class Reader:
    """Reads ranges of dead letters, one partition after the other; it is in no group and commits nothing.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        # What is asked for is there: a fetch that waited would hold up the next partition's.
        self._client = open_consumer(settings, group_id=None, fetch_max_wait_ms=0)

    def ranges(self, topics: Iterable[Topic], since: int | None = None, first: Position | None = None) -> list[Range]:
        """Return what is there now, in the order in which it is read.

        Args:
            topics: Whose dead letters.
            since: Milliseconds since 1970: of each partition, from its first record that is not older.
            first: Leave out what is before it in the order of reading.

        Raises:
            BrokerError: the broker stopped answering.
            SettingsError: `first` is in none of the topics.
        """
        wanted = {TopicPartition(topic.name, number): topic for topic in topics for number in range(topic.partitions)}
        if first is not None and first[:2] not in wanted:
            raise SettingsError(f"{first} is in no partition of the dead letters that are meant: see --task")
        timeout = {"timeout_ms": int(ANSWER_SECONDS * 1000)}
        try:
            ends = self._client.end_offsets(wanted, **timeout)
            starts = self._client.beginning_offsets(wanted, **timeout)
            if since is not None:
                found = self._client.offsets_for_times(dict.fromkeys(wanted, since), **timeout)
                starts = {key: ends[key] if at is None else at.offset for key, at in found.items()}
        except kafka_errors.KafkaTimeoutError as error:
            raise BrokerError(f"the broker stopped answering: {error}") from None
        if first is not None:
            starts = {key: max(start, first.offset if key == first[:2] else 0) for key, start in starts.items()}
        partitions = [key for key in sorted(wanted) if first is None or key >= first[:2]]
        return [Range(wanted[key], key.partition, starts[key], ends[key]) for key in partitions]

    def letters(self, ranges: Iterable[Range], since: int | None = None, until: int | None = None) -> Iterator[Letter]:
        """Read dead letters, those whose record's timestamp is in [since, until).

        Raises:
            BrokerError: the broker stopped answering.
            TopicError: a record cannot be read.
        """
        for each in ranges:
            for record in self._records(each):
                # Clocks differ: behind the first record of a time there may be older ones.
                if (since is None or record.timestamp >= since) and (until is None or record.timestamp < until):
                    yield Letter.of(record, each.topic.task)

    def _records(self, wanted: Range) -> Iterator[Record]:
        partition = TopicPartition(wanted.topic.name, wanted.partition)
        self._client.assign([partition])
        self._client.seek(partition, wanted.start)
        position, moved = wanted.start, time.monotonic()
        # The last offset may be a transaction's end, or compacted away: no record says that it is reached.
        while position < wanted.end:
            try:
                records = self._client.poll(timeout_ms=POLL_MS).get(partition, [])
            except kafka_errors.KafkaError as error:
                # Not polled again: after such an error kafka-python's poll never returns.
                where = Position(wanted.topic.name, wanted.partition, position)
                raise TopicError(f"{where} cannot be read: {type(error).__name__}: {error}") from None
            yield from (record for record in records if record.offset < wanted.end)
            reached = self._client.position(partition, timeout_ms=POLL_MS)
            if reached is not None and reached != position:
                position, moved = reached, time.monotonic()
            elif time.monotonic() - moved > ANSWER_SECONDS:
                where = Position(wanted.topic.name, wanted.partition, position)
                raise BrokerError(f"the broker did not send {where} for {ANSWER_SECONDS:.0f} s")

    def close(self) -> None:
        self._client.close(autocommit=False)
