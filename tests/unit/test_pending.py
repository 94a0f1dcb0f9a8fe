"""Which answer settles which request, whatever comes first."""

from __future__ import annotations

import json
import math
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

import pytest

from fakes import RESULTS, FakeRecord
from nlp_schemas import ErrorCode, Source
from nlp_worker.pending import AnswerTimeoutError, ClientClosedError, Pending, RequestFailedError, Waiting

TOPIC = "nlp.text-classification.requests"
HERE = Source(topic=TOPIC, partition=0, offset=7)


def request(*, deadline: float = math.inf) -> Pending:
    return Pending(b"c-1", "r-1", 5.0, deadline)


def answer(
    *,
    correlation: bytes = b"c-1",
    source: Source = HERE,
    id: str = "r-1",  # noqa: A002 - the contract's
    **more: Any,
) -> FakeRecord:
    value = {"id": id, "task": "text-classification", "source": source.model_dump(), "model": None, **more}
    if "error" in more:
        value |= {"status": "error"}
    else:
        model = {"name": "m", "checkpoint": "c", "revision": "r"}
        ok = {"status": "ok", "model": model, "usage": {"input_tokens": 1}, "timing_ms": {"queue": 1, "device": 1}}
        value |= ok | {"outputs": [{"label": "a", "score": 1}]}
    headers = [("mine", None), ("kafka_correlationId", correlation)]
    return FakeRecord(RESULTS, 0, 0, 0, None, json.dumps(value).encode(), headers)


def waiting(*requests: Pending) -> Waiting:
    made = Waiting(lambda pending: pending.fail(ConnectionError("not sent")))
    for each in requests:
        made.add(each)
        each.future.add_done_callback(partial(_discard, made, each))
    return made


def _discard(client: Waiting, pending: Pending, _: object) -> None:
    client.discard(pending)


@pytest.mark.parametrize("told_first", [True, False])
def test_an_answer_settles_its_request(*, told_first: bool) -> None:
    """Whether the broker tells first where the request is, or the worker answers first."""
    pending = request()
    client = waiting(pending)
    if told_first:
        client.sent(pending, HERE)
    client.take(answer())
    if not told_first:
        assert not pending.future.done()
        client.sent(pending, HERE)
    assert pending.future.result(0).id == "r-1"


@pytest.mark.parametrize(
    "other",
    [
        answer(correlation=b"c-2"),
        answer(id="r-2"),
        answer(source=HERE.model_copy(update={"offset": 8})),
        answer(source=HERE.model_copy(update={"partition": 1})),
        answer()._replace(value=b"{"),
        answer()._replace(value=None),
        answer()._replace(headers=[]),
    ],
    ids=["correlation", "id", "offset", "partition", "json", "null", "headers"],
)
@pytest.mark.parametrize("told_first", [True, False])
def test_no_other_record_does(other: FakeRecord, *, told_first: bool) -> None:
    """Another producer's answer, that to a copy of the request that was redriven, or what is no answer at all."""
    pending = request()
    client = waiting(pending)
    if told_first:
        client.sent(pending, HERE)
    client.take(other)
    if not told_first:
        client.sent(pending, HERE)
    assert not pending.future.done()
    client.take(answer())
    assert pending.future.result(0).source == HERE


def test_a_request_that_was_sent_twice_and_kept_once_is_settled() -> None:
    """The broker tells -1 as its offset: any of its partition may be it."""
    pending = request()
    client = waiting(pending)
    client.sent(pending, HERE.model_copy(update={"offset": -1}))
    client.take(answer(source=HERE.model_copy(update={"partition": 1})))
    assert not pending.future.done()
    client.take(answer())
    assert pending.future.result(0).source == HERE


def test_an_error_is_raised_with_its_code() -> None:
    """And with the whole answer."""
    pending = request()
    client = waiting(pending)
    client.sent(pending, HERE)
    client.take(answer(error={"code": "input_too_long", "message": "600 tokens"}))
    with pytest.raises(RequestFailedError, match="input_too_long: 600 tokens") as raised:
        pending.future.result(0)
    assert raised.value.code is ErrorCode.INPUT_TOO_LONG
    assert raised.value.answer is not None
    assert raised.value.answer.source == HERE


def test_an_error_settles_whatever_its_id_is() -> None:
    """An id that is none, a number for one, is not echoed: the answer has the record's place."""
    pending = request()
    client = waiting(pending)
    client.sent(pending, HERE)
    client.take(answer(id=f"{TOPIC}-0-7", error={"code": "invalid_request", "message": "id: no string"}))
    with pytest.raises(RequestFailedError, match="invalid_request: id: no string"):
        pending.future.result(0)


def test_a_second_answer_changes_nothing() -> None:
    """At least once, answers may repeat; and one that was cancelled may be answered."""
    first, cancelled = request(), Pending(b"c-2", "r-2", 5.0, math.inf)
    client = waiting(first, cancelled)
    for each in (first, cancelled):
        client.sent(each, HERE)
    cancelled.future.cancel()
    for _ in range(2):
        client.take(answer())
        client.take(answer(correlation=b"c-2", id="r-2"))
        first.settle(first.future.result(0))
        cancelled.settle(first.future.result(0))
    with pytest.raises(CancelledError):
        cancelled.future.result(0)


def test_a_request_whose_time_is_over_fails() -> None:
    """And no other."""
    late, early = request(deadline=-math.inf), Pending(b"c-2", "r-2", 5.0, math.inf)
    client = waiting(late, early)
    client.expire()
    with pytest.raises(AnswerTimeoutError, match="no answer to request r-1 within 5 s"):
        late.future.result(0)
    assert not early.future.done()


def test_a_request_of_which_the_broker_tells_nothing_fails() -> None:
    """Within the time that it has for it, and not one that it has told of."""
    silent, told = request(), Pending(b"c-2", "r-2", 5.0, math.inf)
    client = waiting(silent, told)
    silent.send_deadline = told.send_deadline = -math.inf
    client.sent(told, HERE)
    client.expire()
    assert isinstance(silent.future.exception(0), ConnectionError)
    assert not told.future.done()


def test_at_the_end_all_that_wait_fail_and_none_is_added() -> None:
    """With the first reason that was given."""
    pending = request()
    client = waiting(pending)
    client.end(ClientClosedError("first"))
    client.end(ClientClosedError("second"))
    with pytest.raises(ClientClosedError, match="first"):
        pending.future.result(0)
    with pytest.raises(ClientClosedError, match="the client is closed: first"):
        client.add(request())
