"""What a request may cost: just within each limit that no single field has, and just beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nlp_schemas import MAX_ROWS, MAX_TEXT_CHARACTERS, TaskName
from nlp_worker.codec import decode
from nlp_worker.errors import InvalidRequestError

LABELS = [f"label {number}" for number in range(MAX_ROWS + 1)]
CHAT = [{"role": "user", "content": "x" * 100}] * (MAX_ROWS + 1)


@pytest.mark.parametrize(
    ("task", "most", "more", "told"),
    [
        (
            "zero-shot-classification",
            {"parameters": {"candidate_labels": LABELS[:-1]}},
            {"parameters": {"candidate_labels": LABELS}},
            "parameters.candidate_labels: List should have at most 1000 items",
        ),
        (
            "zero-shot-classification",
            {"parameters": {"candidate_labels": ",a ,"}},
            {"parameters": {"candidate_labels": " , "}},
            "parameters: candidate_labels has 0 labels: give from 1 to 1000",
        ),
        (
            "zero-shot-classification",
            {"inputs": "x" * 1000, "parameters": {"candidate_labels": LABELS[:-1]}},
            {"inputs": "x" * 1001, "parameters": {"candidate_labels": LABELS[:-1]}},
            "the text is read once for each of the 1000 candidate_labels, 1001000 characters in all: at most 1000000",
        ),
        (
            "zero-shot-classification",
            {"parameters": {"candidate_labels": "a", "hypothesis_template": "{}"}},
            {"parameters": {"candidate_labels": "a", "hypothesis_template": "{} or {}"}},
            "parameters.hypothesis_template: it must have {} once",
        ),
        (
            "multiple-choice",
            {"inputs": {"prompt": "", "choices": LABELS[:-1]}},
            {"inputs": {"prompt": "", "choices": LABELS}},
            "inputs.choices: List should have at most 1000 items",
        ),
        (
            "multiple-choice",
            {"inputs": {"prompt": "x" * MAX_TEXT_CHARACTERS, "choices": LABELS[:10]}},
            {"inputs": {"prompt": "x" * MAX_TEXT_CHARACTERS, "choices": LABELS[:11]}},
            "inputs: the text is read once for each of the 11 choices, 1100000 characters in all: at most 1000000",
        ),
        (
            "multiple-choice",
            {"inputs": {"prompt": "", "choices": ["x" * MAX_TEXT_CHARACTERS] * 10}},
            {"inputs": {"prompt": "", "choices": ["x" * MAX_TEXT_CHARACTERS] * 11}},
            "inputs: choices have more than 1000000 characters together",
        ),
        (
            "text-generation",
            {"inputs": CHAT[:-1]},
            {"inputs": CHAT},
            "inputs: List should have at most 1000 items",
        ),
        (
            "text-generation",
            {"inputs": [{"role": "user", "content": "x" * (MAX_TEXT_CHARACTERS // 2)}] * 2},
            {"inputs": [{"role": "user", "content": "x" * (MAX_TEXT_CHARACTERS // 2 + 1)}] * 2},
            "the messages have 100002 characters: at most 100000",
        ),
        (
            "text-generation",
            {"parameters": {"stop": LABELS[:16]}},
            {"parameters": {"stop": LABELS[:17]}},
            "parameters: stop has 17 texts: give from 1 to 16",
        ),
        (
            "summarization",
            {"parameters": {"min_length": 5, "max_length": 5}},
            {"parameters": {"min_length": 6, "max_length": 5}},
            "parameters: min_length is 6, above max_length, which is 5",
        ),
        (
            "translation",
            {"parameters": {"do_sample": True, "num_beams": 1}},
            {"parameters": {"do_sample": True, "num_beams": 2}},
            "parameters: do_sample and num_beams above 1 exclude each other",
        ),
        (
            "fill-mask",
            {"parameters": {"targets": LABELS[:-1]}},
            {"parameters": {"targets": LABELS}},
            "parameters.targets: List should have at most 1000 items",
        ),
        (
            "token-classification",
            {"parameters": {"stride": 1, "aggregation_strategy": "simple"}},
            {"parameters": {"stride": 1, "aggregation_strategy": "none"}},
            "parameters: stride needs an aggregation_strategy",
        ),
        (
            "feature-extraction",
            {"parameters": {"normalize": True, "pooling": "mean"}},
            {"parameters": {"normalize": True}},
            "parameters: normalize is for one vector",
        ),
        (
            "feature-extraction",
            {"inputs": "x" * MAX_TEXT_CHARACTERS},
            {"inputs": "x" * (MAX_TEXT_CHARACTERS + 1)},
            "inputs: String should have at most 100000 characters",
        ),
    ],
)
def test_what_a_request_may_cost_is_limited(task: str, most: Any, more: Any, told: str) -> None:
    """Rows, characters times rows, and parameters that exclude each other: the error says which, and the limit."""
    defaults = {"inputs": "a text"}
    decode(json.dumps(defaults | most).encode(), TaskName(task))
    with pytest.raises(InvalidRequestError) as raised:
        decode(json.dumps(defaults | more).encode(), TaskName(task))
    assert told in str(raised.value)
