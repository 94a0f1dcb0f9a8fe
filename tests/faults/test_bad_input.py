"""Records that cannot be answered with outputs, and topics that do not take what is written: one answer each."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from clients import admin, wait_for
from faults.crashing_worker import CrashingWorker
from faults.harness import FaultyWorker
from faults.letters import Letters
from faults.matrix import DELIVERIES
from nlp_schemas import MAX_TEXT_CHARACTERS, ErrorCode, ValueOmitted
from nlp_worker.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from faults.matrix import Matrix
    from faults.proxied_kafka import ProxiedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300), pytest.mark.parametrize("delivery", DELIVERIES)]

#: Good requests before and behind each bad one.
NEIGHBOURS: Final = 20

#: Of a poll, where one is repeated.
POLL_RECORDS: Final = 64

#: Requests a second: what a worker answers while something is done to its topics.
PER_SECOND: Final = 100

#: Bytes that a topic takes when its limit has been lowered: many answers, but not `LONG`.
LOWERED: Final = 20_000

#: A text whose answer, which has it as the label, and whose dead letter are above that.
LONG: Final = "long " * 5_000

#: Of what a request is answered with an error for.
Poison = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]

#: By name, each with its value, key and headers.
POISON: Final[dict[str, Poison]] = {
    "bad JSON": (b'{"id": "r-1", "inputs"', b"k-0", []),
    "no JSON": (b"\x00\x01", b"k-0", []),
    "nothing": (b"", b"k-0", []),
    "wrong schema": (b'{"id": "wrong", "inputs": 5, "more": true}', b"k-0", []),
    "several texts": (b'{"inputs": ["one", "two"]}', b"k-1", []),
    "unknown model": (b'{"inputs": "text", "model": "other"}', b"k-1", []),
    "null": (None, b"k-1", []),
    "null without a key": (None, None, []),
    "huge text": (json.dumps({"inputs": "x" * (MAX_TEXT_CHARACTERS + 1)}).encode(), b"k-2", []),
    "no UTF-8": (b'{"inputs": "\xff\xfe"}', b"\xff\xfe", []),
    "nested": (b'{"inputs": ' + b"[" * 500 + b"]" * 500 + b"}", b"k-3", []),
    "bytes in headers": (b"{", b"k-3", [("traceparent", b"\xff\xfe"), ("nlp-dead-letter-code", b"\x00")]),
}

#: A text over which the model fails with this code.
FAILING: Final = {ErrorCode.INFERENCE_FAILED: "fail in forward", ErrorCode.OUT_OF_MEMORY: "run out of memory"}

#: The client's own time-outs would be the test's time: a topic that is missing is told of in seconds, not in minutes.
SOON: Final[dict[str, Any]] = {
    "NLP_WORKER_KAFKA__PRODUCER__MAX_BLOCK_MS": "1000",
    "NLP_WORKER_KAFKA__PRODUCER__REQUEST_TIMEOUT_MS": "1000",
    "NLP_WORKER_KAFKA__PRODUCER__DELIVERY_TIMEOUT_MS": "2000",
}


def test_records_that_cannot_be_read(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """One error answer and one dead letter each, whatever the bytes are; what stands around them is answered."""
    row = matrix.row("F10", f"{len(POISON)} records that cannot be read", delivery)
    with Letters(kafka) as ledger, FaultyWorker(ledger, tmp_path, "--delivery", delivery) as worker:
        for value, key, headers in POISON.values():
            ledger.send(NEIGHBOURS)
            ledger.send_value(value, key, headers)
        ledger.send(NEIGHBOURS)
        row.judge(ledger)
        assert ledger.codes == {ErrorCode.INVALID_REQUEST: len(POISON) - 1, ErrorCode.UNKNOWN_MODEL: 1}
        assert [len(reasons) for reasons in ledger.letters.values()] == [1] * len(POISON)
        assert ledger.answered == len(ledger.acknowledged)
        assert worker.process.poll() is None


@pytest.mark.parametrize("code", FAILING)
def test_the_model_fails_over_one_of_many(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, code: ErrorCode
) -> None:
    """The batch is halved until it is alone; where memory was short, later batches are smaller."""
    row = matrix.row("F14", f"{code} over one request of many", delivery)
    with Letters(kafka, partitions=1) as ledger:
        ledger.send(NEIGHBOURS)
        ledger.send(1, inputs=FAILING[code])
        ledger.send(NEIGHBOURS)
        with CrashingWorker(ledger, tmp_path, "--delivery", delivery) as worker:
            row.judge(ledger)
        assert ledger.codes == {code: 1}
        ((reason,),) = ledger.letters.values()
        assert (reason.code, reason.stage) == (code, "forward")
        assert worker.events("batch")[0]["rows"] == 2 * NEIGHBOURS + 1
        assert bool(worker.events("batch_tokens_changed")) == (code == ErrorCode.OUT_OF_MEMORY)


def test_a_topic_takes_less_than_before(kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str) -> None:
    """An answer and a dead letter are refused by the broker: both become what the topic takes, beside the others."""
    row = matrix.row("F11", "an answer and a dead letter that the broker refuses as too large", delivery)
    options = ("--delivery", delivery, "--poll-records", str(POLL_RECORDS))
    with Letters(kafka) as ledger, FaultyWorker(ledger, tmp_path, *options) as worker:
        with ledger.traffic(PER_SECOND):
            ledger.wait_for(PER_SECOND, worker)
            lower_limit(kafka, ledger.results)
            ledger.send(1, inputs=LONG)
            wait_for(lambda: len(worker.events("request_failed")) == 1)
            lower_limit(kafka, ledger.dead_letters)
            ledger.send(1, inputs=LONG, parameters="none")
            wait_for(lambda: len(worker.events("request_failed")) == 2)
            # Both limits are known by now.
            ledger.send(1, inputs=LONG)
            ledger.wait_for(ledger.answered + PER_SECOND, worker)
        row.judge(ledger, repeated=2 * POLL_RECORDS)
        assert len(worker.events("limit_changed")) == 2
        assert ledger.codes == {ErrorCode.RESULT_TOO_LARGE: 2, ErrorCode.INVALID_REQUEST: 1}
        omitted = [reasons[-1].value_omitted for reasons in ledger.letters.values()]
        assert sorted(map(str, omitted)) == ["None", ValueOmitted.TOO_LARGE, ValueOmitted.TOO_LARGE]


def lower_limit(kafka: ProxiedKafka, topic: str) -> None:
    """Let the topic take less than it does."""
    limit = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": str(LOWERED)})
    with admin(kafka) as administrator:
        administrator.alter_configs([limit])


@pytest.mark.faults
@pytest.mark.parametrize("ends", [False, True], ids=["returns", "stays-away"])
def test_dead_letters_have_no_topic(
    kafka: ProxiedKafka, tmp_path: Path, matrix: Matrix, delivery: str, *, ends: bool
) -> None:
    """Nothing is committed while a dead letter cannot be written; the worker goes on, or its successor does."""
    row = matrix.row(
        "F17",
        f"the dead letters' topic is deleted, {'longer than' if ends else 'for less than'} publishing may take",
        delivery,
    )
    options = ("--delivery", delivery, "--poll-records", str(POLL_RECORDS))
    patience: dict[str, Any] = {"PUBLISH_SECONDS": "10"} if ends else {}
    with Letters(kafka) as ledger, contextlib.ExitStack() as stack:
        worker: FaultyWorker = stack.enter_context(CrashingWorker(ledger, tmp_path, *options, **SOON, **patience))
        with ledger.traffic(PER_SECOND):
            ledger.wait_for(PER_SECOND, worker)
            with admin(kafka) as administrator:
                administrator.delete_topics([ledger.dead_letters])
            ledger.send_value(b"{")
            wait_for(lambda: failures(worker))
            commits = len(worker.events("commit"))
            if ends:
                assert worker.end() == ExitCode.TOPICS
                assert f"topic {ledger.dead_letters} does not exist" in worker.log().splitlines()[-1]
            else:
                wait_for(lambda: len(failures(worker)) > 2)
            assert len(worker.events("commit")) == commits
            kafka.create_topic(ledger.dead_letters, 4)
            if ends:
                worker = stack.enter_context(FaultyWorker(ledger, tmp_path, *options))
            ledger.wait_for(ledger.answered + PER_SECOND, worker)
        row.judge(ledger, repeated=POLL_RECORDS)
        assert ledger.codes == {ErrorCode.INVALID_REQUEST: 1}


def failures(worker: FaultyWorker) -> list[dict[str, Any]]:
    """Return what the worker has logged of answers that it could not publish."""
    return worker.events("publish_failed") + worker.events("transaction_failed")
