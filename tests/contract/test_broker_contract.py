"""What clients may rely on, the same with the embedded broker as with Apache Kafka.

Two independent clients talk to it, kafka-python and librdkafka (confluent-kafka): the embedded broker uses
kafka-python's own wire classes, and an error in them would otherwise cancel out.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import pytest
from kafka.admin import ConfigResource, NewTopic, OffsetSpec
from kafka.codec import has_lz4, has_snappy, has_zstd
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata, TopicPartition

from clients import (
    HEARTBEAT_MS,
    PATIENCE,
    RECORDS,
    KafkaBroker,
    admin,
    consumer,
    partitions_of,
    producer,
    rd_consumer,
    rd_producer,
    rd_received,
    rd_send_all,
    received,
    send_all,
    unique,
    wait_for,
)
from nlp_worker.client_traps import finish_joining

#: kafka-python has gzip built in, the others where their libraries are installed; librdkafka has them all.
CODECS = [
    None,
    "gzip",
    *(
        pytest.param(name, marks=pytest.mark.skipif(not has(), reason=f"kafka-python lacks {name}"))
        for name, has in (("snappy", has_snappy), ("lz4", has_lz4), ("zstd", has_zstd))
    ),
]


@pytest.fixture
def topic(kafka_broker: KafkaBroker) -> str:
    name = unique("topic")
    kafka_broker.create_topic(name)
    return name


@pytest.mark.parametrize("compression", CODECS)
def test_kafka_python_writes_and_librdkafka_reads(
    kafka_broker: KafkaBroker, topic: str, compression: str | None
) -> None:
    """Keys, values, nulls and headers arrive as they were sent, in their order."""
    send_all(kafka_broker, topic, compression_type=compression)
    with closing(rd_consumer(kafka_broker)) as reader:
        reader.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        messages = rd_received(reader, len(RECORDS))
    assert [(m.key(), m.value(), m.headers() or []) for m in messages] == RECORDS


@pytest.mark.parametrize("compression", CODECS)
def test_librdkafka_writes_and_kafka_python_reads(
    kafka_broker: KafkaBroker, topic: str, compression: str | None
) -> None:
    """The same, the other way round."""
    rd_send_all(kafka_broker, topic, **{"compression.type": compression or "none"})
    with consumer(kafka_broker, topic) as reader:
        records = received(reader, len(RECORDS))
    assert [(r.key, r.value, r.headers) for r in records] == RECORDS


@pytest.mark.parametrize("compression", ["snappy", "lz4", "zstd"])
def test_every_codec_passes_through(kafka_broker: KafkaBroker, topic: str, compression: str) -> None:
    """The broker needs no codec to pass records on."""
    rd_send_all(kafka_broker, topic, **{"compression.type": compression})
    with closing(rd_consumer(kafka_broker)) as reader:
        reader.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        assert [m.value() for m in rd_received(reader, len(RECORDS))] == [value for _, value, _ in RECORDS]


def test_idempotent_producers_keep_order_and_number(kafka_broker: KafkaBroker, topic: str) -> None:
    """Many small batches of two idempotent producers arrive once each, every producer's in its order."""
    expected = [str(number).encode() for number in range(500)]
    other = rd_producer(kafka_broker, **{"enable.idempotence": True, "batch.num.messages": 10})
    with producer(kafka_broker, enable_idempotence=True, batch_size=100) as one:
        for value in expected:
            one.send(topic, key=b"one", value=value)
            other.produce(topic, key=b"other", value=value)
    assert other.flush(PATIENCE) == 0
    with consumer(kafka_broker, topic) as reader:
        records = received(reader, 2 * len(expected))
    for key in (b"one", b"other"):
        assert [record.value for record in records if record.key == key] == expected


def test_two_cooperative_members_share_and_inherit(kafka_broker: KafkaBroker) -> None:
    """Four partitions are split in two and two; who stays has all of them when the other one leaves."""
    topic, group = unique("topic"), unique("group")
    kafka_broker.create_topic(topic, partitions=4)
    settings = {
        "group_id": group,
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "heartbeat_interval_ms": HEARTBEAT_MS,
    }
    with consumer(kafka_broker, topic, **settings) as first:
        wait_for(lambda: polled(first) == [4])
        with consumer(kafka_broker, topic, **settings) as second:
            wait_for(lambda: polled(first, second) == [2, 2])
            assert not first.assignment() & second.assignment()
        wait_for(lambda: polled(first) == [4])


def polled(*members: Any) -> list[int]:
    """Poll; return how many partitions each has then."""
    for member in members:
        finish_joining(member)
        member.poll(timeout_ms=200)
    return partitions_of(members)


def test_two_cooperative_members_of_librdkafka_share_and_inherit(kafka_broker: KafkaBroker) -> None:
    """The same with librdkafka, whose group requests are of other versions."""
    topic = unique("topic")
    kafka_broker.create_topic(topic, partitions=4)
    settings = {
        "group.id": unique("group"),
        "partition.assignment.strategy": "cooperative-sticky",
        "heartbeat.interval.ms": HEARTBEAT_MS,
    }
    with closing(rd_consumer(kafka_broker, **settings)) as first:
        first.subscribe([topic])
        wait_for(lambda: first.poll(0.1) or partitions_of([first]) == [4])
        with closing(rd_consumer(kafka_broker, **settings)) as second:
            members = [first, second]
            second.subscribe([topic])
            wait_for(lambda: [m.poll(0.1) for m in members] and partitions_of(members) == [2, 2])
        wait_for(lambda: first.poll(0.1) or partitions_of([first]) == [4])


def test_committed_offsets_outlive_their_consumer(kafka_broker: KafkaBroker, topic: str) -> None:
    """The next member of the group goes on where the last one committed, whichever client it is."""
    send_all(kafka_broker, topic)
    group, partition = unique("group"), TopicPartition(topic, 0)
    with consumer(kafka_broker, topic, group_id=group) as first:
        received(first, len(RECORDS))
        first.commit({partition: OffsetAndMetadata(2, "note", -1)})
    with consumer(kafka_broker, topic, group_id=group) as second:
        assert received(second, len(RECORDS) - 2)[0].offset == 2
    with closing(rd_consumer(kafka_broker, **{"group.id": group})) as third:
        third.subscribe([topic])
        assert rd_received(third, 1)[0].offset() == 2


def test_too_large_a_record_is_refused(kafka_broker: KafkaBroker) -> None:
    """max.message.bytes counts per topic, for both clients; smaller records are taken as before."""
    topic = unique("topic")
    kafka_broker.create_topic(topic, 1, **{"max.message.bytes": "2000"})
    with producer(kafka_broker) as sender, pytest.raises(MessageSizeTooLargeError):
        sender.send(topic, b"x" * 5_000).get(timeout=PATIENCE)
    errors: list[Any] = []
    other = rd_producer(kafka_broker)
    other.produce(topic, b"x" * 5_000, on_delivery=lambda error, _: errors.append(error))
    other.flush(PATIENCE)
    assert [error.code() for error in errors] == [confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE]
    with producer(kafka_broker) as sender:
        assert sender.send(topic, b"x" * 1_000).get(timeout=PATIENCE).offset == 0


def test_a_missing_topic_stays_missing(kafka_broker: KafkaBroker) -> None:
    """Sending to it fails, look-ups say so, and nothing is created by asking."""
    topic = unique("missing")
    with producer(kafka_broker, max_block_ms=500) as sender, pytest.raises(KafkaTimeoutError):
        sender.send(topic, b"x")
    unknown = confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
    other = confluent_kafka.admin.AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers, "log_level": 2})
    assert other.list_topics(topic, PATIENCE).topics[topic].error.code() == unknown
    with admin(kafka_broker) as administrator:
        assert administrator.describe_topics([topic])[0]["error_code"] == unknown
        assert topic not in administrator.list_topics()


def test_a_record_beyond_the_fetch_limit_gets_through(kafka_broker: KafkaBroker, topic: str) -> None:
    """A consumer whose max.partition.fetch.bytes is below a record's size still gets it, and the next one."""
    with producer(kafka_broker) as sender:
        for value in (b"small", b"x" * 50_000, b"last"):
            sender.send(topic, value).get(timeout=PATIENCE)
    with consumer(kafka_broker, topic, max_partition_fetch_bytes=1_000) as reader:
        assert [len(record.value) for record in received(reader, 3)] == [5, 50_000, 4]
    with closing(rd_consumer(kafka_broker, **{"max.partition.fetch.bytes": 1_000})) as other:
        other.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        assert [len(message.value()) for message in rd_received(other, 3)] == [5, 50_000, 4]


def test_topics_are_created_described_and_deleted(kafka_broker: KafkaBroker) -> None:
    """What was asked for at creation is what look-ups tell; partitions can be added, the topic deleted."""
    topic = unique("topic")
    kafka_broker.create_topic(topic, partitions=2, **{"max.message.bytes": "2000", "retention.ms": "60000"})
    with admin(kafka_broker) as administrator:
        assert topic in administrator.list_topics()
        assert len(administrator.describe_topics([topic])[0]["partitions"]) == 2
        configs = administrator.describe_configs([ConfigResource("topic", topic)])["topic"][topic]
        assert {configs[name]["value"] for name in ("max.message.bytes", "retention.ms")} == {"2000", "60000"}
        administrator.create_partitions({topic: 3})
        wait_for(lambda: len(administrator.describe_topics([topic])[0]["partitions"]) == 3)
        administrator.delete_topics([topic])
        wait_for(lambda: topic not in administrator.list_topics())


def test_a_topic_that_is_there_is_not_made_whatever_is_asked_for(kafka_broker: KafkaBroker, topic: str) -> None:
    """`topics create` leaves it as it is: that it exists is told before more replicas than there are brokers."""
    with admin(kafka_broker) as administrator, pytest.raises(TopicAlreadyExistsError):
        administrator.create_topics([NewTopic(topic, 1, 99)])


def test_the_default_size_limit_is_told(kafka_broker: KafkaBroker, topic: str) -> None:
    """max.message.bytes is reported where nobody has set it: the worker reads it."""
    with admin(kafka_broker) as administrator:
        resource = ConfigResource("topic", topic, ["max.message.bytes"])
        configs = administrator.describe_configs([resource], config_filter="all")["topic"][topic]
    assert configs["max.message.bytes"]["value"] == "1048588"


def test_groups_and_offsets_are_looked_up(kafka_broker: KafkaBroker, topic: str) -> None:
    """States, committed offsets and ends of partitions, of a group that is there and then is not."""
    send_all(kafka_broker, topic)
    group, partition = unique("group"), TopicPartition(topic, 0)
    with admin(kafka_broker) as administrator:
        with consumer(kafka_broker, topic, group_id=group) as member:
            received(member, len(RECORDS))
            member.commit({partition: OffsetAndMetadata(3, "", -1)})
            described = administrator.describe_groups([group])[group]
            assert (described["group_state"], len(described["members"])) == ("Stable", 1)
        wait_for(lambda: administrator.describe_groups([group])[group]["group_state"] == "Empty")
        assert group in {listed["group_id"] for listed in administrator.list_groups()}
        assert administrator.list_group_offsets({group: None})[group][partition].offset == 3
        assert administrator.list_group_offsets({group: [partition]})[group][partition].offset == 3
        for spec, offset in ((OffsetSpec.EARLIEST, 0), (OffsetSpec.LATEST, len(RECORDS))):
            assert administrator.list_partition_offsets({partition: spec})[partition].offset == offset
        administrator.delete_groups([group])
        wait_for(lambda: group not in {listed["group_id"] for listed in administrator.list_groups()})
