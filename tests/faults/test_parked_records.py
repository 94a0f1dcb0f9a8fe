"""B15: what kafka-python sets aside of a paused partition, and gives out only by chance when that is resumed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from kafka import TopicPartition

from clients import consumer, filled_topic, unique, wait_for
from nlp_worker.consumer import Consumer
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from apache_kafka import RunningKafka
    from faults.proxied_kafka import ProxiedKafka
    from nlp_worker.poll import Record

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

#: Records of each of two partitions, and of the first poll: it leaves some of a partition in the client.
RECORDS = 10
FIRST = 4


@pytest.fixture
def topic(kafka: ProxiedKafka) -> str:
    return filled_topic(kafka, RECORDS)


def test_b15_a_partition_that_was_paused_beside_another_is_not_read_any_further(
    kafka: RunningKafka, topic: str
) -> None:
    """Silent loss of progress. Defence: before each poll consumer.py lets the client free what it holds on to."""
    with consumer(kafka) as client:
        partitions = [TopicPartition(topic, number) for number in range(2)]
        client.assign(partitions)
        (paused,) = client.poll(timeout_ms=5_000, max_records=FIRST)
        client.pause(paused)
        found = [0]

        def read_other() -> bool:
            found[0] += sum(map(len, client.poll(timeout_ms=200).values()))
            return found[0] == RECORDS

        wait_for(read_other)
        client.resume(paused)
        assert client.poll(timeout_ms=3_000) == {}
        assert client.position(paused) == FIRST


def test_a_partition_that_was_paused_beside_another_is_read_to_its_end(kafka: RunningKafka, topic: str) -> None:
    """As where a rebalance gives the worker, whose polls in flight are full, a partition more."""
    settings = load_settings({"bootstrap_servers": kafka.bootstrap_servers, "group": unique("group")})
    with contextlib.closing(Consumer(settings, [topic])) as worker:
        records: list[Record] = []

        def read(count: int, most: int = RECORDS) -> bool:
            records.extend(worker.poll(200, most))
            return len(records) == count

        wait_for(lambda: read(FIRST, most=FIRST))
        worker._client.pause(TopicPartition(topic, records[0].partition))
        wait_for(lambda: read(FIRST + RECORDS))
        worker.resume()
        wait_for(lambda: read(2 * RECORDS))
