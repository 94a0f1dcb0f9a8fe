"""What a request says in its headers: where its answer goes, and whether it is a CloudEvent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes import REQUESTS, RESULTS, Bench
from nlp_schemas import AnswerHeaders, DeadLetter

if TYPE_CHECKING:
    from nlp_worker.poll import Message

Headers = list[tuple[str, bytes | None]]

EVENT: Headers = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"e-1"),
    ("ce_source", b"/shop"),
    ("ce_type", b"review.written"),
    ("ce_time", b"2026-11-26T10:00:00Z"),
]


def answered(value: object, headers: Headers) -> list[Message]:
    """Return what is published for a request."""
    bench = Bench()
    bench.kafka.send(value, headers=headers)
    bench.settle()
    assert bench.kafka.committed == dict.fromkeys(bench.kafka.logs, 1)
    return bench.publisher.messages


def refused(headers: Headers) -> str:
    """Return what the error answer to a good request with these headers says; it has a dead letter."""
    letter, answer = answered({"id": "r-1", "inputs": "x"}, headers)
    told = json.loads(answer.value or b"")
    assert (answer.topic, told["id"], told["error"]["code"]) == (RESULTS, "r-1", "invalid_request")
    assert DeadLetter.from_headers(letter.headers).stage == "decode"
    assert letter.headers[: len(headers)] == headers
    message: str = told["error"]["message"]
    return message


@pytest.mark.parametrize("value", [{"inputs": "x"}, {"inputs": 5}, b"{"], ids=["ok", "field", "json"])
@pytest.mark.parametrize("partition", [None, 2])
def test_an_answer_goes_where_its_request_wants_it(value: object, partition: int | None) -> None:
    """An error too, with the request's key and correlation id; its dead letter goes where all go."""
    headers: Headers = [("kafka_replyTopic", b"replies"), ("kafka_correlationId", b"\xff\x00")]
    if partition is not None:
        headers.append(("kafka_replyPartition", partition.to_bytes(4)))
    *letters, answer = answered(value, headers)
    assert (answer.topic, answer.partition, answer.key) == ("replies", partition, b"k")
    assert ("kafka_correlationId", b"\xff\x00") in answer.headers
    assert all(letter.topic.endswith("dead-letter") and letter.partition is None for letter in letters)


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (
            [("kafka_replyTopic", b"secrets")],
            "header kafka_replyTopic: 'secrets' is not allowed; the worker's reply_topic allows replies",
        ),
        (
            [("kafka_replyTopic", b"replies"), ("kafka_replyPartition", b"\0\0\0\3")],
            "header kafka_replyPartition: 3 is not from 0 up to 2, as replies has",
        ),
        (
            [("kafka_replyTopic", b"replies"), ("kafka_replyPartition", b"\xff\xff\xff\xff")],
            "header kafka_replyPartition: Input should be greater than or equal to 0",
        ),
        (
            [("kafka_replyTopic", b"replies"), ("kafka_replyPartition", b"1")],
            "header kafka_replyPartition: it has 1 bytes: write the number in 4 bytes, big-endian",
        ),
        ([("kafka_replyTopic", b"\xff")], "header kafka_replyTopic: Input should be a valid string"),
        ([("kafka_replyTopic", b"")], "header kafka_replyTopic: String should have at least 1 character"),
        ([*EVENT, ("ce_specversion", b"0.3")], "header ce_specversion: Input should be '1.0'"),
        ([*EVENT, ("ce_id", b"x" * 201)], "header ce_id: String should have at most 200 characters"),
        (
            [EVENT[0], EVENT[1]],
            "header: a CloudEvent has ce_source and ce_type too: add that, or leave out ce_specversion",
        ),
        (
            [("content-type", b"application/cloudevents+json; charset=utf-8")],
            "header: content-type application/cloudevents+json; charset=utf-8: a CloudEvent is read in binary mode",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_headers_that_cannot_be_obeyed_are_refused(headers: Headers, told: str) -> None:
    """On the results topic: nobody else could find the answer."""
    assert refused(headers).startswith(told)


def test_a_topic_that_is_not_allowed_tells_what_is() -> None:
    """Also where nothing is."""
    bench = Bench()
    bench.worker._intake._reply_topics = {}
    bench.kafka.send({"inputs": "x"}, headers=[("kafka_replyTopic", b"replies")])
    bench.settle()
    (answer,) = bench.publisher.answers()
    assert answer["error"]["message"].endswith("reply_topic allows none")


@pytest.mark.parametrize(("value", "status"), [({"inputs": "x"}, "ok"), ({"inputs": 5}, "error")])
def test_a_cloud_event_is_answered_with_one(value: dict[str, Any], status: str) -> None:
    """CloudEvents 1.0, binary mode: its id is the request's, and source and id of the answer are the same again."""
    for _ in range(2):
        answer = answered(value, EVENT)[-1]
        told = json.loads(answer.value or b"")
        assert (told["id"], told["status"]) == ("e-1", status)
        assert (
            answer.headers
            == AnswerHeaders(
                ce_specversion="1.0",
                ce_id=f"{REQUESTS}-0-0",
                ce_source="/nlp/text-classification",
                ce_type=f"nlp.text-classification.{status}",
                ce_subject="e-1",
            ).to_headers()
        )
        assert dict(answer.headers)["content-type"] == b"application/json"


def test_the_id_of_a_value_wins_over_that_of_its_event() -> None:
    """As it does over the record's place."""
    answer = answered({"id": "r-1", "inputs": "x"}, EVENT)[-1]
    assert json.loads(answer.value or b"")["id"] == "r-1"
    assert dict(answer.headers)["ce_subject"] == b"r-1"


def test_a_request_without_such_headers_has_a_plain_answer() -> None:
    """Null, unknown and repeated headers are nobody's business here; of a repeated one of ours the last counts."""
    headers: Headers = [("ce_id", b"e-1"), ("mine", None), ("kafka_replyTopic", b"secrets"), ("kafka_replyTopic", None)]
    (answer,) = answered({"inputs": "x"}, headers)
    assert (answer.topic, answer.headers) == (RESULTS, AnswerHeaders().to_headers())
