"""kafka-python and librdkafka (confluent-kafka), as the tests of brokers use them: helpers with deadlines."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import confluent_kafka
import confluent_kafka.admin
from kafka.admin import KafkaAdminClient
from kafka.consumer import KafkaConsumer
from kafka.producer import KafkaProducer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class KafkaBroker(Protocol):
    """The fixture: either broker."""

    bootstrap_servers: str

    def create_topic(self, name: str, partitions: int = 1, **configs: str) -> object: ...


#: Seconds. Rebalances of a real broker take some.
PATIENCE = 60.0

#: Seconds between two looks: a look costs what is looked at.
LOOK_SECONDS = 0.02

#: Members hear of a rebalance with a heartbeat: the default 3 s would be most of a test's time.
HEARTBEAT_MS = 200

#: All that a record can be.
RECORDS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
    (b"key", b"value", [("h", b"1"), ("h", b"2"), ("empty", b"")]),
    (None, "Grüße".encode(), []),
    (b"deleted", None, []),
    (b"", b"", []),
    (b"big", b"x" * 100_000, []),
]


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(LOOK_SECONDS)


def producer(broker: KafkaBroker, **settings: Any) -> Any:
    """Return kafka-python's producer; `closing` it waits for what was sent."""
    return closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **settings))


def consumer(broker: KafkaBroker, *topics: str, **settings: Any) -> Any:
    defaults = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    return closing(KafkaConsumer(*topics, bootstrap_servers=broker.bootstrap_servers, **(defaults | settings)))


def admin(broker: KafkaBroker) -> Any:
    return closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers))


def rd_producer(broker: KafkaBroker, **settings: Any) -> Any:
    return confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 2, **settings})


def rd_consumer(broker: KafkaBroker, **settings: Any) -> Any:
    """Return librdkafka's consumer."""
    defaults = {"group.id": unique("group"), "auto.offset.reset": "earliest", "enable.auto.commit": False}
    return confluent_kafka.Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "log_level": 2, **defaults, **settings}
    )


def filled_topic(broker: KafkaBroker, records: int) -> str:
    """Return a topic of two partitions, each with so many records."""
    name = unique("topic")
    broker.create_topic(name, 2)
    with producer(broker) as sender:
        for partition in range(2):
            for _ in range(records):
                sender.send(name, b"value", partition=partition)
    return name


def received(consumer: Any, count: int) -> list[Any]:
    """Poll until kafka-python's consumer has given `count` records: for long, as one that ends in a join may end it."""
    records: list[Any] = []

    def poll() -> bool:
        for part in consumer.poll(timeout_ms=2_000).values():
            records.extend(part)
        return len(records) >= count

    wait_for(poll)
    return records


def rd_received(consumer: Any, count: int) -> list[Any]:
    messages: list[Any] = []

    def poll() -> bool:
        messages.extend(consumer.consume(count - len(messages), 0.2))
        return len(messages) >= count

    wait_for(poll)
    assert [message.error() for message in messages] == [None] * count
    return messages


def send_all(broker: KafkaBroker, topic: str, **settings: Any) -> None:
    with producer(broker, **settings) as sender:
        futures = [sender.send(topic, key=key, value=value, headers=headers) for key, value, headers in RECORDS]
        assert [future.get(timeout=PATIENCE).offset for future in futures] == list(range(len(RECORDS)))


def rd_send_all(broker: KafkaBroker, topic: str, **settings: Any) -> None:
    sender = rd_producer(broker, **settings)
    offsets: list[int] = []
    for key, value, headers in RECORDS:
        sender.produce(
            topic, key=key, value=value, headers=headers, on_delivery=lambda _, m: offsets.append(m.offset())
        )
    assert sender.flush(PATIENCE) == 0
    assert offsets == list(range(len(RECORDS)))


def partitions_of(members: Sequence[Any]) -> list[int]:
    return sorted(len(member.assignment()) for member in members)
