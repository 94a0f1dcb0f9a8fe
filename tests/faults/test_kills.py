"""F1, F2 and F3: workers that die, or are told to stop, and others that answer what they had begun."""

from __future__ import annotations

import contextlib
import functools
import operator
import random
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from kafka.protocol.api_key import ApiKey

from clients import wait_for
from faults.faulty_worker import POINTS
from faults.harness import FaultyWorker
from faults.ledger import Ledger
from faults.matrix import AT_LEAST_ONCE, DELIVERIES, EXACTLY_ONCE
from faults.rules import Hold
from nlp_worker.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300), pytest.mark.parametrize("delivery", DELIVERIES)]

#: Of a poll. A kill repeats one poll at most: the next one is published only when the one before it is committed.
POLL_RECORDS: Final = 64

#: Requests: more than a worker of these tests takes in one poll after the other, so that two are always in flight.
PER_SECOND: Final = 500

#: How often a fault is repeated.
TIMES: Final = 6

#: Answers after a fault from which on its successor is at work too.
AGAIN: Final = 500

#: Seconds, of which the bound on recovery is made: the group's session, a transaction, a poll on the device. The
#: worker's own transactions and polls may take some times that.
SESSION: Final = 6.0
TRANSACTION: Final = 5.0
POLL: Final = 1.0

#: Seconds, for the broker to see that a session is over, and to look for transactions whose time is over (every 10).
SEEN: Final = 2.0
LOOKED_FOR: Final = 12.0

#: Seconds that a test's drain may take, and that a process needs to close its clients and to end.
DRAIN: Final = 5.0
CLOSE: Final = 5.0


def starter(ledger: Ledger, folder: Path, delivery: str, *options: str) -> Callable[..., FaultyWorker]:
    """Return how workers of one group are started."""
    bounds = ("--poll-records", str(POLL_RECORDS), "--poll-seconds", str(POLL))
    return functools.partial(
        FaultyWorker,
        ledger,
        folder,
        "--delivery",
        delivery,
        *bounds,
        *options,
        NLP_WORKER_KAFKA__PRODUCER__TRANSACTION_TIMEOUT_MS=str(int(TRANSACTION * 1000)),
    )


def wait_until_shared(*workers: FaultyWorker) -> None:
    """Return when each has its part of the four partitions."""
    wait_for(lambda: [len(worker.partitions) for worker in workers] == [4 // len(workers)] * len(workers))


@pytest.mark.faults
def test_two_workers_without_a_fault(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """Once both have partitions nothing is answered twice, under at least once neither."""
    row = matrix.row("F1", "none, two workers", delivery)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery)
        workers = [stack.enter_context(start()) for _ in range(2)]
        wait_until_shared(*workers)
        with ledger.traffic(PER_SECOND):
            ledger.wait_for(3_000, *workers)
        row.judge(ledger)
        assert all(worker.events("commit") for worker in workers)


@pytest.mark.parametrize(
    "point",
    [
        "after_publish_before_commit",
        *(pytest.param(point, marks=pytest.mark.faults) for point in POINTS if point != "after_publish_before_commit"),
    ],
)
def test_a_worker_is_killed_at_a_point(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, point: str
) -> None:
    """Its successor answers what it had begun; only what was published and not committed is repeated."""
    row = matrix.row("F2", f"SIGKILL at {point}", delivery)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery)
        doomed = stack.enter_context(start("--instance-id", "one", faults=f"{point}:5:kill"))
        other = stack.enter_context(start("--instance-id", "two"))
        wait_until_shared(doomed, other)
        with ledger.traffic(PER_SECOND):
            doomed.wait_until_killed()
            successor = stack.enter_context(start("--instance-id", "one"))
            ledger.wait_for(ledger.answered + AGAIN, other, successor)
        published = point == "after_publish_before_commit"
        verdict = row.judge(ledger, repeated=POLL_RECORDS if published else 0)
        assert bool(verdict.dup) == (published and delivery == AT_LEAST_ONCE)


@pytest.mark.faults
@pytest.mark.parametrize("response", [True, False], ids=["answer", "request"])
def test_a_worker_is_killed_while_it_commits(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, *, response: bool
) -> None:
    """The commit was made and it never heard of it; or the commit arrives when its successor is far ahead."""
    row = matrix.row("F2", f"SIGKILL while the {'answer' if response else 'request'} of a commit is held", delivery)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery)
        doomed = stack.enter_context(start("--instance-id", "one", servers=kafka.proxied.bootstrap_servers))
        other = stack.enter_context(start("--instance-id", "two"))
        wait_until_shared(doomed, other)
        with ledger.traffic(PER_SECOND):
            # Not its first: before that it commits that it begins.
            wait_for(lambda: doomed.events("commit"))
            commit = ApiKey.OffsetCommit if delivery == AT_LEAST_ONCE else ApiKey.EndTxn
            held = kafka.proxy.add(Hold(commit, response=response))
            held.wait()
            doomed.kill()
            successor = stack.enter_context(start("--instance-id", "one"))
            ledger.wait_for(ledger.answered + AGAIN, other, successor)
            held.release()
            ledger.wait_for(ledger.answered + AGAIN, other, successor)
        row.judge(ledger, repeated=0 if response else POLL_RECORDS)


@pytest.mark.faults
def test_workers_are_killed_at_random_times(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """Six times one of two, each time with a new member in its place."""
    row = matrix.row("F2", f"SIGKILL at random times, {TIMES} times", delivery)
    chance = random.Random(2)  # noqa: S311 - a fault's times, not a secret
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery)
        workers = [stack.enter_context(start()) for _ in range(2)]
        wait_until_shared(*workers)
        with ledger.traffic(PER_SECOND / 2):
            for _ in range(TIMES):
                ledger.wait_for(ledger.answered + AGAIN)
                # Nothing is waited for: the time is the fault.
                time.sleep(chance.random())
                victim = chance.randrange(2)
                workers[victim].kill()
                workers[victim] = stack.enter_context(start())
        row.judge(ledger, repeated=TIMES * POLL_RECORDS)


@pytest.mark.faults
def test_the_partitions_of_a_killed_worker_are_taken_over_in_time(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """In the worst moment, an open transaction behind it: the survivor commits for them within the promised time."""
    row = matrix.row("F2", "SIGKILL of one of two, until its partitions are committed again", delivery)
    bound = SESSION + SEEN + 3 * POLL
    if delivery == EXACTLY_ONCE:
        bound = max(bound, TRANSACTION + LOOKED_FOR)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery)
        admin = AdminClient({"bootstrap.servers": ledger.servers})
        doomed = stack.enter_context(start(faults="after_publish_before_commit:10:kill"))
        survivor = stack.enter_context(start(forward_seconds=0.1))
        wait_until_shared(doomed, survivor)
        with ledger.traffic(PER_SECOND / 5):
            doomed.wait_until_killed()
            killed, before = time.monotonic(), offsets(admin, doomed, ledger)
            wait_for(lambda: all(map(operator.lt, before, offsets(admin, doomed, ledger))))
            seconds = time.monotonic() - killed
        row.judge(ledger, repeated=POLL_RECORDS)
        assert seconds < bound


def offsets(admin: AdminClient, worker: FaultyWorker, ledger: Ledger) -> list[int]:
    """Return what the group has committed of the worker's partitions."""
    parts = [TopicPartition(ledger.requests, int(name.rpartition("-")[2])) for name in worker.partitions]
    asked = ConsumerGroupTopicPartitions(ledger.prefix, parts)
    listed = admin.list_consumer_group_offsets([asked])[ledger.prefix].result()
    return [part.offset for part in sorted(listed.topic_partitions, key=lambda part: int(part.partition))]


def last(worker: FaultyWorker, event: str) -> str:
    """Return when the worker logged the event last."""
    return str(worker.events(event)[-1]["timestamp"])


@pytest.mark.parametrize("times", [1, pytest.param(TIMES, marks=pytest.mark.faults)])
def test_workers_are_told_to_stop(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, times: int
) -> None:
    """In the middle of a batch of half a second: it is finished and committed in time, and nothing is repeated."""
    often = "once" if times == 1 else f"{times} times"
    row = matrix.row("F3", f"SIGTERM during a batch of 0.5 s, {often}", delivery)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery, "--drain-seconds", str(DRAIN))
        workers = [stack.enter_context(start(forward_seconds=0.5)) for _ in range(2)]
        wait_until_shared(*workers)
        with ledger.traffic(PER_SECOND / 5):
            for number in range(times):
                ledger.wait_for(ledger.answered + POLL_RECORDS, *workers)
                stopped = workers[number % 2]
                stopped.terminate()
                assert stopped.end(timeout=DRAIN + CLOSE) == ExitCode.DRAINED
                assert last(stopped, "commit") > last(stopped, "draining")
                workers[number % 2] = stack.enter_context(start(forward_seconds=0.5))
                wait_until_shared(*workers)
        row.judge(ledger)


@pytest.mark.faults
@pytest.mark.parametrize("again", [True, False], ids=["second", "deadline"])
def test_a_worker_that_is_stopped_cannot_drain(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, *, again: bool
) -> None:
    """A second SIGTERM ends it at once, and so does its deadline: what it had begun is another's."""
    row = matrix.row("F3", "a second SIGTERM at once" if again else "a drain that takes too long", delivery)
    with Ledger(kafka) as ledger, contextlib.ExitStack() as stack:
        start = starter(ledger, tmp_path, delivery, "--drain-seconds", "1")
        doomed = stack.enter_context(start(forward_seconds=2))
        ledger.send(5 * POLL_RECORDS)
        # With more behind it: the next batch is on the device by now.
        wait_for(lambda: doomed.events("commit"))
        doomed.terminate()
        if again:
            wait_for(lambda: doomed.events("draining"))
            doomed.terminate()
        assert doomed.end(timeout=1 + CLOSE) == (128 + signal.SIGTERM if again else ExitCode.DRAINED)
        assert bool(doomed.events("given_up")) == (not again)
        stack.enter_context(start())
        row.judge(ledger, repeated=0)
