"""What the tests of the tasks measure: how far a batched answer is from the single one, and from the pipeline's.

A test compares and records; at the end of the run the records become the table of docs/tasks.md. The table in the
repository is written by `pytest tests/tasks --write-docs`; any other run of these tests checks that it has a row for
each task and family that was recorded.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "tasks.md"
BEGIN: Final = "<!-- parity: written by pytest tests/tasks --write-docs -->"
END: Final = "<!-- /parity -->"


class Tolerance(NamedTuple):
    """How far numbers may be apart, fp32."""

    absolute: float
    relative: float = 0.0

    def allows(self, ours: float, theirs: float) -> bool:
        return abs(ours - theirs) <= self.absolute + self.relative * abs(theirs)


PROBABILITIES: Final = Tolerance(1e-5)
#: Logits and vectors.
RAW: Final = Tolerance(1e-4, 1e-4)


@dataclass
class Measured:
    """One row of the table."""

    cases: int = 0
    single: float | None = None
    """Largest difference of a batched answer from the single one; 0 where only texts are compared."""
    pipeline: float | None = None
    bf16: float | None = None
    """As `single`, in bfloat16; reported, not asserted."""


class Parity:
    """The records of a run."""

    def __init__(self) -> None:
        self.measured: dict[tuple[str, str], Measured] = defaultdict(Measured)

    def record(
        self,
        task: str,
        family: str,
        *,
        cases: int = 0,
        single: float | None = None,
        pipeline: float | None = None,
        bf16: float | None = None,
    ) -> None:
        """Add a test's cases, and keep the largest of each difference."""
        row = self.measured[task, family]
        row.cases += cases
        row.single = _largest(row.single, single)
        row.pipeline = _largest(row.pipeline, pipeline)
        row.bf16 = _largest(row.bf16, bf16)

    def table(self) -> str:
        lines = [
            "| task | family | cases | batched against single | against the pipeline | bf16 batched against single |",
            "|---|---|---:|---:|---:|---:|",
        ]
        for (task, family), row in sorted(self.measured.items()):
            numbers = " | ".join(map(_shown, (row.single, row.pipeline, row.bf16)))
            lines.append(f"| {task} | {family} | {row.cases} | {numbers} |")
        return "\n".join(lines)

    def write(self) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{self.table()}\n\n{END}{after}", encoding="utf-8")

    def missing(self) -> list[str]:
        """Return the rows that were measured and that the document does not have."""
        text = DOCUMENT.read_text(encoding="utf-8")
        return [f"{task}, {family}" for task, family in sorted(self.measured) if f"| {task} | {family} |" not in text]


def _largest(first: float | None, second: float | None) -> float | None:
    return first if second is None else second if first is None else max(first, second)


def _shown(number: float | None) -> str:
    return "-" if number is None else "0" if number == 0 else f"{number:.1e}"


def difference(ours: Any, theirs: Any, tolerance: Tolerance, path: str = "") -> float:
    """Compare two answers, and return the largest difference of their numbers.

    Texts, counts and everything that is no float are identical; floats are within the tolerance.

    Raises:
        AssertionError: they differ; the message says where.
    """
    if isinstance(theirs, float) and not isinstance(ours, bool) and isinstance(ours, (int, float)):
        assert math.isfinite(ours), f"{path}: {ours}"
        assert tolerance.allows(ours, theirs), f"{path}: {ours} against {theirs}"
        return abs(ours - theirs)
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), f"{path}: {ours!r} against {theirs!r}"
        assert ours.keys() == theirs.keys(), f"{path}: {sorted(ours)} against {sorted(theirs)}"
        return max((difference(ours[key], theirs[key], tolerance, f"{path}.{key}") for key in theirs), default=0.0)
    if isinstance(theirs, (list, tuple)):
        assert isinstance(ours, (list, tuple)), f"{path}: {ours!r} against {theirs!r}"
        assert len(ours) == len(theirs), f"{path}: {len(ours)} against {len(theirs)}: {ours!r} against {theirs!r}"
        pairs = enumerate(zip(ours, theirs, strict=True))
        return max((difference(one, other, tolerance, f"{path}[{i}]") for i, (one, other) in pairs), default=0.0)
    assert ours == theirs, f"{path}: {ours!r} against {theirs!r}"
    return 0.0


def ranked_difference(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], tolerance: Tolerance) -> float:
    """Compare ranked answers, each with a score: others may be swapped only where their scores tie.

    Returns:
        The largest difference of their scores.
    """
    assert len(ours) == len(theirs), f"{len(ours)} against {len(theirs)}"
    worst = difference([float(one["score"]) for one in ours], [float(one["score"]) for one in theirs], tolerance)
    for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if _without_score(one) != _without_score(other):
            same = [each for each in theirs if _without_score(each) == _without_score(one)]
            assert same, f"place {place}: {one!r} is not among {theirs!r}"
            tied = tolerance.allows(float(same[0]["score"]), float(other["score"]))
            assert tied, f"place {place}: {one!r} against {other!r}"
    return worst


def _without_score(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key != "score"}


def plain(value: Any) -> Any:
    """Return a pipeline's answer with Python's own numbers, as JSON would have it."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value


def largest(differences: Iterable[float]) -> float:
    return max(differences, default=0.0)
