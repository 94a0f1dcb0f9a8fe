"""Bytes to requests and answers to bytes: what is accepted, and what is said of the rest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nlp_schemas import (
    MAX_TEXT_CHARACTERS,
    RESULT,
    Label,
    Model,
    Source,
    TaskName,
    TextClassificationRequest,
    TextClassificationResult,
    Timing,
    Usage,
)
from nlp_worker import codec
from nlp_worker.errors import InvalidRequestError

TASK = TaskName.TEXT_CLASSIFICATION


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "the record's value is null"),
        (b"\xff", "not UTF-8: invalid start byte at byte 0"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        (rb'{"inputs": "\ud83d"}', r"half of a surrogate pair, such as \ud800 alone, is no text"),
        (rb'{"inputs": "\udc4d"}', r"half of a surrogate pair, such as \ud800 alone, is no text"),
        (b'{"inputs": "a", "' + b"x" * 100_000 + b'": 1}', "xxx: unknown field"),
        (b"[]", "the record's value: Input should be an object"),
        (b"{}", "inputs: Field required"),
        (b'{"inputs": ["a", "b"]}', "inputs: a list is not accepted: send one record for each text"),
        (b'{"inputs": 5}', "inputs: Input should be a valid string"),
        (b'{"inputs": {"text": "a"}}', "inputs.text_pair: Field required"),
        (
            b'{"inputs": "a", "input": "b"}',
            "input: unknown field; there is id, model, timeout_ms, task, inputs, parameters",
        ),
        (
            b'{"inputs": "a", "parameters": {"topk": 1}}',
            "parameters.topk: unknown field; there is truncation, max_length, top_k, function_to_apply",
        ),
        (b'{"inputs": "a", "parameters": {"top_k": 0}}', "parameters.top_k: Input should be from 1 up to 10000"),
        (
            b'{"inputs": "a", "parameters": {"top_k": "2"}}',
            "parameters.top_k: Input should be a valid integer, from 1 up to 10000",
        ),
        (b'{"inputs": "a", "task": "fill-mask"}', "task: "),
        (b'{"inputs": "a", "id": ""}', "id: String should have at least 1 character"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        (b'{"inputs": "' + b"x" * (MAX_TEXT_CHARACTERS + 1) + b'"}', "inputs: String should have at most 100000"),
        (b"[" * 100_000, "not JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_record_is_told_what_is_wrong_and_where(value: bytes | None, told: str) -> None:
    """Never anything but InvalidRequestError, with a sentence that names the field."""
    with pytest.raises(InvalidRequestError) as raised:
        codec.decode(value, TASK)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("value", "request_id"),
    [
        ({"id": "r-1", "inputs": 5}, "r-1"),
        ({"id": 7, "inputs": 5}, None),
        ({"id": "x" * 201, "inputs": "a"}, None),
        (["r-1"], None),
    ],
)
def test_an_error_carries_the_id_where_there_is_a_valid_one(value: object, request_id: str | None) -> None:
    """So that the producer finds the answer to its bad request."""
    with pytest.raises(InvalidRequestError) as raised:
        codec.decode(json.dumps(value).encode(), TASK)
    assert raised.value.request_id == request_id


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    """Whatever a producer sends costs it one error answer."""
    try:
        codec.decode(value, TASK)
    except InvalidRequestError as error:
        assert str(error)  # noqa: PT017 - that it says something is the point


@given(st.text(max_size=50), st.integers(1, 100), st.sampled_from(["softmax", "sigmoid", "none", None]))
def test_what_is_encoded_is_decoded(text: str, top_k: int, function: str | None) -> None:
    """decode(encode(x)) == x for requests of every kind that JSON can say."""
    try:
        request = TextClassificationRequest.model_validate(
            {"inputs": text, "parameters": {"top_k": top_k, "function_to_apply": function}}
        )
    except ValidationError:
        return  # a lone surrogate, which UTF-8 cannot say
    assert codec.decode(request.model_dump_json().encode(), TASK) == request


def test_an_answer_reads_as_the_contract_says() -> None:
    """The example of the contract, to the letter, and back through the model that clients use."""
    answer = TextClassificationResult(
        id="r-1",
        model=Model(name="sst2", checkpoint="distilbert/x", revision="714eb0f"),
        source=Source(topic="t", partition=3, offset=17),
        usage=Usage(input_tokens=6),
        timing_ms=Timing(queue=12.1, device=3.9),
        outputs=[Label(label="POSITIVE", score=0.99)],
    )
    value = codec.encode(answer)
    assert json.loads(value) == {
        "id": "r-1",
        "task": "text-classification",
        "status": "ok",
        "outputs": [{"label": "POSITIVE", "score": 0.99}],
        "model": {"name": "sst2", "checkpoint": "distilbert/x", "revision": "714eb0f"},
        "source": {"topic": "t", "partition": 3, "offset": 17},
        "truncated": False,
        "usage": {"input_tokens": 6},
        "timing_ms": {"queue": 12.1, "device": 3.9},
    }
    assert RESULT.validate_json(value) == answer
