"""F17: a worker whose clock is set while it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from faults.harness import FaultyWorker
from faults.letters import Letters
from faults.matrix import DELIVERIES
from nlp_schemas import ErrorCode

if TYPE_CHECKING:
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

#: Requests a second, and of each kind.
PER_SECOND: Final = 200
REQUESTS: Final = 400

#: Milliseconds that a request may wait: above what the test takes, below what the clock jumps.
MINUTES: Final = 600_000


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("way", ["ahead", "back"])
def test_the_clock_jumps_an_hour(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, way: str) -> None:
    """Only what has a deadline sees it: sessions, transactions and everything else that lasts goes on as before."""
    row = matrix.row("F17", f"the worker's clock jumps an hour {way}", delivery)
    options = ("--delivery", delivery)
    with Letters(kafka) as ledger, FaultyWorker(ledger, tmp_path, *options, faults=f"after_poll:3:{way}") as worker:
        with ledger.traffic(PER_SECOND):
            ledger.wait_for(REQUESTS, worker)
            ledger.send(1, timeout_ms=MINUTES)
            ledger.wait_for(2 * REQUESTS, worker)
        row.judge(ledger)
        assert ledger.codes == ({ErrorCode.DEADLINE_EXCEEDED: 1} if way == "ahead" else {})
        assert worker.events("rebalance")[1:] == []
        assert worker.events("publish_failed") == worker.events("transaction_failed") == []
