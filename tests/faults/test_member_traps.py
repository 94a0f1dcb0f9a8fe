"""What kafka-python does as a group's member that no user would expect: canaries, as in test_client_traps.py."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pytest
from kafka import errors as kafka_errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.protocol.api_key import ApiKey
from kafka.structs import OffsetAndMetadata, TopicPartition

from clients import HEARTBEAT_MS, PATIENCE, admin, consumer, filled_topic, received, unique, wait_for
from faults.rules import Delay, Hold
from nlp_worker.client_traps import finish_joining

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from apache_kafka import RunningKafka
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: Records of each of the two partitions.
RECORDS: Final = 10

#: Seconds: twenty times what a member that polls for 200 ms takes to join.
LONG_ENOUGH: Final = 3.0


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """Remembers what is taken away, and does something before it lets go of it."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.revoked: set[TopicPartition] = set()
        self._before = before

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.revoked.update(revoked)
        if revoked:
            self._before()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        pass


@pytest.fixture
def topic(kafka: ProxiedKafka) -> str:
    return filled_topic(kafka, RECORDS)


def member(kafka: RunningKafka, group: str, **settings: Any) -> Any:
    return consumer(kafka, group_id=group, heartbeat_interval_ms=HEARTBEAT_MS, **settings)


@pytest.mark.parametrize("assignor", [RangePartitionAssignor, CooperativeStickyAssignor])
def test_b6_an_eager_assignor_takes_a_partition_away_and_gives_it_back_where_it_was(
    kafka: ProxiedKafka, topic: str, assignor: Any
) -> None:
    """Silent loss of what was dropped meanwhile. Defence: consumer.py is cooperative, which takes away what goes."""
    group, listener = unique("group"), Listener()
    settings = {"partition_assignment_strategy": [assignor]}
    with member(kafka, group, **settings) as old, member(kafka, group, **settings) as new:
        old.subscribe([topic], listener=listener)
        received(old, 2 * RECORDS)
        new.subscribe([topic])

        def is_shared() -> bool:
            old.poll(timeout_ms=200)
            new.poll(timeout_ms=200)
            return len(old.assignment()) == len(new.assignment()) == 1

        wait_for(is_shared)
        (kept,) = old.assignment()
        # Nothing of it is committed: who drops on revocation what it has in work, never sees it again.
        assert old.committed(kept, timeout_ms=5_000) is None
        assert old.position(kept) == RECORDS
        assert (kept in listener.revoked) == (assignor is RangePartitionAssignor)


def test_b13_a_listener_that_waits_counts_as_a_member_that_does_not_poll(kafka: ProxiedKafka, topic: str) -> None:
    """The others get what it has in work, and it cannot commit any more. Defence: revocations.py only takes notes."""
    group = unique("group")
    settings = {"max_poll_interval_ms": 1_500, "session_timeout_ms": 45_000}
    all_given = threading.Event()
    listener = Listener(before=lambda: all_given.wait(PATIENCE))
    with member(kafka, group, **settings) as old, member(kafka, group, **settings) as new:
        old.subscribe([topic], listener=listener)
        received(old, 2 * RECORDS)
        new.subscribe([topic])

        def take_all() -> None:
            wait_for(lambda: new.poll(timeout_ms=200) or len(new.assignment()) == 2)
            all_given.set()

        with ThreadPoolExecutor() as beside:
            taken = beside.submit(take_all)
            wait_for(lambda: old.poll(timeout_ms=200) or all_given.is_set())
            taken.result()
        assert old.assignment() == new.assignment() == listener.revoked
        with pytest.raises(kafka_errors.KafkaError):
            old.commit({TopicPartition(topic, 0): OffsetAndMetadata(1)}, timeout_ms=5_000)


def test_b14_a_leader_whose_poll_ends_while_it_joins_is_left_out_for_ever(kafka: ProxiedKafka, topic: str) -> None:
    """It sends no heartbeats, and is told nothing. Defence: client_traps.finish_joining.

    Of short polls one always ends there, so loop.py also lets every poll of a member without partitions be a long one.
    """
    with member(kafka.proxied, unique("group"), metadata_max_age_ms=200) as client, admin(kafka) as administrator:
        client.subscribe([topic])
        received(client, 2 * RECORDS)
        held = kafka.proxy.add(Hold(ApiKey.SyncGroup, response=True))
        administrator.create_partitions({topic: 3})
        wait_for(lambda: client.poll(timeout_ms=10) or held.fired)
        client.poll(timeout_ms=10)
        held.release()
        beats = kafka.proxy.add(Delay(ApiKey.Heartbeat, 0.0, times=None))
        deadline = time.monotonic() + LONG_ENOUGH
        while time.monotonic() < deadline:
            client.poll(timeout_ms=200)
        assert (len(client.assignment()), beats.fired) == (2, 0)
        finish_joining(client)
        wait_for(lambda: client.poll(timeout_ms=200) or len(client.assignment()) == 3)
        wait_for(lambda: client.poll(timeout_ms=200) or beats.fired)
