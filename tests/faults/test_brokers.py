"""F7: brokers die, stay away, and freeze; and F17: one has a full disk."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from apache_kafka import ApacheKafka, RunningKafka
from clients import wait_for
from faults.cluster import REPLICAS, ApacheCluster
from faults.harness import FaultyWorker
from faults.ledger import Ledger
from faults.matrix import AT_LEAST_ONCE, DELIVERIES, EXACTLY_ONCE
from faults.reading import Reader
from faults.verdict import source_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka
    from faults.verdict import Source

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

#: Records of a poll: small, so that an outage meets one on its way. At least once may answer that again: a new producer
#: sends it once more, or the group has moved on before it is committed.
POLL: Final = 16

#: Requests a second: less than a worker can answer, and enough to have one always at work.
RATE: Final = 200.0

#: Seconds of a batch.
FORWARD: Final = 0.03

#: Seconds from the first request that a broker acknowledges again to the first answer. Exactly once may wait in a call
#: for an answer that never comes, up to the deadline of 20 s that it has.
RESUME_SECONDS: Final = {AT_LEAST_ONCE: 5.0, EXACTLY_ONCE: 20.0 + 5.0}

#: Milliseconds of the worker's patience where that is what is tested: its own are some tens of seconds.
SHORT: Final = {
    "NLP_WORKER_KAFKA__PRODUCER__REQUEST_TIMEOUT_MS": "3000",
    "NLP_WORKER_KAFKA__PRODUCER__DELIVERY_TIMEOUT_MS": "3000",
    "NLP_WORKER_KAFKA__PRODUCER__TRANSACTION_TIMEOUT_MS": "3000",
}

#: What a worker says when its answers were not acknowledged.
FAILED: Final = {AT_LEAST_ONCE: "publish_failed", EXACTLY_ONCE: "transaction_failed"}


def worker_of(ledger: Ledger, folder: Path, delivery: str, faults: str = "", **environment: str) -> FaultyWorker:
    options = ("--delivery", delivery, "--poll-records", str(POLL))
    return FaultyWorker(ledger, folder, *options, faults=faults, forward_seconds=FORWARD, **environment)


def wait_for_event(worker: FaultyWorker, name: str) -> None:
    """Return when the worker has logged it; the failure shows what it has logged instead."""
    worker._wait_until(lambda: worker.events(name))


def seconds_to_resume(broker: RunningKafka, ledger: Ledger, before: set[Source], worker: FaultyWorker) -> float:
    """Return the time from the first acknowledged request to the first answered one that was not there before.

    The answer is read by a client that connects now: one that has tried to meanwhile waits longer and longer.
    """
    worker._wait_until(lambda: len(ledger.acknowledged) > len(before))
    began = time.monotonic()
    with Reader(broker, [ledger.results]) as reader:
        worker._wait_until(lambda: has_new(reader, before))
        return time.monotonic() - began


def has_new(reader: Reader, before: set[Source]) -> bool:
    """Whether there are answers of later requests among the latest: to look at all each time would slow the reader."""
    return any(source_of(seen) not in before for seen in reader.seen[-100:])


@pytest.fixture
def broker(kafka: ProxiedKafka) -> Iterator[ApacheKafka]:
    """A node of its own, which a test may leave dead."""
    del kafka  # it says whether there can be one
    with ApacheKafka() as broker:
        yield broker


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_broker_is_killed_twice(broker: ApacheKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """Nothing is lost, and work goes on as soon as the broker takes requests again."""
    row = matrix.row("F7", "the broker is killed and started again, twice", delivery)
    with Ledger(broker) as ledger, worker_of(ledger, tmp_path, delivery) as worker:
        with ledger.traffic(RATE):
            for answers in (200, 2_000):
                ledger.wait_for(answers, worker)
                broker.kill()
                before = set(ledger.acknowledged)
                broker.start()
                assert seconds_to_resume(broker, ledger, before, worker) < RESUME_SECONDS[delivery]
        row.judge(ledger, repeated=2 * POLL)
        assert worker.process.poll() is None


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_broker_is_down_for_longer_than_a_delivery_may_take(
    broker: ApacheKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """The worker gives up its producer, not its answers."""
    row = matrix.row("F7", "the broker is down beyond the delivery timeout", delivery)
    with (
        Ledger(broker) as ledger,
        worker_of(ledger, tmp_path, delivery, faults="before_publish:5:stop", **SHORT) as worker,
    ):
        with ledger.traffic(RATE):
            worker.wait_until_stopped()
            broker.kill()
            before = set(ledger.acknowledged)
            worker.thaw()
            wait_for_event(worker, FAILED[delivery])
            broker.start()
            assert seconds_to_resume(broker, ledger, before, worker) < RESUME_SECONDS[delivery]
        row.judge(ledger, repeated=POLL)
        assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("delivery", "point"), [(AT_LEAST_ONCE, "before_publish"), (EXACTLY_ONCE, "after_publish_before_commit")]
)
def test_the_broker_is_frozen_for_longer_than_a_delivery_may_take(
    broker: ApacheKafka, tmp_path: Path, matrix: Matrix, delivery: str, point: str
) -> None:
    """Its client's producer is dead for good after that: the worker takes a new one, and ends the open transaction."""
    row = matrix.row("F7", "the broker freezes beyond the delivery and the transaction timeout", delivery)
    with Ledger(broker) as ledger, worker_of(ledger, tmp_path, delivery, faults=f"{point}:5:stop", **SHORT) as worker:
        with ledger.traffic(RATE):
            worker.wait_until_stopped()
            broker.freeze()
            before = set(ledger.acknowledged)
            worker.thaw()
            wait_for_event(worker, FAILED[delivery])
            broker.thaw()
            assert seconds_to_resume(broker, ledger, before, worker) < RESUME_SECONDS[delivery]
        # Sent again, and by a member that the group has given up.
        row.judge(ledger, repeated=2 * POLL)
        assert worker.process.poll() is None


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_the_disk_of_the_broker_is_full(broker: ApacheKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """It ends at the first byte that it cannot write, whoever's that is; with room again, work goes on."""
    row = matrix.row("F17", "the broker's disk is full, until there is room and it is started again", delivery)
    with Ledger(broker) as ledger, worker_of(ledger, tmp_path, delivery) as worker:
        with ledger.traffic(RATE):
            ledger.wait_for(200, worker)
            process = psutil.Process(broker.pid)
            # Where there is no room for a byte more, it writes none: to the broker a full disk is the same.
            process.rlimit(psutil.RLIMIT_FSIZE, (1, 1))
            wait_for(lambda: process.status() == psutil.STATUS_ZOMBIE)
            broker.kill()
            before = set(ledger.acknowledged)
            broker.start()
            assert seconds_to_resume(broker, ledger, before, worker) < RESUME_SECONDS[delivery]
        row.judge(ledger, repeated=POLL)
        assert worker.process.poll() is None


@pytest.fixture(scope="module")
def cluster(real_kafka: RunningKafka) -> Iterator[ApacheCluster]:
    del real_kafka  # it says whether there can be one
    with ApacheCluster() as cluster:
        yield cluster


@contextlib.contextmanager
def away(cluster: ApacheCluster, number: int, fault: str) -> Iterator[None]:
    """Do without a node; at the end of the block it is there again, and has caught up."""
    (cluster.kill if fault == "killed" else cluster.freeze)(number)
    try:
        yield
    finally:
        (cluster.start if fault == "killed" else cluster.thaw)(number)
        cluster.wait_until_whole()


def leaders(cluster: ApacheCluster, ledger: Ledger) -> set[int | None]:
    """Return the nodes that lead the ledger's topics; None among them while a partition has no leader."""
    topics = cluster._metadata().topics
    parts = [part for name in (ledger.requests, ledger.results) for part in topics[name].partitions.values()]
    return {part.leader - 1 if part.leader > 0 else None for part in parts}


def wait_for_answer(cluster: ApacheCluster, ledger: Ledger, without: int, worker: FaultyWorker) -> None:
    """Return when others lead what this node has led, and a request that came after that is answered.

    It is read by a client that knows these nodes alone: the ledger's own waits a minute for one that is frozen.
    """
    worker._wait_until(lambda: leaders(cluster, ledger).isdisjoint({without, None}))
    before = set(ledger.acknowledged)
    others = [node.bootstrap_servers for number, node in enumerate(cluster._nodes) if number != without]
    with Reader(RunningKafka(",".join(others)), [ledger.results]) as reader:
        worker._wait_until(lambda: has_new(reader, before))


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_the_brokers_of_a_cluster_go_one_after_the_other(
    cluster: ApacheCluster, tmp_path: Path, matrix: Matrix, delivery: str, fault: str
) -> None:
    """With three replicas, two of them in sync, and two workers: each broker leads something, and others take over."""
    row = matrix.row("F7", f"each of three brokers is {fault}, one after the other", delivery)
    cluster.wait_until_whole()
    # A broker that freezes answers nothing, and its clients look elsewhere after this.
    patience = {
        "NLP_WORKER_KAFKA__PRODUCER__REQUEST_TIMEOUT_MS": "5000",
        "NLP_WORKER_KAFKA__CONSUMER__REQUEST_TIMEOUT_MS": "5000",
    }
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(cluster))
        workers = [stack.enter_context(worker_of(ledger, tmp_path, delivery, **patience)) for _ in range(2)]
        wait_for(lambda: [len(worker.partitions) for worker in workers] == [2, 2])
        with ledger.traffic(RATE / 2):
            ledger.wait_for(200, *workers)
            for number in range(REPLICAS):
                with away(cluster, number, fault):
                    wait_for_answer(cluster, ledger, number, workers[0])
        row.judge(ledger, repeated=REPLICAS * len(workers) * POLL)
        assert [worker.process.poll() for worker in workers] == [None, None]
