"""What stands in topics, read with librdkafka and read_committed: at the end, or while it is written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from clients import PATIENCE, rd_consumer
from faults.background import Background

if TYPE_CHECKING:
    from collections.abc import Collection

    from apache_kafka import RunningKafka

#: Records, and seconds, of one look: enough to keep up with a fast worker, short enough to end soon.
MOST: Final = 1_000
LOOK_SECONDS: Final = 0.1


class Seen(NamedTuple):
    """A record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, message: Any) -> Self:
        headers = tuple(message.headers() or ())
        return cls(message.topic(), message.partition(), message.offset(), message.key(), message.value(), headers)


class Reader(Background):
    """Reads topics on a thread of its own for as long as the block lasts.

    Args:
        broker: Where it reads.
        topics: Their names; their partitions are those of now.
    """

    def __init__(self, broker: RunningKafka, topics: Collection[str]) -> None:
        super().__init__()
        self._consumer = _assigned(broker, topics)
        self.seen: list[Seen] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            for message in self._consumer.consume(MOST, LOOK_SECONDS):
                # An error is no record, and librdkafka gets over it: a broker that is down comes back.
                if message.error() is None:
                    self.seen.append(Seen.of(message))

    def close(self) -> None:
        self._consumer.close()


def read_all(broker: RunningKafka, topics: Collection[str]) -> list[Seen]:
    """Return what stands in the topics now, each partition's in its order; what is in an open transaction does not."""
    consumer = _assigned(broker, topics)
    unread = {(part.topic, part.partition) for part in consumer.assignment()}
    seen: list[Seen] = []
    deadline = time.monotonic() + PATIENCE
    while unread:
        assert time.monotonic() < deadline, f"cannot read {unread} to the end"
        for message in consumer.consume(MOST, LOOK_SECONDS):
            if message.error() is None:
                seen.append(Seen.of(message))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                unread.discard((message.topic(), message.partition()))
    consumer.close()
    return seen


def partitions(consumer: Any, topics: Collection[str]) -> list[Any]:
    """Return each partition of the topics as librdkafka's TopicPartition; it asks with any client of librdkafka's."""
    known = consumer.list_topics(timeout=PATIENCE).topics
    return [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]


def _assigned(broker: RunningKafka, topics: Collection[str]) -> Consumer:
    settings = {"isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = rd_consumer(broker, **settings)
    assigned = partitions(consumer, topics)
    for part in assigned:
        part.offset = OFFSET_BEGINNING
    consumer.assign(assigned)
    return consumer
