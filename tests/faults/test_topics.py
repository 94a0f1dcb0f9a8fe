"""F13 and F15: a topic that is slow, that grows, that is made anew, and that forgets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import psutil
import pytest
from confluent_kafka import IsolationLevel
from kafka.protocol.api_key import ApiKey
from kafka.structs import TopicPartition

from clients import admin, wait_for
from faults.harness import FaultyWorker
from faults.ledger import QUIET_SECONDS, Ledger
from faults.matrix import DELIVERIES
from faults.reading import partitions
from faults.rules import Delay
from faults.verdict import CLEAN, Source, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

CONSUMER: Final = "NLP_WORKER_KAFKA__CONSUMER__"

#: Bytes of a request that is mostly spaces, and how many there are: far more than the worker may hold.
PADDED_BYTES: Final = 16_000
BACKLOG: Final = 12_000

#: Bytes. Two polls, their answers, and what the client may fetch ahead (16 MiB, and the copies of that in its buffers).
MOST_GROWTH: Final = 100 * 2**20


class Padded(Ledger):
    """Large requests with small answers."""

    def send_padded(self, count: int) -> None:
        """Send so many, until acknowledged."""
        for number in range(count):
            value = json.dumps({"id": f"p-{number}", "inputs": f"text {number}"}).ljust(PADDED_BYTES)
            self._producer.produce(self.requests, value, f"k-{number % self._keys}", on_delivery=self._acknowledge)
            self._producer.poll(0)
        self._flush()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_results_are_written_slowly(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """The backlog stays in Kafka, and the worker a member of its group; it goes on as soon as it can."""
    row = matrix.row("F13", "each acknowledgement of answers 2 s late, a backlog of 190 MB", delivery)
    options = ("--delivery", delivery, "--poll-records", "256")
    with (
        Padded(kafka) as ledger,
        FaultyWorker(ledger, tmp_path, *options, servers=kafka.proxied.bootstrap_servers) as worker,
    ):
        process = psutil.Process(worker.process.pid)
        ledger.send(256)
        ledger.wait_for(256, worker)
        before, joined = process.memory_info().rss, len(worker.events("rebalance"))
        slow = kafka.proxy.add(Delay(ApiKey.Produce, 2.0, times=None, response=True))
        ledger.send_padded(BACKLOG)
        most = before

        def slow_for_long() -> bool:
            nonlocal most
            most = max(most, process.memory_info().rss)
            return slow.fired >= 5

        wait_for(slow_for_long)
        assert ledger.answered < BACKLOG / 4
        kafka.proxy.heal()
        ledger.wait_for(256 + BACKLOG, worker)
        row.judge(ledger)
        assert most - before < MOST_GROWTH
        assert len(worker.events("rebalance")) == joined
        assert worker.events("publish_failed") == worker.events("transaction_failed") == []


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_partitions_are_added(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """What is sent to them before the worker knows of them is answered too."""
    row = matrix.row("F15", "partitions are added to the requests topic", delivery)
    age = {f"{CONSUMER}METADATA_MAX_AGE_MS": "1000"}
    with (
        Ledger(kafka, partitions=2) as ledger,
        FaultyWorker(ledger, tmp_path, "--delivery", delivery, forward_seconds=0.02, **age) as worker,
    ):
        with ledger.traffic(per_second=200):
            ledger.wait_for(200, worker)
            with admin(kafka) as administrator:
                administrator.create_partitions({ledger.requests: 8})
            # librdkafka looks for new partitions every five minutes, and whenever it is asked.
            wait_for(lambda: len(ledger._producer.list_topics().topics[ledger.requests].partitions) == 8)
            wait_for(lambda: {source.partition for source in set(ledger.acknowledged)} == set(range(8)))
            wait_for(lambda: len(worker.partitions) == 8)
        row.judge(ledger)


class Forgetful(Ledger):
    """Judges what is left where requests are deleted: nobody can answer those, and those that were are not invented."""

    deleted: frozenset[Source] = frozenset()
    unanswered = 0
    """How many requests were deleted before they were answered; known with the verdict."""

    def delete_before(self, offset: int) -> None:
        """Delete the requests below this offset of each partition, as retention does."""
        self.deleted = frozenset(source for source in self.acknowledged if source.offset < offset)
        with admin(self._broker) as administrator:
            administrator.delete_records({TopicPartition(*source[:2]): offset for source in self.deleted})

    def make_anew(self, count: int) -> None:
        """Delete the requests topic and create it; the answers go too, for the same offsets are answered again."""
        written = partitions(self._admin, self._outputs)
        ends = self._ends(written, IsolationLevel.READ_UNCOMMITTED)
        with admin(self._broker) as administrator:
            administrator.delete_records({TopicPartition(*part): end for part, end in ends.items()})
            administrator.delete_topics([self.requests])
        self._broker.create_topic(self.requests, count)
        self.acknowledged, self._answered, self._looked, self._reader.seen = set(), set(), 0, []

    def verdict(self, group: str | None = None, seconds: float = QUIET_SECONDS) -> Verdict:
        verdict = super().verdict(group, seconds)
        gone = set(map(str, self.deleted))
        self.unanswered = len(gone.intersection(verdict.lost))
        return verdict._replace(
            lost=tuple(lost for lost in verdict.lost if lost not in gone),
            invented=tuple(each for each in verdict.invented if each.removeprefix(f"{self.results} ") not in gone),
        )


def told(worker: FaultyWorker) -> int:
    """Return how many requests the worker says were deleted."""
    return sum(int(event["requests"]) for event in worker.events("requests_deleted"))


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_requests_are_deleted_before_a_worker_starts(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """The one that gets their partitions tells how many there were, and answers the rest."""
    row = matrix.row("F15", "retention passes the group while no worker runs", delivery)
    options = ("--delivery", delivery)
    with Forgetful(kafka, partitions=2) as ledger:
        with FaultyWorker(ledger, tmp_path, *options) as worker:
            ledger.send(100)
            ledger.wait_for(100, worker)
            worker.terminate()
            assert worker.end() == 0
        ledger.send(1_000)
        ledger.delete_before(300)
        with FaultyWorker(ledger, tmp_path, *options) as worker:
            row.judge(ledger)
            wait_for(lambda: told(worker))
            assert told(worker) == ledger.unanswered == 2 * 300 - 100


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_requests_are_deleted_before_a_slow_worker_comes_to_them(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """It tells how many there were, and answers the rest."""
    row = matrix.row("F15", "retention passes the group while its worker is slow", delivery)
    # The client holds few records, so that it meets the gap.
    few = {f"{CONSUMER}FETCH_MAX_BYTES": "2000", f"{CONSUMER}MAX_PARTITION_FETCH_BYTES": "2000"}
    options = ("--delivery", delivery, "--poll-records", "20")
    with (
        Forgetful(kafka, partitions=2) as ledger,
        FaultyWorker(ledger, tmp_path, *options, forward_seconds=0.2, **few) as worker,
    ):
        ledger.send(20)
        ledger.wait_for(20, worker)
        for _ in range(49):
            ledger.send(20)  # batches of their own: one is the least that a fetch gives
        ledger.delete_before(400)
        row.judge(ledger)
        wait_for(lambda: told(worker))
        assert told(worker) == ledger.unanswered > 100


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_requests_topic_is_made_anew(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """The worker tells it, and answers the new one from its beginning."""
    row = matrix.row("F15", "the requests topic is deleted and made anew", delivery)
    with (
        Forgetful(kafka, partitions=2) as ledger,
        FaultyWorker(ledger, tmp_path, "--delivery", delivery) as worker,
    ):
        ledger.send(200)
        assert ledger.verdict() == CLEAN
        ledger.make_anew(2)
        ledger.send(100)
        wait_for(lambda: worker.events("topic_made_anew"))
        row.judge(ledger)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_requests_topic_is_made_anew_and_grows_while_the_worker_is_frozen(
    kafka: ProxiedKafka, tmp_path: Path, delivery: str
) -> None:
    """Its position is there in both, and it hears of the new one only by its id: nothing is lost, some is repeated."""
    soon: dict[str, Any] = {f"{CONSUMER}METADATA_MAX_AGE_MS": "1000"}
    with (
        Forgetful(kafka, partitions=2) as ledger,
        FaultyWorker(ledger, tmp_path, "--delivery", delivery, **soon) as worker,
    ):
        ledger.send(200)
        assert ledger.verdict() == CLEAN
        worker.freeze()
        ledger.make_anew(2)
        ledger.send(500)
        worker.thaw()
        wait_for(lambda: worker.events("topic_made_anew"))
        verdict = ledger.verdict()
        assert (verdict.lost, verdict.invented, verdict.lag) == ((), (), 0)
