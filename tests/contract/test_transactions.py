"""The transactional publisher against a real Apache Kafka: what a failed transaction leaves behind is nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from clients import consumer, received, unique, wait_for
from nlp_worker import connection
from nlp_worker.consumer import Consumer
from nlp_worker.errors import FencedError
from nlp_worker.loop import LONG_POLL_MS
from nlp_worker.poll import Commit, Committed, LimitChanged, Message, Partition, TransactionFailed
from nlp_worker.settings import Settings, load_settings
from nlp_worker.transactions import TransactionalPublisher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.kafka

DEFAULT = connection.DEFAULT_MAX_MESSAGE_BYTES


class Bench:
    """A topic that is read, one that is written, and a group."""

    def __init__(self, broker: RunningKafka, **kafka: object) -> None:
        self.broker = broker
        self.requests, self.results = unique("requests"), unique("results")
        broker.create_topic(self.requests, 2)
        broker.create_topic(self.results, 2, max_message_bytes=2000)
        self.kafka = {"consumer": {"session_timeout_ms": 6000, "heartbeat_interval_ms": 200}, **kafka}
        self.p0, self.p1 = (Partition(self.requests, number) for number in range(2))

    def settings(self, **options: object) -> Settings:
        servers = self.broker.bootstrap_servers
        return load_settings({"bootstrap_servers": servers, "group": self.requests, "kafka": self.kafka, **options})

    @contextlib.contextmanager
    def member(self, *others: Consumer, **options: object) -> Iterator[Consumer]:
        """Give a member that has partitions; the others let it in."""
        with contextlib.closing(Consumer(self.settings(**options), [self.requests])) as member:
            wait_for(lambda: polled(member, *others) and member.assigned)
            yield member

    @contextlib.contextmanager
    def publisher(self, name: str = "a", limit: int = 2000) -> Iterator[TransactionalPublisher]:
        transactional_id = f"{self.requests}-{name}"
        publisher = TransactionalPublisher(self.settings(), lambda: {self.results: limit}, transactional_id)
        with contextlib.closing(publisher):
            yield publisher

    def message(self, text: str) -> Message:
        return Message(self.results, b"k", text.encode(), [("h", b"v")])

    def published(self, count: int) -> list[Any]:
        """Return the values that a reader with read_committed sees."""
        with consumer(self.broker, self.results, isolation_level="read_committed") as reader:
            return [record.value for record in received(reader, count)]


def polled(*members: Consumer) -> bool:
    for member in members:
        member.poll(LONG_POLL_MS, 1)
    return True


@pytest.fixture
def bench(real_kafka: RunningKafka) -> Bench:
    return Bench(real_kafka)


def test_answers_and_offsets_are_there_together(bench: Bench) -> None:
    """With the metadata of the offsets; a second transaction of the same producer too."""
    with bench.member() as member, bench.publisher() as publisher:
        for number in (1, 2):
            offsets = {bench.p0: Commit(number, f"mark {number}")}
            assert publisher.transact([bench.message(str(number))], offsets, member.membership, 20) is Committed.DONE
        assert member.committed([bench.p0, bench.p1]) == {bench.p0: Commit(2, "mark 2")}
    assert bench.published(2) == [b"1", b"2"]


def test_the_offsets_of_a_transaction_that_the_group_refused_are_not_committed_by_the_next(bench: Bench) -> None:
    """kafka-python keeps them: with the same producer the next transaction would commit what was never answered."""
    with bench.member() as member, bench.publisher() as publisher:
        before = member.membership
        with bench.member(member):
            refused = publisher.transact([bench.message("refused")], {bench.p0: Commit(5)}, before, 20)
            assert refused is Committed.LATER
        after = [bench.message("after")]
        wait_for(
            lambda: (
                polled(member)
                and publisher.transact(after, {bench.p1: Commit(3)}, member.membership, 20) is Committed.DONE
            )
        )
        assert member.committed([bench.p0, bench.p1]) == {bench.p1: Commit(3)}
    assert bench.published(1) == [b"after"]


def test_a_member_that_was_thrown_out_has_nothing_to_fence_a_transaction_with(bench: Bench) -> None:
    """The broker takes offsets without member id and generation from anybody."""
    with bench.member() as member, bench.publisher() as publisher:
        assert member.membership is not None
        member._client._coordinator.reset_generation()
        nobody = member._client.group_metadata()
        assert member.membership is None
        # What would happen otherwise.
        assert publisher.transact([bench.message("x")], {bench.p0: Commit(7)}, nobody, 20) is Committed.DONE
        assert member.committed([bench.p0]) == {bench.p0: Commit(7)}


def test_a_topic_that_accepts_less_than_was_read_at_start_costs_no_transaction_after_it(bench: Bench) -> None:
    """Refused as too large: nothing of that transaction is there, the limit is known, and the next one succeeds."""
    limits = iter([DEFAULT, 2000])
    with bench.member() as member:
        publisher = TransactionalPublisher(bench.settings(), lambda: {bench.results: next(limits)}, unique("id"))
        with contextlib.closing(publisher):
            large = bench.message("x" * 5000)
            assert publisher.fits(large)
            with pytest.raises(LimitChanged):
                publisher.transact([bench.message("small"), large], {bench.p0: Commit(1)}, member.membership, 20)
            assert not publisher.fits(large)
            assert member.committed([bench.p0]) is None or member.committed([bench.p0]) == {}
            after = publisher.transact([bench.message("after")], {bench.p0: Commit(1)}, member.membership, 20)
            assert after is Committed.DONE
    assert bench.published(1) == [b"after"]


def test_a_producer_that_another_one_replaced_commits_nothing(bench: Bench) -> None:
    """The same transactional id twice: what the older one sent is nowhere, and it does not block the readers."""
    with bench.member() as member, bench.publisher("same") as older, bench.publisher("same") as newer:
        assert newer.transact([bench.message("newer")], {bench.p0: Commit(1)}, member.membership, 20) is Committed.DONE
        with pytest.raises(TransactionFailed):
            older.transact([bench.message("older")], {bench.p0: Commit(2)}, member.membership, 20)
        assert older.recover()
        assert member.committed([bench.p0]) == {bench.p0: Commit(1)}
    assert bench.published(1) == [b"newer"]


def test_a_static_member_that_was_displaced_is_told_in_a_transaction(bench: Bench) -> None:
    """Its partitions are another process's, which has its instance id."""
    with (
        bench.member(instance_id="slot-1") as older,
        bench.publisher() as publisher,
        bench.member(instance_id="slot-1"),
        pytest.raises(FencedError),
    ):
        publisher.transact([bench.message("x")], {bench.p0: Commit(1)}, older.membership, 20)


def test_a_static_member_that_was_displaced_is_told_although_it_commits_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python only stops its heartbeats then: without a commit it would wait for requests for ever."""
    with bench.member(instance_id="slot-1") as older:
        assert older.commit({bench.p0: Commit(1)}) is Committed.DONE
        with bench.member(instance_id="slot-1"):
            monkeypatch.setattr("nlp_worker.consumer.MEMBER_CHECK_INTERVAL", 0.0)
            with pytest.raises(FencedError):
                wait_for(lambda: polled(older) and False)
