"""What kafka-python does on a real broker that no user would expect, and which module of the worker defends against it.

Each of these tests is a canary: it fails when the client no longer does it, and then its defence may go. The numbers
are those of the reference that the modules' comments go back to.
"""

from __future__ import annotations

import contextlib
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import pytest
from kafka import errors as kafka_errors
from kafka.admin import KafkaAdminClient
from kafka.consumer import KafkaConsumer
from kafka.producer import KafkaProducer
from kafka.protocol.api_key import ApiKey
from kafka.serializer.wrapper import DeserializeWrapper
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from apache_kafka import ApacheKafka
from clients import HEARTBEAT_MS, PATIENCE, producer, unique, wait_for
from faults.rules import Delay, Fail, Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apache_kafka import RunningKafka
    from faults.proxied_kafka import ProxiedKafka

pytestmark = pytest.mark.kafka

#: Seconds after which a call hangs: some times what the client's own time-outs, below, allow it.
HANG_SECONDS: Final = 5.0

#: Milliseconds. The client's own 30 and 120 seconds would be the tests' time.
SHORT: Final = {
    "request_timeout_ms": 1_000,
    "delivery_timeout_ms": 2_000,
    "max_block_ms": 3_000,
    "retry_backoff_ms": 20,
}

#: What a call that did not return is said to have done.
HANGS: Final = "hangs"


def outcome(call: Callable[[], object]) -> object:
    """Return what the call returned or raised, or HANGS."""
    result: list[object] = []

    def run() -> None:
        try:
            result.append(call())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    return result[0] if result else HANGS


@contextlib.contextmanager
def doomed(broker: RunningKafka, **settings: Any) -> Iterator[Any]:
    """Give a producer that can be beyond closing at the end."""
    client = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **SHORT, **settings)
    try:
        yield client
    finally:
        client._sender.force_close()
        with contextlib.suppress(kafka_errors.KafkaError):
            client.close(timeout=0)
        # Its connections are closed at the end of its thread.
        client._sender.join(PATIENCE)


@contextlib.contextmanager
def transaction(broker: RunningKafka) -> Iterator[Any]:
    """Give a transactional producer, with a transaction begun."""
    with doomed(broker, transactional_id=unique("id")) as client:
        client.init_transactions()
        client.begin_transaction()
        yield client


@pytest.fixture
def topic(kafka: ProxiedKafka) -> str:
    name = unique("topic")
    kafka.create_topic(name, 2)
    return name


def committed(kafka: RunningKafka, group: str, topic: str, partition: int = 0) -> int | None:
    """Ask around the proxy, and wait for what an open transaction holds back."""
    settings = {"group_id": group, "isolation_level": "read_committed", "enable_auto_commit": False}
    with closing(KafkaConsumer(**kafka.client, **settings)) as consumer:
        offset: int | None = consumer.committed(TopicPartition(topic, partition), timeout_ms=10_000)
        return offset


def test_b1_offsets_of_an_aborted_transaction_are_committed_by_the_next(kafka: ProxiedKafka, topic: str) -> None:
    """An exactly-once violation. Defence: transactions.py never uses a producer again whose transaction failed."""
    group = unique("group")
    with transaction(kafka.proxied) as client:
        zombie = ConsumerGroupMetadata(group, 7, "a member that the group does not have", None)
        with pytest.raises(kafka_errors.CommitFailedError):
            client.send_offsets_to_transaction({TopicPartition(topic, 0): OffsetAndMetadata(5)}, zombie)
        client.abort_transaction()
        assert committed(kafka, group, topic) is None
        client.begin_transaction()
        nobody = ConsumerGroupMetadata(group, -1, "", None)
        client.send_offsets_to_transaction({TopicPartition(topic, 1): OffsetAndMetadata(3)}, nobody)
        client.commit_transaction()
    assert committed(kafka, group, topic, 1) == 3
    assert committed(kafka, group, topic, 0) == 5


@pytest.mark.slow
def test_b2_a_commit_whose_connection_is_lost_never_returns(kafka: ProxiedKafka, topic: str) -> None:
    """It could be asked again at once. Defence: transactions.py waits with a deadline of its own."""
    with transaction(kafka.proxied) as client:
        client.send(topic, b"value").get(timeout=PATIENCE)
        kafka.proxy.refuse()
        threading.Timer(1.0, kafka.proxy.accept).start()
        assert outcome(client.commit_transaction) == HANGS


@pytest.mark.slow
def test_b3_a_commit_that_timed_out_may_have_been_made(kafka: ProxiedKafka, topic: str) -> None:
    """The producer can neither commit nor abort any more. Defence: delivery.py reads the group's offsets."""
    group = unique("group")
    with transaction(kafka.proxied) as client:
        nobody = ConsumerGroupMetadata(group, -1, "", None)
        client.send_offsets_to_transaction({TopicPartition(topic, 0): OffsetAndMetadata(5)}, nobody)
        kafka.proxy.add(Delay(ApiKey.EndTxn, 3.0, response=True))
        outcomes = [
            outcome(call) for call in (client.commit_transaction, client.commit_transaction, client.abort_transaction)
        ]
        assert all(isinstance(each, kafka_errors.KafkaError) for each in outcomes), outcomes
    assert committed(kafka, group, topic) == 5


def test_b4_a_refused_record_poisons_an_idempotent_producer(kafka: ProxiedKafka, topic: str) -> None:
    """Every later send fails for what was wrong with that one. Defence: publisher.py replaces the producer."""
    small = unique("small")
    kafka.create_topic(small, max_message_bytes=2_000)
    with doomed(kafka.proxied, enable_idempotence=True) as client:
        client.send(topic, b"value").get(timeout=PATIENCE)
        for value in (b"x" * 5_000, b"value", b"value"):
            with pytest.raises(kafka_errors.MessageSizeTooLargeError):
                client.send(small, value).get(timeout=PATIENCE)
        with pytest.raises(kafka_errors.MessageSizeTooLargeError):
            client.send(topic, b"value").get(timeout=PATIENCE)


@pytest.mark.slow
def test_b5_a_poll_whose_deserializer_raised_is_followed_by_one_that_never_returns(
    kafka: ProxiedKafka, topic: str
) -> None:
    """One bad record stops its consumer for good. Defence: consumer.py has none, intake.py decodes what it is given."""
    with producer(kafka) as sender:
        sender.send(topic, b"no number", partition=0)
    client = KafkaConsumer(**kafka.client, value_deserializer=DeserializeWrapper(int), auto_offset_reset="earliest")
    client.assign([TopicPartition(topic, 0)])
    assert isinstance(outcome(lambda: client.poll(timeout_ms=2_000)), ValueError)
    assert outcome(lambda: client.poll(timeout_ms=500)) == HANGS


@pytest.mark.slow
def test_b7_a_producer_does_not_close_without_its_broker(kafka: ProxiedKafka, topic: str) -> None:
    """It raises, and its thread runs on. Defence: publisher.py ends the sender itself."""
    with doomed(kafka.proxied) as client:
        client.send(topic, b"value").get(timeout=PATIENCE)
        kafka.proxy.refuse()
        client.send(topic, b"value")
        for _ in range(2):
            with pytest.raises(kafka_errors.KafkaTimeoutError):
                client.close(timeout=0.5)
        assert client._sender.is_alive()
        client._sender.force_close()
        wait_for(lambda: not client._sender.is_alive())


@pytest.mark.slow
def test_b8_a_displaced_static_member_is_told_only_when_it_commits(kafka: ProxiedKafka, topic: str) -> None:
    """Polling returns, and nothing is raised. Defence: consumer.py ends the worker when a commit tells it."""
    kafka_settings: dict[str, Any] = {
        "group_id": unique("group"),
        "group_instance_id": "one",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "heartbeat_interval_ms": HEARTBEAT_MS,
        "bootstrap_servers": kafka.proxied.bootstrap_servers,
    }
    with producer(kafka) as client:
        client.send(topic, b"value").get(timeout=PATIENCE)
    # One long poll each, until the record is there: one that ends while its member joins may leave it out for ever.
    with closing(KafkaConsumer(topic, **kafka_settings)) as old:
        assert old.poll(timeout_ms=PATIENCE * 1_000)
        with closing(KafkaConsumer(topic, **kafka_settings)) as new:
            assert new.poll(timeout_ms=PATIENCE * 1_000)
            # Some heartbeats: it has been told.
            deadline = time.monotonic() + 10 * HEARTBEAT_MS / 1_000
            while time.monotonic() < deadline:
                old.poll(timeout_ms=200)
            with pytest.raises(kafka_errors.FencedInstanceIdError):
                old.commit({TopicPartition(topic, 0): OffsetAndMetadata(0)}, timeout_ms=5_000)


@pytest.mark.slow
def test_b9_asking_what_is_committed_hangs_while_no_broker_answers(kafka: ProxiedKafka, topic: str) -> None:
    """It does with no regard to the request's time-out. Defence: consumer.py passes a time-out everywhere."""
    part = TopicPartition(topic, 0)
    servers = kafka.proxied.bootstrap_servers
    with closing(
        KafkaConsumer(bootstrap_servers=servers, group_id=unique("group"), request_timeout_ms=1_000)
    ) as client:
        asked = kafka.proxy.add(Hold(ApiKey.FindCoordinator, times=None))
        with pytest.raises(kafka_errors.KafkaTimeoutError):
            client.committed(part, timeout_ms=500)
        assert asked.fired
        assert outcome(lambda: client.committed(part)) == HANGS


def test_b10_a_transaction_out_of_sequence_can_be_neither_committed_nor_aborted(
    kafka: ProxiedKafka, topic: str
) -> None:
    """Defence: transactions.py replaces the producer, which makes the broker abort what is open."""
    with transaction(kafka.proxied) as client:
        kafka.proxy.add(Fail(ApiKey.Produce, kafka_errors.OutOfOrderSequenceNumberError))
        with pytest.raises(kafka_errors.OutOfOrderSequenceNumberError):
            client.send(topic, b"value").get(timeout=PATIENCE)
        for call in (client.commit_transaction, client.abort_transaction):
            assert isinstance(outcome(call), kafka_errors.KafkaError)


class AutoCreating(ApacheKafka):
    """A broker with Kafka's own default, which ours of the tests has not."""

    def _server_properties(self) -> str:
        return super()._server_properties() + "auto.create.topics.enable=true\n"


@pytest.mark.slow
def test_b11_a_missing_topic_is_created_though_the_client_must_not(kafka: ProxiedKafka) -> None:
    """`allow_auto_create_topics=False` is ignored. Defence: connection.py checks the topics at start."""
    del kafka  # it says whether there can be a broker
    with AutoCreating() as broker, closing(KafkaAdminClient(**broker.client)) as admin:
        with producer(broker, allow_auto_create_topics=False) as client:
            client.send("misspelt", b"value").get(timeout=PATIENCE)
        with closing(KafkaConsumer("misread", **broker.client, allow_auto_create_topics=False)) as consumer:
            wait_for(lambda: consumer.poll(timeout_ms=200) or "misread" in admin.list_topics())
        assert {"misspelt", "misread"} <= set(admin.list_topics())


@pytest.mark.slow
def test_b12_a_batch_that_expired_leaves_a_dead_producer(kafka: ProxiedKafka, topic: str) -> None:
    """Later sends are never resolved. Defence: publisher.py waits with a time-out, and replaces the producer."""
    with doomed(kafka.proxied, enable_idempotence=True) as client:
        client.send(topic, b"value", partition=0).get(timeout=PATIENCE)
        held = kafka.proxy.add(Hold(ApiKey.Produce, times=None))
        expired = client.send(topic, b"value", partition=0)
        held.wait()
        with pytest.raises(kafka_errors.KafkaTimeoutError):
            expired.get(timeout=PATIENCE)
        assert expired.is_done
        kafka.proxy.heal()
        later = [client.send(topic, b"value", partition=number) for number in range(2)]
        with pytest.raises(kafka_errors.KafkaTimeoutError):
            later[0].get(timeout=2 * SHORT["delivery_timeout_ms"] / 1_000)
        assert [future.is_done for future in later] == [False, False]
        with doomed(kafka.proxied, enable_idempotence=True) as fresh:
            fresh.send(topic, b"value", partition=0).get(timeout=PATIENCE)
