"""The ledger sees what is wrong, and the worker of the tests fails where it is told to."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.protocol.api_key import ApiKey
from kafka.structs import OffsetAndMetadata, TopicPartition

from clients import PATIENCE, RECORDS, rd_producer, rd_send_all, unique, wait_for
from faults.cluster import ApacheCluster
from faults.faulty_worker import POINTS
from faults.harness import FaultyWorker
from faults.ledger import Ledger
from faults.reading import Seen, read_all
from faults.rules import Hold
from faults.verdict import CLEAN, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apache_kafka import RunningKafka
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@pytest.mark.slow
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_two_workers_answer_everything_once_and_in_order(kafka: ProxiedKafka, tmp_path: Path, delivery: str) -> None:
    """F1, without a fault: once both have partitions, nothing is answered twice; results have fewer partitions."""
    servers = kafka.proxied.bootstrap_servers
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(kafka, partitions=4, result_partitions=3))
        workers = [
            stack.enter_context(FaultyWorker(ledger, tmp_path, "--delivery", delivery, servers=servers))
            for _ in range(2)
        ]
        wait_for(lambda: [len(worker.partitions) for worker in workers] == [2, 2])
        with ledger.traffic(per_second=1_000):
            ledger.wait_for(1_500, *workers)
        ledger.send_value(b"{")
        assert ledger.verdict() == CLEAN
        assert ledger.answered == len(ledger.acknowledged) > 1_500


@pytest.mark.slow
@pytest.mark.parametrize(("delivery", "repeated"), [("at-least-once", range(1, 21)), ("exactly-once", range(1))])
def test_a_worker_is_killed_at_each_point(kafka: ProxiedKafka, tmp_path: Path, delivery: str, repeated: range) -> None:
    """One worker after the other passes its point for the second time: only one of them had published for nothing."""
    options = ("--poll-records", "20", "--instance-id", "one", "--delivery", delivery)
    with Ledger(kafka) as ledger:
        ledger.send(500)
        for point in POINTS:
            with FaultyWorker(ledger, tmp_path, *options, faults=f"{point}:2:kill") as doomed:
                doomed.wait_until_killed()
        with FaultyWorker(ledger, tmp_path, *options):
            verdict = ledger.verdict()
        assert verdict._replace(dup=()) == CLEAN
        # At most one poll; less where the worker has begun to suspect its records, and runs them alone.
        assert len(verdict.dup) in repeated


@pytest.mark.slow
def test_a_worker_is_killed_while_it_commits(kafka: ProxiedKafka, tmp_path: Path) -> None:
    """The proxy holds the answer to the end of its transaction: what the worker never heard of has been done."""
    options = ("--instance-id", "one", "--delivery", "exactly-once")
    servers = kafka.proxied.bootstrap_servers
    with Ledger(kafka) as ledger:
        held = kafka.proxy.add(Hold(ApiKey.EndTxn, response=True))
        ledger.send(100)
        with FaultyWorker(ledger, tmp_path, *options, servers=servers) as doomed:
            held.wait()
            doomed.kill()
        with FaultyWorker(ledger, tmp_path, *options, servers=servers):
            assert ledger.verdict() == CLEAN


@pytest.mark.slow
def test_a_worker_stops_where_it_is_told_to_and_goes_on(kafka: ProxiedKafka, tmp_path: Path) -> None:
    """In the middle of a batch; thawed before its session is over, it has missed nothing, and drains."""
    with Ledger(kafka) as ledger, FaultyWorker(ledger, tmp_path, faults="mid_batch:1:stop") as worker:
        ledger.send(100)
        worker.wait_until_stopped()
        assert ledger.answered == 0
        worker.thaw()
        assert ledger.verdict() == CLEAN
        worker.terminate()
        assert worker.end() == 0


def answer(ledger: Ledger, number: int, partition: int = 0, **changes: object) -> None:
    """Write an answer as a worker would, but for the changes."""
    source = {"topic": ledger.requests, "partition": partition, "offset": number}
    value = {"id": f"r-{number}", "status": "ok", "source": source} | changes
    with contextlib.closing(KafkaProducer(**ledger.client)) as producer:
        producer.send(ledger.results, json.dumps(value).encode(), key=b"k-0").get(timeout=PATIENCE)


def commit(ledger: Ledger, offset: int) -> None:
    """Commit as a member of the workers' group would."""
    group = {"group_id": ledger.prefix, "enable_auto_commit": False}
    with contextlib.closing(KafkaConsumer(**ledger.client, **group)) as consumer:
        consumer.commit({TopicPartition(ledger.requests, 0): OffsetAndMetadata(offset)}, timeout_ms=5_000)


@pytest.fixture
def ledger(kafka: ProxiedKafka) -> Iterator[Ledger]:
    """Three requests of one key and partition."""
    with Ledger(kafka, partitions=1, keys=1) as ledger:
        ledger.send(3)
        yield ledger


def test_what_was_not_answered_is_lost(ledger: Ledger) -> None:
    """Committed, without an answer; and an error answer whose dead letter is missing."""
    answer(ledger, 0)
    answer(ledger, 2, status="error", error={"code": "invalid_request"})
    commit(ledger, 3)
    verdict = ledger.verdict()
    assert verdict.lost == (f"{ledger.requests}-0-1", f"dead letter of {ledger.requests}-0-2")
    assert verdict._replace(lost=()) == CLEAN


def test_what_was_not_committed_is_lag(ledger: Ledger) -> None:
    """All are answered; the offset of the last is not committed, nor was any before."""
    for number in range(3):
        answer(ledger, number)
    assert ledger.verdict(seconds=0) == Verdict(lag=3)
    commit(ledger, 2)
    assert ledger.verdict(seconds=0) == Verdict(lag=1)
    commit(ledger, 3)
    assert ledger.verdict() == CLEAN


def test_what_is_answered_twice_or_late_or_wrong_is_told(ledger: Ledger) -> None:
    """One twice, one after its successor, one that nobody asked, one with another's id."""
    for number in (0, 2, 0, 1):
        answer(ledger, number)
    answer(ledger, 7)
    answer(ledger, 2, id="r-1")
    commit(ledger, 3)
    verdict = ledger.verdict()
    topic = ledger.requests
    assert verdict.dup == (f"{ledger.results} {topic}-0-0", f"{ledger.results} {topic}-0-2")
    assert verdict.order == (f"{topic}-0-1",)
    assert verdict.invented == (f"{ledger.results} {topic}-0-7", f"{ledger.results} {topic}-0-2")
    assert verdict._replace(dup=(), order=(), invented=()) == CLEAN


def test_an_open_transaction_is_told(ledger: Ledger) -> None:
    """Answers that nobody with read_committed sees yet are lost, and the partition is named; committed they are not."""
    with contextlib.closing(KafkaProducer(**ledger.client, transactional_id=ledger.prefix)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        for number in range(3):
            source = {"topic": ledger.requests, "partition": 0, "offset": number}
            value = {"id": f"r-{number}", "status": "ok", "source": source}
            producer.send(ledger.results, json.dumps(value).encode(), key=b"k-0").get(timeout=PATIENCE)
        commit(ledger, 3)
        verdict = ledger.verdict(seconds=0)
        assert (verdict.unstable, len(verdict.lost)) == ((f"{ledger.results}-0",), 3)
        producer.commit_transaction()
    assert ledger.verdict() == CLEAN


def test_readers_that_disagree_are_told(ledger: Ledger) -> None:
    """A record that was read while it was written, and is not there at the end."""
    for number in range(3):
        answer(ledger, number)
    commit(ledger, 3)
    assert ledger.verdict() == CLEAN
    ledger._reader.seen.append(Seen(ledger.results, 0, 3, b"k-0", b"{}", ()))
    assert ledger.verdict() == Verdict(disagreed=(f"{ledger.results}-0-3",))


@pytest.mark.slow
def test_a_cluster_lives_on_without_one_of_its_nodes(real_kafka: RunningKafka) -> None:
    """The leader is killed, the next one frozen: another leads, no record is lost, and the old one catches up."""
    del real_kafka
    with ApacheCluster() as cluster:
        topic = unique("topic")
        cluster.create_topic(topic)
        rd_send_all(cluster, topic)
        first = cluster.leader(topic)
        assert first is not None
        cluster.kill(first)
        wait_for(lambda: cluster.leader(topic) not in (first, None))
        producer = rd_producer(cluster)
        producer.produce(topic, b"after")
        assert producer.flush(PATIENCE) == 0
        cluster.start(first)
        cluster.wait_until_whole()
        second = cluster.leader(topic)
        assert second is not None
        cluster.freeze(second)
        wait_for(lambda: cluster.leader(topic) not in (second, None))
        cluster.thaw(second)
        cluster.wait_until_whole()
        assert [seen.value for seen in read_all(cluster, [topic])] == [*(value for _, value, _ in RECORDS), b"after"]
