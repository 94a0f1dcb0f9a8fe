"""Dead letters, as their operators read them: without a group, up to what is there now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

from kafka import TopicPartition
from pydantic import ValidationError

from nlp_schemas import HEADER_PREFIX, DeadLetter, dead_letter_topic, requests_topic
from nlp_worker import connection
from nlp_worker.errors import SettingsError
from nlp_worker.record_ranges import Position, RangeReader
from nlp_worker.topics import Kind, tasks_by_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kafka import KafkaAdminClient

    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings


class Topic(NamedTuple):
    """A topic of a task."""

    name: str
    task: str
    partitions: int
    limit: int
    """Its `max.message.bytes`."""


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
        self._reader = RangeReader(settings)

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
        starts, ends = self._reader.offsets(wanted, since)
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
            partition = TopicPartition(each.topic.name, each.partition)
            for record in self._reader.records(partition, each.start, each.end):
                # Clocks differ: behind the first record of a time there may be older ones.
                if (since is None or record.timestamp >= since) and (until is None or record.timestamp < until):
                    yield Letter.of(record, each.topic.task)

    def close(self) -> None:
        self._reader.close()
