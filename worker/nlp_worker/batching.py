"""Batch: the unit of compute. Which rows are padded together, and how long the device will take for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

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
    def size(self) -> int:
        """Tokens that it takes on the device: padding, and what is generated, included."""
        return len(self.rows) * _row_size(_shape(self.rows))

    @property
    def tokens(self) -> int:
        return sum(row.length for row in self.rows)


def plan(task: Task, rows: Iterable[Row], *, budget: int) -> list[Batch]:
    """Cut rows into batches of at most ``budget`` tokens on the device, each of rows of one group and similar size.

    Padding counts, and so does what is generated. Rows are sorted by size, largest first: the largest batch comes
    first, so that memory is grown once. A row that is above the budget alone is a batch of its own, for it can be run
    in no other way.
    """
    budget = min(budget, task.max_batch_tokens or budget)
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return [batch for group in groups.values() for batch in _plan_group(task, group, budget)]


def _plan_group(task: Task, rows: Iterable[Row], budget: int) -> list[Batch]:
    batches: list[Batch] = []
    current: list[Row] = []
    shape = 0, 0, 0
    for row in sorted(rows, key=lambda row: (row.size, row.length), reverse=True):
        with_row = _shape([row], shape)
        if current and (len(current) + 1) * _row_size(with_row) > budget:
            batches.append(Batch(task, current))
            current, with_row = [], _shape([row])
        current.append(row)
        shape = with_row
    if current:
        batches.append(Batch(task, current))
    return batches


def _shape(rows: Iterable[Row], shape: tuple[int, int, int] = (0, 0, 0)) -> tuple[int, int, int]:
    """Return what all rows of a batch are made: as long as the longest, and so on, which may be different rows."""
    length, new_tokens, beams = shape
    for row in rows:
        length, new_tokens, beams = max(length, row.length), max(new_tokens, row.new_tokens), max(beams, row.beams)
    return length, new_tokens, beams


def _row_size(shape: tuple[int, int, int]) -> int:
    length, new_tokens, beams = shape
    return (length + new_tokens) * beams


@dataclass(slots=True)
class Rate:
    """How long the device takes for a token of one task's batches, learned from those that ran."""

    seconds_per_token: float = FIRST_RATE
    learned: bool = False

    def learn(self, tokens: int, seconds: float) -> None:
        observed = seconds / max(tokens, 1)
        if self.learned:
            self.seconds_per_token += RATE_SMOOTHING * (observed - self.seconds_per_token)
        else:
            self.seconds_per_token, self.learned = observed, True
