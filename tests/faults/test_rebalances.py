"""F4, F5, F6 and F12: the group moves on, with, without or against a worker."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

import pytest

from clients import wait_for
from faults.harness import FaultyWorker
from faults.ledger import Ledger
from faults.matrix import AT_LEAST_ONCE, DELIVERIES, EXACTLY_ONCE
from nlp_worker.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

#: Records of a poll: small, so that there are many polls, and a fault meets some of them. At least once may answer one
#: again when the group moves on without its worker: a poll is published and committed before the next one is.
POLL: Final = 16

#: Seconds of a batch: long enough for requests to gather.
FORWARD: Final = 0.02

#: Joins or leaves in a round of the storm; and how many rounds there are.
CROWD: Final = 5
ROUNDS: Final = 2

#: Where a worker freezes.
MID_BATCH: Final = "mid_batch"
PUBLISHED: Final = "after_publish_before_commit"

#: How long it is frozen: until the others have its partitions, or until they have answered all of it too.
SESSION: Final = "its session is over"
ANSWERED: Final = "all is answered"

#: Seconds within which a worker notices that another has its instance id: it looks every 10.
FENCED_SECONDS: Final = 15.0


def options(delivery: str, *more: str) -> tuple[str, ...]:
    return ("--delivery", delivery, "--poll-records", str(POLL), *more)


def committed(worker: FaultyWorker) -> int:
    """Return how many records the worker has answered and committed."""
    return sum(int(event["records"]) for event in worker.events("commit"))


def pass_by(crowd: Sequence[FaultyWorker]) -> None:
    """Let all get partitions, answer something, and leave one after the other."""
    wait_for(lambda: all(map(committed, crowd)))
    for worker in crowd:
        worker.terminate()
        assert worker.end() == ExitCode.DRAINED


@pytest.mark.faults
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_storm_of_rebalances(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, *, static: bool
) -> None:
    """Five workers join one that stays and leave again, twice, while requests flow: no partition is left behind."""
    members = "static members" if static else "workers"
    row = matrix.row("F4", f"{CROWD} {members} join and leave, {ROUNDS} times", delivery)

    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(kafka, partitions=8))

        def start(name: str) -> FaultyWorker:
            identity = ("--instance-id", name) if static else ()
            return FaultyWorker(ledger, tmp_path, *options(delivery, *identity), forward_seconds=FORWARD)

        steady = stack.enter_context(start("steady"))
        wait_for(lambda: len(steady.partitions) == 8)
        with ledger.traffic(per_second=200):
            for _ in range(ROUNDS):
                with contextlib.ExitStack() as crowd:
                    pass_by([crowd.enter_context(start(f"crowd-{number}")) for number in range(CROWD)])
        wait_for(lambda: len(steady.partitions) == 8)
        # Each join and each leave takes its partitions from members that may just have published a poll of them.
        row.judge(ledger, repeated=ROUNDS * 2 * CROWD * POLL)
        # Partitions were taken from the one that stays, and came back.
        assert any(event["lost"] for event in steady.events("rebalance"))


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize(
    ("point", "until"),
    [
        (MID_BATCH, ANSWERED),
        pytest.param(PUBLISHED, SESSION, marks=pytest.mark.faults),
        pytest.param(PUBLISHED, ANSWERED, marks=pytest.mark.faults),
    ],
)
def test_a_worker_is_frozen_beyond_its_session(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, *, point: str, until: str
) -> None:
    """What it had begun is another's: it commits nothing of it, joins again, and works on.

    Where it had sent its offsets in a transaction, the group waits for the end of that, which the broker makes after
    the transaction's time: until then the worker may still end it, as nobody else has answered.
    """
    row = matrix.row("F5", f"SIGSTOP {point.replace('_', ' ')}, until {until}", delivery)
    seconds = 3 if until == ANSWERED else 30
    own = {"NLP_WORKER_KAFKA__PRODUCER__TRANSACTION_TIMEOUT_MS": str(1_000 * seconds)}
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(kafka))
        zombie = stack.enter_context(
            FaultyWorker(ledger, tmp_path, *options(delivery), faults=f"{point}:2:stop", forward_seconds=FORWARD, **own)
        )
        wait_for(lambda: len(zombie.partitions) == 4)
        ledger.send(200)
        zombie.wait_until_stopped()
        other = stack.enter_context(FaultyWorker(ledger, tmp_path, *options(delivery)))
        wait_for(lambda: len(other.partitions) == 4)
        if until == ANSWERED:
            ledger.wait_for(200, other)
        before = committed(zombie)
        zombie.thaw()
        wait_for(lambda: [len(worker.partitions) for worker in (zombie, other)] == [2, 2])
        ledger.send(200)
        row.judge(ledger, repeated=POLL)
        assert any(len(event["lost"]) == 4 for event in zombie.events("rebalance"))
        if delivery == AT_LEAST_ONCE and point == PUBLISHED:
            assert zombie.events("commit_lost") + zombie.events("commit_later")
        if delivery == EXACTLY_ONCE and (point, until) == (PUBLISHED, ANSWERED):
            assert zombie.events("transaction_failed")
        # Beyond the two polls that it had in flight.
        assert committed(zombie) > before + 2 * POLL


@pytest.mark.faults
@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("per_second", [0, 200], ids=["idle", "busy"])
def test_two_workers_have_one_instance_id(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, per_second: int
) -> None:
    """The old one ends as fenced, soon, and even if there is nothing to do; the new one goes on.

    Under exactly-once they have one transactional id too. No other members of a group can: it is made of the instance
    id, and of random numbers where there is none.
    """
    row = matrix.row("F6", f"a second worker with the same instance id, {per_second} requests a second", delivery)
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(kafka))

        def start() -> FaultyWorker:
            return stack.enter_context(FaultyWorker(ledger, tmp_path, *options(delivery, "--instance-id", "one")))

        old = start()
        ledger.send(100)
        wait_for(lambda: committed(old) == 100)
        with ledger.traffic(per_second) if per_second else contextlib.nullcontext():
            new = start()
            wait_for(lambda: new.partitions)
            assert old.end(timeout=FENCED_SECONDS) == ExitCode.FENCED
        ledger.send(100)
        row.judge(ledger, repeated=POLL if per_second else 0)
        assert new.process.poll() is None


@pytest.mark.faults
@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_batch_takes_longer_than_the_poll_interval(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """The control loop polls while the device computes: the group never hears of it."""
    row = matrix.row("F12", "batches of 4 s, max.poll.interval.ms of 2.5 s", delivery)
    interval = {"NLP_WORKER_KAFKA__CONSUMER__MAX_POLL_INTERVAL_MS": "2500"}
    with (
        Ledger(kafka) as ledger,
        FaultyWorker(ledger, tmp_path, *options(delivery), forward_seconds=4.0, **interval) as worker,
    ):
        wait_for(lambda: len(worker.partitions) == 4)
        joined = len(worker.events("rebalance"))
        began = time.monotonic()
        ledger.send(2 * POLL)
        row.judge(ledger)
        assert time.monotonic() - began > 2 * 4.0
        assert len(worker.events("rebalance")) == joined
