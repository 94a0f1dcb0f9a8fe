"""Which changes of a schema break those who go by the one before."""

from __future__ import annotations

from typing import Any

import pytest

from schema_changes import problems

OPEN: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CLOSED: dict[str, Any] = {**OPEN, "additionalProperties": False}
MAYBE: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}


def with_a(schema: dict[str, Any], **a: Any) -> dict[str, Any]:
    return {**schema, "properties": {"a": a}}


@pytest.mark.parametrize(
    ("described", "accepting"),
    [
        (CLOSED, CLOSED),
        (CLOSED, {**CLOSED, "properties": {**CLOSED["properties"], "b": {"type": "string"}}}),
        (CLOSED, {**CLOSED, "required": []}),
        (with_a(CLOSED, type="integer"), with_a(CLOSED, type="number")),
        (with_a(CLOSED, type="integer", minimum=2), with_a(CLOSED, type="integer", minimum=1)),
        (with_a(CLOSED, type="string", enum=["x"]), with_a(CLOSED, type="string", enum=["x", "y"])),
        (with_a(CLOSED, type="string", const="x"), with_a(CLOSED, type="string")),
        (with_a(CLOSED, type="integer", minimum=1), with_a(CLOSED, **MAYBE)),
        ({**OPEN, "properties": {**OPEN["properties"], "b": {"type": "string"}}}, OPEN),
        ({"$ref": "#/$defs/A", "$defs": {"A": CLOSED}}, {"$ref": "#/$defs/B", "$defs": {"B": CLOSED}}),
        ({"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "number"}}),
    ],
)
def test_what_is_accepted_is_no_problem(described: dict[str, Any], accepting: dict[str, Any]) -> None:
    """More room, more choice, more alternatives, fields that may be left out, and fields that nobody has to read."""
    assert problems(described, accepting) == []


@pytest.mark.parametrize(
    ("described", "accepting", "told"),
    [
        ({**CLOSED, "properties": {**CLOSED["properties"], "b": {}}}, CLOSED, ".b: it is refused"),
        ({**OPEN, "required": []}, OPEN, ".a: it is needed, and may be missing"),
        (with_a(CLOSED, type="number"), with_a(CLOSED, type="integer"), ".a: number is not integer"),
        (with_a(CLOSED, type="integer"), with_a(CLOSED, type="integer", minimum=1), ".a: minimum None is beyond 1"),
        (with_a(CLOSED, maximum=3), with_a(CLOSED, maximum=2), ".a: maximum 3 is beyond 2"),
        (with_a(CLOSED, enum=["x", "y"]), with_a(CLOSED, enum=["x"]), """.a: ["'y'"] is not among ["'x'"]"""),
        (with_a(CLOSED, type="string"), with_a(CLOSED, type="string", enum=["x"]), ".a: any is not among"),
        (with_a(CLOSED, **MAYBE), with_a(CLOSED, type="integer", minimum=1), ".a: null is not integer"),
        (with_a(CLOSED, type="integer", minimum=0), with_a(CLOSED, **MAYBE), ".a: minimum 0 is beyond 1"),
        (
            {"type": "array", "items": {"type": "string"}},
            {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": {"type": "integer"}}},
            "[]: string is not integer",
        ),
    ],
)
def test_what_is_refused_is_told_with_its_place(
    described: dict[str, Any], accepting: dict[str, Any], told: str
) -> None:
    """One problem for each of the ways in which a schema can become narrower."""
    (found,) = problems(described, accepting)
    assert found.startswith(told)


def test_a_keyword_that_is_not_understood_is_no_silence() -> None:
    """The comparison says so instead of passing over it."""
    with pytest.raises(AssertionError, match="not understood"):
        problems({"patternProperties": {}}, {})
