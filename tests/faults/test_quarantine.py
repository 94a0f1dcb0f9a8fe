"""A record that ends the process does so a few times, and kills of healthy workers are nobody's fault."""

from __future__ import annotations

import contextlib
import functools
import random
import signal
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from clients import wait_for
from faults.background import Background
from faults.crashing_worker import CrashingWorker
from faults.harness import LOOK_SECONDS
from faults.letters import Letters
from faults.matrix import DELIVERIES
from nlp_schemas import ErrorCode
from nlp_worker.errors import ExitCode
from nlp_worker.quarantine import MAX_ATTEMPTS, SUSPICIOUS_STARTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.harness import FaultyWorker
    from faults.ledger import Ledger
    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("delivery", DELIVERIES),
]

#: Of a poll: what an end of the process may repeat, and a third of what runs alone once a partition is a suspect.
POLL_RECORDS: Final = 16

#: Requests a second.
PER_SECOND: Final = 100

#: One start that had finished something before, the starts that are marked, and the attempts alone.
MOST_ENDS: Final = 1 + SUSPICIOUS_STARTS + MAX_ATTEMPTS

#: Seconds for a record to be quarantined: some ends, each with a start of the process and a session's end.
QUARANTINE_SECONDS: Final = 120.0

#: A text that ends the process, and how it does.
ENDING: Final = {
    "crash in forward": -signal.SIGSEGV,
    "crash in preprocess": -signal.SIGSEGV,
    "stand still": ExitCode.STUCK,
}

#: What the two workers are. A static one has its partitions back as soon as it is started again; those of a dynamic one
#: go to the other when its session is over, and back when the group has it again.
STATIC: Final = "static"
DYNAMIC: Final = "dynamic"
CASES: Final = [*((text, STATIC) for text in ENDING), ("crash in forward", DYNAMIC), ("stand still", DYNAMIC)]

#: Of healthy workers.
KILLS: Final = 20

#: A record that stands still does so for seconds; what a killed worker left open in a transaction ends as soon.
SOON: Final[dict[str, Any]] = {
    "NLP_WORKER_STUCK_SECONDS": "2",
    "NLP_WORKER_KAFKA__PRODUCER__TRANSACTION_TIMEOUT_MS": "5000",
}


class Supervised(Background):
    """Starts a worker again whenever it has ended, as an orchestrator does, for as long as the block lasts."""

    def __init__(self, start: Callable[[], FaultyWorker]) -> None:
        super().__init__()
        self._start = start
        self.worker = start()
        self.ended: list[FaultyWorker] = []

    def close(self) -> None:
        self.worker.kill()

    def wait_until_ready(self) -> None:
        """Return when the present worker lives, and is about to poll or further."""
        wait_for(lambda: self.worker.process.poll() is None and self.worker.events("ready"))

    def run(self) -> None:
        while not self.stopping.wait(LOOK_SECONDS):
            if self.worker.process.poll() is not None:
                ended, self.worker = self.worker, self._start()
                self.ended.append(ended)


@pytest.mark.parametrize("case", CASES, ids=" of ".join)
def test_a_record_that_ends_the_process(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, case: tuple[str, str]
) -> None:
    """It is answered `quarantined` once, after a few ends of two workers, and all others as ever."""
    text, members = case
    row = matrix.row("F2", f"a record that ends the process, {members} members: {text}", delivery)
    with Letters(kafka) as ledger, contextlib.ExitStack() as stack:
        both = supervised_pair(stack, ledger, tmp_path, delivery, members)
        with ledger.traffic(PER_SECOND):
            ledger.wait_for(PER_SECOND)
            ledger.send(1, inputs=text)
            wait_for(lambda: any(one.ended for one in both))
        ledger.wait_for(len(ledger.acknowledged), seconds=QUARANTINE_SECONDS)
        ended = [worker for one in both for worker in one.ended]
        row.judge(ledger, repeated=len(ended) * POLL_RECORDS)
        assert ledger.codes == {ErrorCode.QUARANTINED: 1}
        ((reason,),) = ledger.letters.values()
        assert (reason.code, reason.attempt) == (ErrorCode.QUARANTINED, MAX_ATTEMPTS)
        assert {worker.process.returncode for worker in ended} == {ENDING[text]}
        assert len(ended) <= MOST_ENDS
        if ENDING[text] == ExitCode.STUCK:
            assert all("in forward" in worker.log() for worker in ended)


def test_kills_of_healthy_workers_quarantine_nothing(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str
) -> None:
    """One of two, again and again, at random times: what they finish in between clears their marks."""
    row = matrix.row("F2", f"SIGKILL of one of two healthy workers, {KILLS} times", delivery)
    chance = random.Random(8)  # noqa: S311 - a fault's times, not a secret
    with Letters(kafka) as ledger, contextlib.ExitStack() as stack:
        # Batches take so long that there is always one in flight.
        both = supervised_pair(stack, ledger, tmp_path, delivery, STATIC, FORWARD_SECONDS="0.05")
        with ledger.traffic(PER_SECOND):
            for number in range(KILLS):
                both[number % 2].wait_until_ready()
                # Nothing is waited for: the time is the fault.
                time.sleep(chance.random())
                both[number % 2].worker.kill()
        row.judge(ledger, repeated=KILLS * POLL_RECORDS)
        killed = [worker for one in both for worker in one.ended]
        assert len(killed) == KILLS
        assert any(worker.events("commit") for worker in killed)
        assert (ledger.codes, ledger.letters) == ({}, {})


def supervised_pair(
    stack: contextlib.ExitStack, ledger: Ledger, folder: Path, delivery: str, members: str, **environment: str
) -> list[Supervised]:
    """Start two workers, and return when each has its part of the partitions."""
    options = ("--delivery", delivery, "--poll-records", str(POLL_RECORDS))
    identities = [("--instance-id", name) if members == STATIC else () for name in ("one", "two")]
    start = functools.partial(CrashingWorker, ledger, folder, *options, **SOON | environment)
    both = [stack.enter_context(Supervised(functools.partial(start, *identity))) for identity in identities]
    wait_for(lambda: [len(one.worker.partitions) for one in both] == [2, 2])
    return both
