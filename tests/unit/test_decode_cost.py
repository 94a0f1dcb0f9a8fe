"""What a hostile record costs to decode: as much as its size, whatever is in it."""

from __future__ import annotations

import gc
import json
import re
import time
import tracemalloc
from typing import TYPE_CHECKING, Any, Final

import pytest

from nlp_schemas import MAX_REQUEST_BYTES, TaskName
from nlp_worker.broker.topics import LEGAL_NAME
from nlp_worker.codec import _MEMBER, decode
from nlp_worker.connection import CAUSES
from nlp_worker.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable


def named(count: int) -> bytes:
    return b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"


def request(parameters: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"inputs": "a", "parameters": parameters} | fields).encode()


#: Values that grow with a number, about ten bytes each: what is slow or large in one of them is a record's to choose.
GROWING: Final[list[tuple[str, str, Callable[[int], bytes]]]] = [
    ("unknown fields", "text-classification", named),
    ("unknown parameters", "fill-mask", lambda n: b'{"inputs": "a", "parameters": ' + named(n) + b"}"),
    ("one field again and again", "fill-mask", lambda n: b'{"inputs": "a"' + b', "inputs": 1' * n + b"}"),
    ("digits", "text-classification", lambda n: b'{"inputs": "a", "timeout_ms": ' + b"9" * (10 * n) + b"}"),
    ("decimals", "text-generation", lambda n: b'{"inputs": "a", "seed": 0.' + b"9" * (10 * n) + b"}"),
    ("integers of 4,000 digits", "fill-mask", lambda n: b"[" + b",".join([b"1" * 4_000] * (n // 400)) + b"]"),
    ("labels", "zero-shot-classification", lambda n: request({"candidate_labels": ["a"] * n})),
    ("commas", "zero-shot-classification", lambda n: request({"candidate_labels": "a," * n})),
    ("braces", "zero-shot-classification", lambda n: request({"hypothesis_template": "{}" * n})),
    ("empty messages", "text-generation", lambda n: request({}, inputs=[{}] * n)),
    ("no choices", "multiple-choice", lambda n: request({}, inputs={"prompt": "a", "choices": [[]] * n})),
    ("depth", "text-classification", lambda n: b'{"inputs": ' + b"[" * (5 * n) + b"]" * (5 * n) + b"}"),
    ("broken depth", "text-classification", lambda n: b'{"a":' * (2 * n)),
    ("escapes", "fill-mask", lambda n: b'{"inputs": "' + b"\\u0041" * (2 * n) + b'"}'),
    ("a name", "fill-mask", lambda n: b'{"inputs": "a", "' + b"x" * (10 * n) + b'": 1}'),
    ("an id", "fill-mask", lambda n: request({}, id="x" * (10 * n))),
    ("quotes", "fill-mask", lambda n: request({}, task="<a.b: '" * n)),
    ("no JSON", "fill-mask", lambda n: b"\xff" * (10 * n)),
]


def cost(value: bytes, task: str) -> float:
    """Return the seconds of CPU that a value is decoded in, the fewest of three."""
    seconds = []
    gc.disable()  # what it costs depends on all that the process holds
    try:
        for _ in range(3):
            began = time.process_time()
            refuse_or_read(value, task)
            seconds.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(seconds)


def refuse_or_read(value: bytes, task: str) -> None:
    try:
        decode(value, TaskName(task))
    except InvalidRequestError as error:
        assert len(str(error)) <= 2_000  # noqa: PT017 - what goes into a header and an answer


@pytest.mark.parametrize(("task", "grow"), [case[1:] for case in GROWING], ids=[case[0] for case in GROWING])
def test_a_record_costs_no_more_than_its_size(task: str, grow: Callable[[int], bytes]) -> None:
    """Eight times the value takes about eight times as long, not sixty-four; and of memory a small multiple of it."""
    small, large = grow(12_500), grow(100_000)
    refuse_or_read(small, task)  # what is built once is built now
    # Below a millisecond the clock counts other things.
    assert cost(large, task) < 4 * 8 * max(cost(small, task), 0.001)
    tracemalloc.start()
    try:
        refuse_or_read(large, task)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(large)
    finally:
        tracemalloc.stop()


def test_a_value_above_the_limit_is_not_read() -> None:
    """A broker limits what it is sent, but of compressed records only the compressed bytes."""
    value = b'{"inputs": "a"' + b" " * (MAX_REQUEST_BYTES - 15) + b"}"
    assert len(value) == MAX_REQUEST_BYTES
    decode(value, TaskName.FILL_MASK)
    with pytest.raises(InvalidRequestError, match="the record's value has 8388609 bytes: at most 8388608 are read"):
        decode(value + b" ", TaskName.FILL_MASK)


def test_more_problems_than_anybody_reads_are_counted() -> None:
    """Each would be built with its place and its reason, a kilobyte for the five bytes of an unknown field."""
    with pytest.raises(InvalidRequestError, match="has 20001 problems, such as fields that are unknown"):
        decode(named(20_000), TaskName.FILL_MASK)


#: Every regular expression that the worker applies to text it did not write, and a text that grows to tempt it.
EXPRESSIONS: Final[list[tuple[str | re.Pattern[str], str]]] = [
    (_MEMBER, "<a.b: '"),
    (LEGAL_NAME, "a"),
    *((sign, "broker_version=(4, 1) (x)>: Connection lost: a: ") for sign, _ in CAUSES),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("expression", "text"), EXPRESSIONS, ids=[str(case[0])[:30] for case in EXPRESSIONS])
def test_no_regular_expression_backtracks_without_end(expression: str | re.Pattern[str], text: str) -> None:
    """A megabyte of what nearly matches, again and again."""
    re.search(expression, text * (1_000_000 // len(text)))
