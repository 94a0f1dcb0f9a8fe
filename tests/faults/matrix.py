"""The matrix of faults: what each scenario may cost, what it did cost, and the table of docs/guarantees.md."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from faults.verdict import CLEAN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from faults.ledger import Ledger
    from faults.verdict import Verdict

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "guarantees.md"

AT_LEAST_ONCE: Final = "at-least-once"
EXACTLY_ONCE: Final = "exactly-once"
DELIVERIES: Final = (AT_LEAST_ONCE, EXACTLY_ONCE)

_PLACE: Final = re.compile(r"(<!-- faults -->\n).*?(<!-- /faults -->)", re.DOTALL)
_HEAD: Final = (
    "| | fault | delivery | requests | lost | invented | lag | repeated | out of order | seconds |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Row:
    """One scenario under one delivery."""

    number: str
    """As in the list of faults: F2."""
    fault: str
    """What is done, in a few words."""
    delivery: str
    began: float = field(default_factory=time.monotonic)
    requests: int = 0
    verdict: Verdict | None = None
    seconds: float = 0.0

    def judge(self, ledger: Ledger, *, repeated: int = 0) -> Verdict:
        """Wait until the group is done, keep the verdict, and fail where it is not what the delivery promises.

        Args:
            ledger: Of the scenario.
            repeated: Answers that at least once may give again: the faults times what one may leave half done. Exactly
                once may give none.
        """
        self.verdict = verdict = ledger.verdict()
        self.requests, self.seconds = len(ledger.acknowledged), time.monotonic() - self.began
        assert verdict._replace(dup=(), order=()) == CLEAN
        assert len(verdict.dup) <= (repeated if self.delivery == AT_LEAST_ONCE else 0), verdict.dup[:10]
        assert verdict.order == ()
        return verdict

    def __str__(self) -> str:
        verdict = self.verdict or CLEAN
        found = [len(verdict.lost), len(verdict.invented), verdict.lag, len(verdict.dup), len(verdict.order)]
        counts = " | ".join(f"{number:,}" for number in [self.requests, *found])
        return f"| {self.number} | {self.fault} | {self.delivery} | {counts} | {self.seconds:.0f} |"


class Line(NamedTuple):
    """A row of the table, as it goes from one process to another; sorts as the list of faults does."""

    number: int
    fault: str
    delivery: str
    text: str


class Matrix:
    """The rows of one process."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def row(self, number: str, fault: str, delivery: str) -> Row:
        """Begin a scenario."""
        row = Row(number, fault, delivery)
        self._rows.append(row)
        return row

    def lines(self) -> list[Line]:
        """Return the scenarios that were judged."""
        judged = [row for row in self._rows if row.verdict is not None]
        return [Line(int(row.number.removeprefix("F")), row.fault, row.delivery, str(row)) for row in judged]


def missing(lines: Iterable[Line]) -> list[str]:
    """Return the scenarios that the document does not have."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return [line.fault for line in lines if f"| {line.fault} | {line.delivery} |" not in text]


def write(lines: Iterable[Line]) -> None:
    """Put the rows into the document, in the order of the list of faults."""
    text = DOCUMENT.read_text(encoding="utf-8")
    table = "\n".join([_HEAD, *(line.text for line in sorted(lines))])
    assert _PLACE.search(text), f"{DOCUMENT.name} has no place for the table"
    DOCUMENT.write_text(_PLACE.sub(lambda place: f"{place[1]}\n{table}\n\n{place[2]}", text), encoding="utf-8")
