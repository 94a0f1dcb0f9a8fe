"""The publisher on both brokers: what it does when the broker refuses."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from clients import consumer, received, unique
from nlp_worker import connection
from nlp_worker.poll import LimitChanged, Message
from nlp_worker.publisher import Publisher
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from apache_kafka import RunningKafka

DEFAULT = connection.DEFAULT_MAX_MESSAGE_BYTES


def message(topic: str, number: int, size: int = 10) -> Message:
    return Message(topic, b"k", str(number).encode() + b"x" * size, [("h", b"v")])


def test_a_producer_that_was_refused_a_message_is_replaced_and_the_limit_learned(kafka_broker: RunningKafka) -> None:
    """The topic's limit is below what was read at start: after the refusal `fits` knows, and sending goes on.

    Without a new producer every later send of kafka-python's idempotent one fails with the first one's error.
    """
    topic = unique("limit")
    kafka_broker.create_topic(topic, 1, max_message_bytes=2000)
    limits = iter([{topic: DEFAULT}, {topic: 2000}])
    settings = load_settings({"bootstrap_servers": kafka_broker.bootstrap_servers})
    with contextlib.closing(Publisher(settings, lambda: next(limits))) as publisher:
        publisher.publish([message(topic, 0)], 30)
        large = message(topic, 1, 5000)
        assert publisher.fits(large)
        with pytest.raises(LimitChanged):
            publisher.publish([message(topic, 2), large, message(topic, 3)], 30)
        assert not publisher.fits(large)
        publisher.publish([message(topic, 4)], 30)
    with consumer(kafka_broker, topic) as reader:
        # What went with the large one may be there or not: it was not acknowledged, and is published again.
        values = [record.value[:1] for record in received(reader, 2)]
    assert b"1" not in values
    assert values[0] == b"0"


def test_a_limit_that_may_not_be_read_is_lowered_until_the_broker_accepts(kafka_broker: RunningKafka) -> None:
    """Without DESCRIBE_CONFIGS the limit that is read never changes."""
    topic = unique("limit")
    kafka_broker.create_topic(topic, 1, max_message_bytes=2000)
    settings = load_settings({"bootstrap_servers": kafka_broker.bootstrap_servers})
    with contextlib.closing(Publisher(settings, lambda: {topic: DEFAULT})) as publisher:
        large = message(topic, 1, 5000)
        with pytest.raises(LimitChanged):
            publisher.publish([large], 30)
        assert not publisher.fits(large)
        publisher.publish([message(topic, 2)], 30)


def test_what_fits_is_what_the_broker_accepts(kafka_broker: RunningKafka) -> None:
    """The largest message that fits is accepted, and no more than a hundred bytes are given away."""
    topic = unique("limit")
    kafka_broker.create_topic(topic, 1, max_message_bytes=3000)
    settings = load_settings({"bootstrap_servers": kafka_broker.bootstrap_servers})
    with contextlib.closing(Publisher(settings, lambda: {topic: 3000})) as publisher:
        largest = next(size for size in range(3000, 0, -1) if publisher.fits(message(topic, 1, size)))
        assert largest > 2900
        publisher.publish([message(topic, 1, largest)], 30)
