"""docs/tasks.md says what is so of every parameter and family; `pytest tests/unit/test_docs.py --write-docs`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nlp_schemas import REQUESTS, TaskName
from parity import Parity
from task_families import EVERY

DOCUMENT = Path(__file__).parents[2] / "docs" / "tasks.md"


def table(task: TaskName) -> str:
    """Return the task's parameters with type, bounds, default and sentence, from the JSON Schema of its request."""
    schema = REQUESTS[task].model_json_schema()
    reference = schema["properties"]["parameters"]
    parameters = schema["$defs"][(reference.get("$ref") or reference["allOf"][0]["$ref"]).rpartition("/")[2]]
    rows = ["| parameter | | default | |", "|---|---|---|---|"]
    for name, field in parameters["properties"].items():
        default = f"`{_json(field['default'])}`" if "default" in field else _absent(name, parameters)
        rows.append(f"| `{name}` | {_kind(field)} | {default} | {field['description']} |")
    return "\n".join(rows)


def _absent(name: str, parameters: dict[str, Any]) -> str:
    return "required" if name in parameters.get("required", ()) else '`["O"]`'


def _json(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _kind(field: dict[str, Any]) -> str:
    kinds = field.get("anyOf") or field.get("oneOf") or [field]
    return " or ".join(filter(None, map(_one_kind, kinds)))


def _one_kind(kind: dict[str, Any]) -> str:
    if "anyOf" in kind or "oneOf" in kind:
        return _kind(kind)
    if "enum" in kind or "const" in kind:
        return ", ".join(f"`{_json(value)}`" for value in kind.get("enum", [kind.get("const")]))
    if kind["type"] == "null":
        return ""
    low, high = kind.get("minimum", kind.get("exclusiveMinimum")), kind.get("maximum")
    if low is None:
        return {"boolean": "`true`, `false`", "string": "text", "array": "list of texts"}[kind["type"]]
    above = "above " if "exclusiveMinimum" in kind else ""
    return f"{'whole ' if kind['type'] == 'integer' else ''}number, {above}{low:,} to {high:,}"


@pytest.mark.parametrize("task", TaskName)
def test_the_document_has_every_parameter_with_its_bounds(task: TaskName, request: pytest.FixtureRequest) -> None:
    """What a producer reads is what is checked."""
    text = DOCUMENT.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- parameters: {task} -->\n).*?(<!-- /parameters -->)", re.DOTALL)
    written = pattern.sub(lambda match: f"{match[1]}\n{table(task)}\n\n{match[2]}", text)
    assert pattern.search(text), f"docs/tasks.md has no place for the parameters of {task}"
    if request.config.getoption("--write-docs"):
        DOCUMENT.write_text(written, encoding="utf-8")
    else:
        assert written == text, "docs/tasks.md says something else: run `pytest tests/unit/test_docs.py --write-docs`"


def test_the_table_of_parity_has_a_row_for_every_task_and_family() -> None:
    """`make test` measures some of them only."""
    every = Parity()
    for task, family in EVERY:
        every.record(task, family)
    assert every.missing() == [], "run `make test-all`"
