"""Topics: their partitions and their configuration."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final

from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.log import PartitionLog

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What Apache Kafka takes for a name: it becomes a folder's.
LEGAL_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")

#: Apache Kafka's defaults. Only max.message.bytes has an effect here; the others are told to whoever asks.
DEFAULT_CONFIGS: Final = {
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "max.message.bytes": "1048588",
    "message.timestamp.type": "CreateTime",
    "min.insync.replicas": "1",
    "retention.bytes": "-1",
    "retention.ms": "604800000",
    "segment.bytes": "1073741824",
}


class Topic:
    """A named set of partitions."""

    def __init__(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        self.name = name
        self.topic_id = uuid.uuid4()
        self.partitions = [PartitionLog() for _ in range(partitions)]
        self.configs = dict(configs)
        self.max_message_bytes = int(self.config("max.message.bytes"))

    def config(self, name: str) -> str:
        return self.configs.get(name, DEFAULT_CONFIGS[name])

    def check_growth(self, count: int) -> None:
        if count <= len(self.partitions):
            raise RefusedError(ErrorCode.INVALID_PARTITIONS, f"the topic has {len(self.partitions)} already")

    def grow(self, count: int) -> None:
        self.partitions += [PartitionLog() for _ in range(count - len(self.partitions))]


class Topics:
    """All topics of the broker."""

    def __init__(self, auto_create_partitions: int | None) -> None:
        self._topics: dict[str, Topic] = {}
        self._auto_create_partitions = auto_create_partitions

    def __iter__(self) -> Iterator[Topic]:
        return iter(self._topics.values())

    def get(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            raise RefusedError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return topic

    def by_id(self, topic_id: uuid.UUID) -> Topic:
        for topic in self._topics.values():
            if topic.topic_id == topic_id:
                return topic
        raise RefusedError(ErrorCode.UNKNOWN_TOPIC_ID)

    def get_or_create(self, name: str) -> Topic:
        """Return the topic, which asking for it creates where the broker was told so."""
        check_name(name)
        if name not in self._topics and self._auto_create_partitions is not None:
            return self.create(name, self._auto_create_partitions, {})
        return self.get(name)

    def partition(self, name: str, index: int) -> PartitionLog:
        partitions = self.get(name).partitions
        if not 0 <= index < len(partitions):
            raise RefusedError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        return partitions[index]

    def check_new(self, name: str, partitions: int, configs: Mapping[str, str]) -> None:
        check_name(name)
        if name in self._topics:
            raise RefusedError(ErrorCode.TOPIC_ALREADY_EXISTS, f"topic {name!r} already exists")
        if partitions < 1:
            raise RefusedError(ErrorCode.INVALID_PARTITIONS, "a topic has at least one partition")
        limit = configs.get("max.message.bytes", "0")
        if not limit.isdecimal():
            raise RefusedError(ErrorCode.INVALID_CONFIG, f"max.message.bytes is a number of bytes, not {limit!r}")

    def create(self, name: str, partitions: int, configs: Mapping[str, str]) -> Topic:
        self.check_new(name, partitions, configs)
        topic = self._topics[name] = Topic(name, partitions, configs)
        return topic

    def delete(self, name: str) -> None:
        for partition in self.get(name).partitions:
            partition.wake()
        del self._topics[name]


def check_name(name: str) -> None:
    if name in {".", ".."} or not LEGAL_NAME.fullmatch(name):
        raise RefusedError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"{name!r} is no legal topic name")
