"""F16: transactions that time out, that are aborted, and whose end nobody knows.

Only exactly once has them. At each step: what is committed is answered.
"""

from __future__ import annotations

import contextlib
import threading
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from kafka import KafkaAdminClient, errors
from kafka.protocol.api_key import ApiKey

from clients import PATIENCE
from faults.harness import FaultyWorker
from faults.ledger import Ledger
from faults.matrix import EXACTLY_ONCE
from faults.reading import LOOK_SECONDS, partitions
from faults.rules import Fail, Hold
from faults.verdict import Source
from nlp_worker.transactions import CALL_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

#: Milliseconds. The broker looks every 10 s for transactions that are older than theirs: until then, and not shorter,
#: a producer shall wait for the answer that is held.
TIMED_OUT: Final = {
    "NLP_WORKER_KAFKA__PRODUCER__TRANSACTION_TIMEOUT_MS": "3000",
    "NLP_WORKER_KAFKA__PRODUCER__REQUEST_TIMEOUT_MS": "18000",
    "NLP_WORKER_KAFKA__PRODUCER__DELIVERY_TIMEOUT_MS": "18000",
}

#: A producer that gives up before the broker does.
IMPATIENT: Final = {"NLP_WORKER_KAFKA__PRODUCER__REQUEST_TIMEOUT_MS": "2000"}

#: Seconds for a worker to notice, beyond the deadline itself, on a machine with other things to do.
GRACE: Final = 5.0

#: Seconds between the commit markers of offsets and of answers, at most; and of a batch where answers shall be missing.
MARKERS_SECONDS: Final = 4.0
SLOW_SECONDS: Final = 8.0

REQUESTS: Final = 100


def worker_of(kafka: ProxiedKafka, ledger: Ledger, folder: Path, *options: str, **more: Any) -> FaultyWorker:
    """Behind the proxy, and exactly once."""
    servers = kafka.proxied.bootstrap_servers
    return FaultyWorker(ledger, folder, "--delivery", EXACTLY_ONCE, *options, servers=servers, **more)


def committed(ledger: Ledger) -> set[Source]:
    """Return the requests below the group's committed offsets; what an open transaction will commit is not yet."""
    asked = ConsumerGroupTopicPartitions(ledger.prefix, partitions(ledger._admin, [ledger.requests]))
    (listed,) = ledger._admin.list_consumer_group_offsets([asked]).values()
    return {
        Source(part.topic, part.partition, offset)
        for part in listed.result().topic_partitions
        for offset in range(part.offset)
    }


def follow(ledger: Ledger, until: Callable[[], object]) -> None:
    """Wait, and see at each step that what is committed is answered, for readers with read_committed."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, f"{ledger.answered} answers"
        # Each partition has a commit marker of its own, the answers' perhaps a little later.
        passed = committed(ledger)
        answered_by = time.monotonic() + MARKERS_SECONDS
        while not are_answered(ledger, passed):
            assert time.monotonic() < answered_by, f"{sorted(passed - ledger._answered)} committed, not answered"
            time.sleep(LOOK_SECONDS)


def are_answered(ledger: Ledger, requests: set[Source]) -> bool:
    return ledger.answered >= len(requests) and requests <= ledger._answered


def states(ledger: Ledger) -> list[str]:
    """Return the states of the workers' transactions, as their coordinator has them."""
    with contextlib.closing(KafkaAdminClient(**ledger.client)) as admin:
        (listed,) = admin.list_transactions().values()
    return [one.state.value for one in listed if one.transactional_id.startswith(ledger.prefix)]


def failed(worker: FaultyWorker) -> list[dict[str, Any]]:
    return worker.events("transaction_failed")


@pytest.mark.parametrize("api", [ApiKey.Produce, ApiKey.TxnOffsetCommit, ApiKey.EndTxn], ids=attrgetter("name"))
def test_a_transaction_takes_longer_than_its_time(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, api: ApiKey
) -> None:
    """The broker aborts it while one of its requests is held: nothing of it is there, until it is made once more."""
    row = matrix.row("F16", f"{api.name} is held until the broker has aborted the transaction", EXACTLY_ONCE)
    with Ledger(kafka) as ledger, worker_of(kafka, ledger, tmp_path, **TIMED_OUT) as worker:
        held = kafka.proxy.add(Hold(api))
        ledger.send(REQUESTS)
        held.wait()
        assert states(ledger) == ["Ongoing"]
        follow(ledger, lambda: states(ledger) == ["CompleteAbort"])
        assert (ledger.answered, committed(ledger), failed(worker)) == (0, set(), [])
        held.release()
        follow(ledger, lambda: ledger.answered == REQUESTS)
        assert failed(worker)
        ledger.send(REQUESTS)
        row.judge(ledger)


@pytest.mark.parametrize("obeyed", [True, False], ids=["answer", "request"])
def test_the_end_of_a_transaction_is_unknown(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, *, obeyed: bool
) -> None:
    """Three times: the request was obeyed and its answer is held; or it is held itself, and comes when all is over."""
    what = "the answer to EndTxn" if obeyed else "EndTxn itself"
    row = matrix.row("F16", f"{what} is held beyond the producer's patience", EXACTLY_ONCE)
    with (
        Ledger(kafka) as ledger,
        worker_of(kafka, ledger, tmp_path, "--poll-records", "40", **IMPATIENT) as worker,
    ):
        held = kafka.proxy.add(Hold(ApiKey.EndTxn, times=3, response=obeyed))
        ledger.send(REQUESTS)
        follow(ledger, lambda: ledger.answered == REQUESTS and held.fired == len(failed(worker)) == 3)
        held.release()
        ledger.send(REQUESTS)
        row.judge(ledger)


@pytest.mark.parametrize(
    "api", [ApiKey.AddPartitionsToTxn, ApiKey.AddOffsetsToTxn, ApiKey.EndTxn], ids=attrgetter("name")
)
def test_the_coordinator_goes_while_it_is_asked(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, api: ApiKey
) -> None:
    """B2: kafka-python's own call may never return; the worker's does, within its deadline."""
    row = matrix.row("F16", f"all connections are refused for 2 s when {api.name} is due", EXACTLY_ONCE)
    with Ledger(kafka) as ledger, worker_of(kafka, ledger, tmp_path) as worker:
        held = kafka.proxy.add(Hold(api))
        ledger.send(REQUESTS)
        held.wait()
        kafka.proxy.refuse()
        began = time.monotonic()
        threading.Timer(2.0, kafka.proxy.accept).start()
        follow(ledger, lambda: failed(worker) or ledger.answered == REQUESTS)
        assert time.monotonic() - began < CALL_DEADLINE + GRACE
        follow(ledger, lambda: ledger.answered == REQUESTS)
        row.judge(ledger)


def test_what_was_aborted_is_not_committed_by_the_next(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix) -> None:
    """B1: the group refuses a transaction over four partitions, and two of them become another member's meanwhile."""
    row = matrix.row("F16", "a transaction is refused until half of its partitions are another's", EXACTLY_ONCE)
    with (
        Ledger(kafka) as ledger,
        worker_of(kafka, ledger, tmp_path) as worker,
        contextlib.ExitStack() as stack,
    ):
        refused = kafka.proxy.add(Fail(ApiKey.TxnOffsetCommit, errors.IllegalGenerationError, times=None))
        ledger.send(REQUESTS)
        refused.wait()
        # Around the proxy, and slow: what it has is not committed by itself for a while.
        other = stack.enter_context(
            FaultyWorker(ledger, tmp_path, "--delivery", EXACTLY_ONCE, forward_seconds=SLOW_SECONDS)
        )
        follow(ledger, lambda: len(other.partitions) == len(worker.partitions) == 2)
        refused.remove()
        follow(ledger, lambda: ledger.answered == REQUESTS)
        row.judge(ledger)
