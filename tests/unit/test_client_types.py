"""What type checkers are told of the client's results: mypy reads this file with all others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, assert_type, get_args, get_overloads

import pytest

from nlp_schemas import (
    ALIASES,
    RESULTS,
    QuestionAnsweringResult,
    SummarizationResult,
    TaskName,
    TextClassificationResult,
)
from nlp_worker import client_types
from nlp_worker.pending import AnswerFuture

if TYPE_CHECKING:
    from nlp_worker.client import Client


@pytest.mark.parametrize("shape", ["Ask", "Submit", "Stream"])
def test_every_name_of_a_task_has_its_result(shape: str) -> None:
    """Its aliases too; whatever else is a plugin's, of which nothing is known."""
    # A protocol's method of overloads alone is not kept: they are found by its name.
    method: Any = SimpleNamespace(__module__=client_types.__name__, __qualname__=f"{shape}.__call__")
    *of_tasks, other = (overload.__annotations__ for overload in get_overloads(method))
    told: dict[str, str] = {}
    for of_task in of_tasks:
        names = get_args(getattr(client_types, of_task["task"]))
        told.update(dict.fromkeys(names, str(of_task["return"])))
    assert told.keys() == {*TaskName, *ALIASES}
    for name, result in told.items():
        task = ALIASES.get(name, name)
        assert f"schemas.{RESULTS[task].__name__}" in result
    assert other["task"] == "str"
    assert "Any" in str(other["return"])


def _a_producer(client: Client) -> None:
    """Never called: mypy tells whether a producer's code is what it takes it for."""
    assert_type(client.ask("text-classification", "a", top_k=2), TextClassificationResult)
    assert_type(client.submit("question-answering", {}), AnswerFuture[QuestionAnsweringResult])
    for text, future in client.stream("summarization", ["a"], ordered=False):
        assert_type(text, str)
        assert_type(future.result(), SummarizationResult)
    assert_type(client.ask("a-plugin-s", {}), Any)
