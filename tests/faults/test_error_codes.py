"""F9: the broker tells an error although it did what it was asked, at each kind of request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from kafka import errors
from kafka.protocol.api_key import ApiKey

from faults.ledger import Ledger
from faults.lives import APIS, POLL_RECORDS, live
from faults.matrix import DELIVERIES
from faults.rules import Fail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]

_LOADING: Final = errors.CoordinatorLoadInProgressError
_MOVED: Final = errors.NotCoordinatorError
_AWAY: Final = errors.CoordinatorNotAvailableError
_BUSY: Final = errors.ConcurrentTransactionsError

#: What passes: the same request succeeds later.
PASSING: Final[Mapping[ApiKey, list[Any]]] = {
    ApiKey.ListOffsets: [errors.NotLeaderForPartitionError, errors.LeaderNotAvailableError],
    ApiKey.Metadata: [errors.LeaderNotAvailableError],
    ApiKey.FindCoordinator: [_AWAY, _LOADING],
    # Not those of a coordinator: a producer without transactions has none.
    ApiKey.InitProducerId: [_LOADING, _BUSY],
    ApiKey.JoinGroup: [_LOADING, _MOVED, _AWAY],
    ApiKey.SyncGroup: [errors.RebalanceInProgressError, _MOVED],
    ApiKey.OffsetFetch: [errors.UnstableOffsetCommitError, _LOADING, _MOVED],
    ApiKey.OffsetCommit: [errors.RebalanceInProgressError, _LOADING, _MOVED, _AWAY],
    ApiKey.Fetch: [errors.NotLeaderForPartitionError, errors.ReplicaNotAvailableError],
    ApiKey.Produce: [errors.NotLeaderForPartitionError, errors.NotEnoughReplicasError, errors.RequestTimedOutError],
    ApiKey.Heartbeat: [errors.RebalanceInProgressError, _MOVED, _AWAY],
    ApiKey.AddPartitionsToTxn: [_BUSY, _LOADING, _MOVED],
    ApiKey.AddOffsetsToTxn: [_BUSY, _LOADING, _MOVED],
    ApiKey.TxnOffsetCommit: [_LOADING, _MOVED, errors.RequestTimedOutError],
    ApiKey.EndTxn: [_BUSY, _LOADING, _AWAY],
    ApiKey.LeaveGroup: [_AWAY],
}

#: What does not: the producer is done for, or the member is. Of these the broker did what it was asked all the same.
FINAL: Final[Mapping[ApiKey, list[Any]]] = {
    ApiKey.OffsetCommit: [errors.UnknownMemberIdError, errors.IllegalGenerationError],
    ApiKey.Produce: [errors.OutOfOrderSequenceNumberError, errors.InvalidProducerEpochError],
    ApiKey.Heartbeat: [errors.IllegalGenerationError, errors.UnknownMemberIdError],
    ApiKey.AddPartitionsToTxn: [errors.InvalidProducerEpochError, errors.InvalidTxnStateError],
    ApiKey.AddOffsetsToTxn: [errors.ProducerFencedError, errors.InvalidTxnStateError],
    ApiKey.TxnOffsetCommit: [
        errors.ProducerFencedError,
        errors.UnknownMemberIdError,
        errors.IllegalGenerationError,
    ],
    ApiKey.EndTxn: [errors.ProducerFencedError, errors.InvalidProducerEpochError, errors.InvalidTxnStateError],
}


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_an_error_that_passes(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """Each twice, at each API: what is repeated because of it is still there once."""
    row = matrix.row("F9", "errors that pass, at each API", delivery)
    with Ledger(kafka) as ledger:
        for api in APIS[delivery]:
            live(kafka, ledger, tmp_path, delivery, *(Fail(api, error, times=2) for error in PASSING[api]))
        row.judge(ledger)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_an_error_that_does_not_pass(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """A producer is replaced, and a member joins anew: the worker lives on, and a poll at most is repeated."""
    row = matrix.row("F9", "errors that do not pass, of producer and member", delivery)
    failures = {api: [Fail(api, error) for error in FINAL[api]] for api in APIS[delivery] if api in FINAL}
    with Ledger(kafka) as ledger:
        for rules in failures.values():
            live(kafka, ledger, tmp_path, delivery, *rules)
        row.judge(ledger, repeated=sum(map(len, failures.values())) * POLL_RECORDS)
