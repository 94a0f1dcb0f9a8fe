"""The fault proxy does to a real broker's clients what its rules say."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kafka import errors as kafka_errors
from kafka.admin import KafkaAdminClient
from kafka.consumer import KafkaConsumer
from kafka.producer import KafkaProducer
from kafka.protocol.api_key import ApiKey
from kafka.structs import OffsetAndMetadata, TopicPartition

from clients import PATIENCE, unique
from faults.rules import CutAfter, CutBefore, Delay, Fail, Hold
from wire import Wire, batch, produce_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.proxied_kafka import ProxiedKafka

pytestmark = pytest.mark.kafka

#: The topic that Wire names.
TOPIC = "t"


@pytest.fixture
def proxied(kafka: ProxiedKafka) -> Iterator[Any]:
    """The node's address behind the proxy, and a new topic."""
    kafka.create_topic(TOPIC)
    yield kafka.proxied
    with closing(KafkaAdminClient(**kafka.client)) as admin:
        admin.delete_topics([TOPIC])


def written(kafka: Any) -> int:
    """Ask around the proxy how many records the topic has."""
    with Wire(kafka) as direct:
        return direct.end_offset()


def test_a_request_that_is_cut_off_never_arrives(kafka: ProxiedKafka, proxied: Any) -> None:
    """The connection ends, nothing is written, and the next request passes."""
    rule = kafka.proxy.add(CutBefore(ApiKey.Produce))
    with Wire(proxied) as wire, pytest.raises(ConnectionError):
        wire.produce(batch())
    assert (rule.fired, written(kafka)) == (1, 0)
    with Wire(proxied) as wire:
        assert wire.produce(batch()).error_code == 0
    assert (rule.fired, written(kafka)) == (1, 1)


def test_a_response_is_lost_and_the_request_applied(kafka: ProxiedKafka, proxied: Any) -> None:
    """The connection ends without an answer, and the record is there."""
    rule = kafka.proxy.add(CutAfter(ApiKey.Produce))
    with Wire(proxied) as wire, pytest.raises(ConnectionError):
        wire.produce(batch())
    assert (rule.fired, written(kafka)) == (1, 1)


@pytest.mark.parametrize("response", [False, True])
def test_it_comes_late(kafka: ProxiedKafka, proxied: Any, *, response: bool) -> None:
    """A delay is as long as it was asked for."""
    kafka.proxy.add(Delay(ApiKey.Produce, 0.5, response=response))
    with Wire(proxied) as wire:
        began = time.monotonic()
        assert wire.produce(batch()).error_code == 0
        assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("response", [False, True])
def test_what_is_held_comes_when_it_is_let_go(kafka: ProxiedKafka, proxied: Any, *, response: bool) -> None:
    """A held request is not applied, one whose response is held is; other connections are not held up."""
    rule = kafka.proxy.add(Hold(ApiKey.Produce, times=None, response=response))
    with Wire(proxied) as wire:
        request = produce_request(batch())
        wire.post(request, 9)
        rule.wait()
        assert written(proxied) == int(response)
        rule.release()
        assert wire.read(request, 9).responses[0].partition_responses[0].error_code == 0
        assert wire.produce(batch()).error_code == 0
    assert (rule.fired, written(kafka)) == (1, 2)


def test_a_held_request_comes_though_its_client_has_gone(kafka: ProxiedKafka, proxied: Any) -> None:
    """As from a slow network: what nobody waits for any more is applied all the same."""
    rule = kafka.proxy.add(Hold(ApiKey.Produce))
    with Wire(proxied) as wire:
        wire.post(produce_request(batch()), 9)
        rule.wait()
    assert written(kafka) == 0
    rule.release()
    deadline = time.monotonic() + 5
    while written(kafka) == 0:
        assert time.monotonic() < deadline


def test_connections_are_dropped_and_refused(kafka: ProxiedKafka, proxied: Any) -> None:
    """Dropped ones may come again at once, refused ones when they are accepted again."""
    with Wire(proxied) as wire:
        assert wire.produce(batch()).error_code == 0
        kafka.proxy.drop()
        with pytest.raises(ConnectionError):
            wire.produce(batch())
    assert written(proxied) == 1
    kafka.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        Wire(proxied)
    assert written(kafka) == 1
    kafka.proxy.accept()
    assert written(proxied) == 1


def test_a_removed_rule_lets_pass(kafka: ProxiedKafka, proxied: Any) -> None:
    """A rule for all requests counts until it is removed."""
    rule = kafka.proxy.add(Fail(ApiKey.Produce, kafka_errors.NotLeaderForPartitionError, times=None))
    with Wire(proxied) as wire:
        codes = [wire.produce(batch()).error_code for _ in range(2)]
        rule.remove()
        assert [*codes, wire.produce(batch()).error_code] == [6, 6, 0]


#: Each kind of request that a worker sends, with an error that its client must ask again after.
RETRIED = {
    ApiKey.Produce: kafka_errors.NotLeaderForPartitionError,
    ApiKey.Fetch: kafka_errors.NotLeaderForPartitionError,
    ApiKey.ListOffsets: kafka_errors.NotLeaderForPartitionError,
    ApiKey.Metadata: kafka_errors.LeaderNotAvailableError,
    ApiKey.OffsetFetch: kafka_errors.UnstableOffsetCommitError,
    ApiKey.FindCoordinator: kafka_errors.CoordinatorNotAvailableError,
    ApiKey.JoinGroup: kafka_errors.CoordinatorLoadInProgressError,
    ApiKey.SyncGroup: kafka_errors.RebalanceInProgressError,
    ApiKey.Heartbeat: kafka_errors.CoordinatorNotAvailableError,
    ApiKey.InitProducerId: kafka_errors.CoordinatorLoadInProgressError,
    ApiKey.AddPartitionsToTxn: kafka_errors.ConcurrentTransactionsError,
    ApiKey.AddOffsetsToTxn: kafka_errors.ConcurrentTransactionsError,
    ApiKey.TxnOffsetCommit: kafka_errors.CoordinatorLoadInProgressError,
    ApiKey.EndTxn: kafka_errors.ConcurrentTransactionsError,
    ApiKey.OffsetCommit: kafka_errors.CoordinatorLoadInProgressError,
}


@pytest.mark.parametrize("api", RETRIED, ids=lambda api: api.name)
def test_a_client_that_is_told_an_error_asks_again(kafka: ProxiedKafka, api: ApiKey) -> None:
    """The error is one that kafka-python can read: it comes back, and its transaction and its commit succeed."""
    topic = unique("topic")
    kafka.create_topic(topic)
    rule = kafka.proxy.add(Fail(api, RETRIED[api], times=2))
    servers = kafka.proxied.bootstrap_servers
    transactional: dict[str, Any] = {"transactional_id": unique("id"), "retry_backoff_ms": 10}
    # With read_committed `committed` waits for offsets of a transaction that is about to end.
    member: dict[str, Any] = {"group_id": unique("group"), "isolation_level": "read_committed"}
    own: dict[str, Any] = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "heartbeat_interval_ms": 100}
    with (
        closing(KafkaProducer(bootstrap_servers=servers, **transactional)) as producer,
        closing(KafkaConsumer(topic, bootstrap_servers=servers, **member, **own)) as consumer,
    ):
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"value")
        producer.commit_transaction()
        # One long poll: one that ends while its member joins may leave it out for ever.
        (records,) = consumer.poll(timeout_ms=PATIENCE * 1_000).values()
        assert [record.value for record in records] == [b"value"]
        producer.begin_transaction()
        read = TopicPartition(topic, 0)
        producer.send_offsets_to_transaction({read: OffsetAndMetadata(1)}, consumer.group_metadata())
        producer.commit_transaction()
        assert consumer.committed(read, timeout_ms=5_000) == 1
        consumer.commit({read: OffsetAndMetadata(2)}, timeout_ms=5_000)
        rule.wait(2)
        assert consumer.committed(read, timeout_ms=5_000) == 2
