"""Batch: the unit of compute. Which rows are padded together, and how long the device will take for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from nlp_worker.poll import BatchRun, Row
    from nlp_worker.tasks.base import Task

#: Weight of the newest batch in the learned rate: settles within ten batches, and one slow batch does not halve it.
RATE_SMOOTHING: Final = 0.2

#: Seconds for a padded token until a batch has run: a BERT-base on one CPU core, so a first poll is rather too small.
FIRST_RATE: Final = 1e-3

#: Part of the budget from which on a batch is full: only full ones show that more tokens might fit.
FULL: Final = 0.8

#: Part of a lowered budget that is added to it when it rises: four steps make good for a half.
RISE: Final = 0.25

#: Full batches in a row before a lowered budget rises: a second or so of a GPU, enough where another process had taken
#: memory for a moment. Twice as many after each fall, up to the second number: there, attempts that fail cost less than
#: a thousandth of the device's time.
FIRST_PATIENCE: Final = 16
MOST_PATIENCE: Final = 4096


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


@dataclass(slots=True)
class Budget:
    """Tokens of one task's batches: what the settings allow, less where the device's memory was short.

    An attempt at more that fails costs a few forwards, so each fall makes the next attempt come later.
    """

    most: int
    """Of the settings."""
    tokens: int = field(init=False)
    """What `plan` is given."""
    _patience: int = field(init=False, default=FIRST_PATIENCE)
    """Full batches in a row before the next rise."""
    _full: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.tokens = self.most

    def learn(self, batch: Batch, run: BatchRun) -> None:
        if run.fitted is None:
            self._ran(batch.size)
        # One row can be run in no other way, so that it failed says nothing of how many belong together.
        elif len(batch.rows) > 1:
            self._fell_short(batch.size, run.fitted)

    def _ran(self, size: int) -> None:
        if size < FULL * self.tokens:
            return
        self._full += 1
        if self._full < self._patience:
            return
        self._full = 0
        if self.tokens < self.most:
            self.tokens = min(self.most, self.tokens + max(int(RISE * self.tokens), 1))
        else:
            self._patience = FIRST_PATIENCE

    def _fell_short(self, size: int, fitted: int) -> None:
        self._full = 0
        # A larger batch was planned before the last fall: it is not an attempt that failed again.
        if size <= self.tokens:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.tokens = min(self.tokens, fitted or size // 2)
