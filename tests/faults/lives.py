"""A worker's whole life, from its start to its drain, while some of its requests are hurt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kafka.protocol.api_key import ApiKey

from clients import wait_for
from faults.harness import FaultyWorker
from faults.matrix import AT_LEAST_ONCE, EXACTLY_ONCE

if TYPE_CHECKING:
    from pathlib import Path

    from faults.ledger import Ledger
    from faults.proxied_kafka import ProxiedKafka
    from faults.rules import Rule

#: What a worker asks under either delivery. Only a group without offsets asks for ListOffsets: the first life. A
#: LeaveGroup that does not arrive makes the next life wait for the end of a session: it comes last.
_SHARED: Final = [
    ApiKey.ListOffsets,
    ApiKey.Metadata,
    ApiKey.FindCoordinator,
    ApiKey.InitProducerId,
    ApiKey.JoinGroup,
    ApiKey.SyncGroup,
    ApiKey.OffsetFetch,
    ApiKey.OffsetCommit,
    ApiKey.Fetch,
    ApiKey.Produce,
    ApiKey.Heartbeat,
]
_TRANSACTIONAL: Final = [
    ApiKey.AddPartitionsToTxn,
    ApiKey.AddOffsetsToTxn,
    ApiKey.TxnOffsetCommit,
    ApiKey.EndTxn,
]
APIS: Final = {
    AT_LEAST_ONCE: [*_SHARED, ApiKey.LeaveGroup],
    EXACTLY_ONCE: [*_SHARED, *_TRANSACTIONAL, ApiKey.LeaveGroup],
}

#: Requests of one life, and of one poll: a life has four polls or more, one for each error of an API.
REQUESTS: Final = 80
POLL_RECORDS: Final = 20


def live(kafka: ProxiedKafka, ledger: Ledger, folder: Path, delivery: str, *rules: Rule, **environment: Any) -> None:
    """Let a worker answer some requests and drain; each rule must have hurt it."""
    for rule in rules:
        kafka.proxy.add(rule)
    ledger.send(REQUESTS)
    options = ("--delivery", delivery, "--poll-records", str(POLL_RECORDS))
    servers = kafka.proxied.bootstrap_servers
    with FaultyWorker(ledger, folder, *options, servers=servers, **environment) as worker:
        try:
            ledger.wait_for(len(ledger.acknowledged), worker)
            # It is idle now, and says by and by what it says now and then; the last word is LeaveGroup.
            wait_for(lambda: all(rule.fired or rule.api is ApiKey.LeaveGroup for rule in rules))
            worker.terminate()
            assert worker.end() == 0
            assert all(rule.fired for rule in rules)
        except AssertionError as error:
            error.add_note(f"{rules}; the worker's log ends with {worker.log()[-2_000:]}")
            raise
    kafka.proxy.heal()
