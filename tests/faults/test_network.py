"""F8: each kind of request is lost, or its answer is, or it comes late: every answer is there, and once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from faults.ledger import Ledger
from faults.lives import APIS, live
from faults.matrix import DELIVERIES
from faults.rules import CutAfter, CutBefore, Delay

if TYPE_CHECKING:
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

#: Requests come 3 s late, several of them one behind the other on a connection: heartbeats do too, and no session may
#: end over it.
PATIENT_GROUP: Final = {"NLP_WORKER_KAFKA__CONSUMER__SESSION_TIMEOUT_MS": "30000"}


CUTS: Final = {
    CutBefore: "the connection is cut before the request arrives, at each API",
    CutAfter: "the request is obeyed and its answer lost, at each API",
}


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.parametrize("cut", CUTS)
def test_the_connection_is_cut_at_each_api(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, cut: type[CutBefore | CutAfter], delivery: str
) -> None:
    """A worker's life for each API, in which it happens twice: no life ends early, and nothing is answered twice."""
    row = matrix.row("F8", CUTS[cut], delivery)
    with Ledger(kafka) as ledger:
        for api in APIS[delivery]:
            live(kafka, ledger, tmp_path, delivery, cut(api, times=2))
        row.judge(ledger)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_each_api_is_slow(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """In one life: each kind of request is 3 s late once."""
    row = matrix.row("F8", "3 s latency, at each API", delivery)
    with Ledger(kafka) as ledger:
        live(kafka, ledger, tmp_path, delivery, *(Delay(api, 3.0) for api in APIS[delivery]), **PATIENT_GROUP)
        row.judge(ledger)
