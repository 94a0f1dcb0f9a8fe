"""Batch: the unit of compute. Which rows are padded together, and how long the device will take for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Task

#: Weight of the newest batch in the learned rate: settles within ten batches, and one slow batch does not halve it.
RATE_SMOOTHING: Final = 0.2

#: Seconds for a padded token until a batch has run: a BERT-base on one CPU core, so a first poll is rather too small.
FIRST_RATE: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of one task that are padded to the longest of them and run together."""

    task: Task
    rows: Sequence[Row]

    @property
    def longest(self) -> int:
        return max(row.length for row in self.rows)

    @property
    def padded_tokens(self) -> int:
        return len(self.rows) * self.longest

    @property
    def tokens(self) -> int:
        return sum(row.length for row in self.rows)


def plan(task: Task, rows: Iterable[Row], *, budget: int) -> list[Batch]:
    """Cut rows into batches of at most ``budget`` padded tokens, each of rows of similar length.

    Rows are sorted by length, longest first: the largest batch comes first, so that memory is grown once. A row that
    is above the budget alone is a batch of its own, for it can be run in no other way.
    """
    batches: list[Batch] = []
    current: list[Row] = []
    for row in sorted(rows, key=lambda row: row.length, reverse=True):
        # The first row of a batch is its longest.
        if current and (len(current) + 1) * current[0].length > budget:
            batches.append(Batch(task, current))
            current = []
        current.append(row)
    if current:
        batches.append(Batch(task, current))
    return batches


@dataclass(slots=True)
class Rate:
    """How long the device takes for a padded token of one task, learned from the batches that ran."""

    seconds_per_token: float = FIRST_RATE
    learned: bool = False

    def learn(self, padded_tokens: int, seconds: float) -> None:
        observed = seconds / max(padded_tokens, 1)
        if self.learned:
            self.seconds_per_token += RATE_SMOOTHING * (observed - self.seconds_per_token)
        else:
            self.seconds_per_token, self.learned = observed, True
