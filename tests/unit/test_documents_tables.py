"""The tables of the documents that tell what is in the code say what is there; --write-docs writes them."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args, get_origin

from nlp_schemas import ErrorCode, TaskName
from nlp_worker.errors import ExitCode
from nlp_worker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
SPEEDS: Final = ROOT / "benchmarks" / "results" / "throughput-natural-float32.json"

#: What the benchmark calls its contestants, in words; those of the README's shorter table first.
CONTESTANTS: Final = {
    "pipeline, one by one": "`transformers.pipeline`, one text at a time, no Kafka",
    "pipeline, batches of 32": "`transformers.pipeline(batch_size=32)`, no Kafka",
    "offline, sorted, 512 tokens": "offline: all texts tokenized, sorted and padded before the clock starts",
    "matrix products alone": "the matrix products of the model's layers alone, without any padding: nobody can be "
    "faster here",
    "worker, packed": "the worker, Kafka to Kafka",
    "worker, padded": 'the worker, `packing = "off"`',
    "worker, padded, poll_seconds=10": "the same with `poll_seconds = 10`",
}
FEWER: Final = ("pipeline, one by one", "pipeline, batches of 32", "offline, sorted, 512 tokens", "worker, packed")


def _rows(document: Path, header: str) -> list[str]:
    """Return the table that begins with a header."""
    lines = document.read_text(encoding="utf-8").splitlines()
    rest = lines[lines.index(header) :]
    return rest[: next((number for number, line in enumerate(rest) if not line.startswith("|")), len(rest))]


def _first_cells(document: Path, header: str) -> list[str]:
    return [row.split("|")[1].strip() for row in _rows(document, header)[2:]]


def _compare(request: pytest.FixtureRequest, document: Path, header: str, rows: Sequence[str]) -> None:
    table = [header, "|---" * (header.count("|") - 1) + "|", *rows]
    if request.config.getoption("--write-docs"):
        old, new = ("\n".join(each) + "\n" for each in (_rows(document, header), table))
        document.write_text(document.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    assert _rows(document, header) == table, f"run `pytest {Path(__file__).relative_to(ROOT)} --write-docs`"


def test_every_setting_stands_in_its_document(request: pytest.FixtureRequest) -> None:
    """With its default, what it may be, and the sentence that `nlp-worker run --help` says of it."""
    rows = []
    for name, field in Settings.model_fields.items():
        if name == "kafka":  # kafka-python's own, which have their own paragraph
            continue
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        shown = "" if field.default in (None, ()) else f"`{default}`"
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        one_of = ", ".join(f"`{choice}`" for choice in choices)
        rows.append(f"| `{name}` | {shown} | {one_of} | {field.description} |")
    _compare(request, ROOT / "docs" / "settings.md", "| setting | default | one of | |", rows)


def test_every_exit_code_stands_in_its_document(request: pytest.FixtureRequest) -> None:
    """With its name, and what the code itself says of it."""
    (definition,) = ast.parse(inspect.getsource(ExitCode)).body
    assert isinstance(definition, ast.ClassDef)
    told = [
        str(each.value.value)
        for each in definition.body[1:]  # behind the class's own
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    ]
    rows = [
        f"| {code.value} | {code.name.lower().replace('_', ' ')} | {sentence} |"
        for code, sentence in zip(ExitCode, told, strict=True)
    ]
    _compare(request, ROOT / "docs" / "running.md", "| exit code | | |", rows)


def test_the_speeds_are_those_that_the_benchmark_wrote(request: pytest.FixtureRequest) -> None:
    """All of them in the document on performance, and some in the README."""
    measured = {row["contestant"]: row for row in json.loads(SPEEDS.read_text(encoding="utf-8"))["rows"]}
    header = "| | requests/s | over one by one |"
    for document, contestants in ((ROOT / "docs" / "performance.md", CONTESTANTS), (README, FEWER)):
        rows = [
            f"| {CONTESTANTS[name]} | {measured[name]['requests/s']:.1f} | {measured[name]['/ one by one']:.2f} |"
            for name in contestants
        ]
        _compare(request, document, header, rows)


def test_the_readme_names_the_tasks_that_there_are() -> None:
    """Each once, in their order; what stands beside them is written by hand."""
    cells = _first_cells(README, "| task | `inputs` | `outputs` |")
    assert [re.split(r"[ (]", cell)[0] for cell in cells] == [str(task) for task in TaskName]


def test_the_contract_names_the_codes_that_there_are() -> None:
    """Each once; what stands beside them is written by hand."""
    cells = _first_cells(ROOT / "docs" / "contract.md", "| code | |")
    assert sorted(cells) == sorted(f"`{code}`" for code in ErrorCode)
