"""Messages that are sent at once are what kafka-python's `send` would have made of them, on both brokers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaProducer
from kafka.errors import IllegalStateError, KafkaTimeoutError, MessageSizeTooLargeError
from kafka.producer.future import FutureProduceResult
from kafka.structs import TopicPartition

from clients import RECORDS, consumer, producer, received, unique
from nlp_worker.bulk import Acknowledgement, send_all
from nlp_worker.poll import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from apache_kafka import RunningKafka

#: Seconds in which a broker acknowledges, however busy the machine is.
PATIENCE = 60.0


def numbered(topic: str, count: int, size: int) -> list[Message]:
    return [Message(topic, None, b"%06d" % number + b"x" * size, []) for number in range(count)]


def values(broker: RunningKafka, topic: str, count: int) -> list[bytes]:
    with consumer(broker, topic) as reader:
        return [record.value for record in received(reader, count)]


@pytest.mark.parametrize("compression_type", [None, "lz4"])
def test_messages_are_what_send_makes_of_them(kafka_broker: RunningKafka, compression_type: str | None) -> None:
    """Keys of all lengths have the partitions that other clients give them, or that the message names."""
    contents: list[tuple[Any, ...]] = [record for record in RECORDS if record[0] is not None]
    contents += [(b"\xff" * (number % 40), b"%d" % number, []) for number in range(500)]
    contents += [(key, b"to %d" % number, [], number) for number in range(5) for key in (b"key", None)]

    def sent(send: Callable[[KafkaProducer, list[Message]], list[Any]]) -> list[tuple[Any, ...]]:
        topic = unique("bulk")
        kafka_broker.create_topic(topic, 5)
        with producer(kafka_broker, enable_idempotence=True, compression_type=compression_type) as client:
            for acknowledgement in send(client, [Message(topic, *content) for content in contents]):
                acknowledgement.get(timeout=PATIENCE)
        with consumer(kafka_broker, topic) as reader:
            found = received(reader, len(contents))
        ordered = sorted(found, key=lambda record: (record.partition, record.offset))
        return [(record.partition, record.key, record.value, record.headers) for record in ordered]

    one_by_one = sent(lambda client, messages: [client.send(**message._asdict()) for message in messages])
    assert sent(send_all) == one_by_one


def test_messages_without_a_key_keep_their_order(kafka_broker: RunningKafka) -> None:
    """They go to one partition; a value may be of any size up to what the topic accepts, and fills several batches."""
    topic = unique("bulk")
    kafka_broker.create_topic(topic, 3)
    messages = numbered(topic, 50, 900)
    with producer(kafka_broker, enable_idempotence=True, batch_size=4_000) as client:
        for acknowledgement in send_all(client, messages):
            acknowledgement.get(PATIENCE)
    assert values(kafka_broker, topic, 50) == [message.value for message in messages]


def test_a_batch_that_is_refused_as_too_large_is_split(kafka_broker: RunningKafka) -> None:
    """Each message is there once, in order; the one that is too large alone is the only one that is not."""
    topic = unique("bulk")
    kafka_broker.create_topic(topic, 1, max_message_bytes=2_000)
    messages = numbered(topic, 20, 500)
    messages[13] = Message(topic, None, b"x" * 5_000, [])
    with producer(kafka_broker, enable_idempotence=True, batch_size=2**20) as client:
        acknowledgements = send_all(client, messages)
        for acknowledgement in acknowledgements[:13]:
            acknowledgement.get(PATIENCE)
        with pytest.raises(MessageSizeTooLargeError):
            acknowledgements[13].get(PATIENCE)
    assert values(kafka_broker, topic, 13) == [message.value for message in messages[:13]]


def test_a_producer_that_is_closed_sends_nothing(kafka_broker: RunningKafka) -> None:
    """Otherwise what is waited for would never come."""
    topic = unique("bulk")
    kafka_broker.create_topic(topic, 1)
    with producer(kafka_broker) as client:
        pass
    with pytest.raises(IllegalStateError):
        send_all(client, numbered(topic, 1, 1))


def test_a_topic_that_is_unknown_sends_nothing(kafka_broker: RunningKafka) -> None:
    """Not even to the topic that is known: a poll is sent whole or not at all."""
    topic = unique("bulk")
    kafka_broker.create_topic(topic, 1)
    settings = {"max_block_ms": 1_000, "allow_auto_create_topics": False}
    with contextlib.closing(KafkaProducer(bootstrap_servers=kafka_broker.bootstrap_servers, **settings)) as client:
        with pytest.raises(KafkaTimeoutError):
            send_all(client, [*numbered(topic, 1, 1), *numbered(unique("missing"), 1, 1)])
        for acknowledgement in send_all(client, [Message(topic, None, b"after", [])]):
            acknowledgement.get(PATIENCE)
    assert values(kafka_broker, topic, 1) == [b"after"]


def test_an_acknowledgement_that_does_not_come_times_out() -> None:
    """Also where its batch was split meanwhile, so that the one it belonged to first will never have a result."""
    whole, half = (FutureProduceResult(TopicPartition("topic", 0)) for _ in range(2))
    acknowledgement = Acknowledgement(whole, 5)
    with pytest.raises(KafkaTimeoutError):
        acknowledgement.get(0)
    acknowledgement.rebind(half, 1)
    with pytest.raises(KafkaTimeoutError):
        acknowledgement.get(0)
    half.success((-1, -1, {1: MessageSizeTooLargeError()}.get))
    with pytest.raises(MessageSizeTooLargeError):
        acknowledgement.get(0)
