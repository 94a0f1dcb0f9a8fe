"""Batch: the unit of compute. Which rows are computed together."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from nlp_worker.poll import BatchRun, Row
    from nlp_worker.tasks.base import Task


#: Places where rows that refill each other's may be cut: evenly spread, for with many rows in a batch it matters little
#: where exactly, and the square of the number is looked at.
REFILLING_PLACES: Final = 32


class Shape(NamedTuple):
    """What all rows of a padded batch are made: as long as the longest, and so on, which may be different rows."""

    length: int = 0
    new_tokens: int = 0
    beams: int = 1

    @classmethod
    def of(cls, row: Row) -> Shape:
        return cls(row.length, row.new_tokens, row.beams)

    @classmethod
    def around(cls, rows: Iterable[Row]) -> Shape:
        """Return the smallest that all rows fit into."""
        return functools.reduce(cls.with_, {cls.of(row) for row in rows})

    def with_(self, other: Shape) -> Shape:
        return Shape(
            max(self.length, other.length), max(self.new_tokens, other.new_tokens), max(self.beams, other.beams)
        )

    @property
    def size(self) -> int:
        """Tokens that a row takes on the device."""
        return (self.length + self.new_tokens) * self.beams

    @property
    def forwards(self) -> int:
        """One for what is given, and one for each token that is added to it."""
        return 1 + self.new_tokens


class Refilled(NamedTuple):
    """Padded rows of which one takes another's place when that has ended."""

    shape: Shape
    """Of each."""
    rows: int
    new_tokens: int
    """Of all together."""
    slots: int
    """Rows that are computed at once."""

    @property
    def forwards(self) -> int:
        """Where the longest comes first: as many as fill the slots, or as the longest takes alone."""
        return max(self.shape.forwards, 1 + -(-self.new_tokens // self.slots))

    @property
    def forwards_at_worst(self) -> int:
        """In any order (Graham's bound): texts end earlier than they may, and nobody knows which."""
        return self.shape.forwards + -(-self.new_tokens // self.slots)

    @property
    def computed(self) -> int:
        """Tokens that are computed: padded prompts, and what is really added to each."""
        return self.rows * self.shape.length + self.new_tokens


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one task that run together: padded to the longest of them, or end to end where the task packs."""

    task: Task
    rows: Sequence[Row]
    most_slots: int | None = None
    """Rows that may be computed at once; the others wait for one of these to end. None is all."""

    def land(self, run: BatchRun) -> None:
        """Give each row its output."""
        for row, output in zip(self.rows, run.outputs, strict=True):
            row.output, row.run = output, run

    def part(self, rows: Sequence[Row]) -> Batch:
        """Return a batch of some of the rows, with as small a part of the slots."""
        return Batch(self.task, rows, -(-self.slots * len(rows) // len(self.rows)))

    @property
    def slots(self) -> int:
        """Rows that are computed at once."""
        return min(self.most_slots or len(self.rows), len(self.rows))

    @functools.cached_property
    def shape(self) -> Shape:
        """Of a padded row."""
        return Shape.around(self.rows)

    @property
    def longest(self) -> int:
        return self.shape.length

    @functools.cached_property
    def tokens(self) -> int:
        return sum(row.length for row in self.rows)

    @property
    def padded_tokens(self) -> int:
        return self.tokens if self.task.packs else len(self.rows) * self.longest

    @functools.cached_property
    def own_size(self) -> int:
        """Tokens that its rows would take on the device without padding."""
        return sum(row.size for row in self.rows)

    @property
    def size(self) -> int:
        """Tokens that it takes on the device at once: padding, and what is generated, included."""
        return self.own_size if self.task.packs else self.slots * self.shape.size

    @functools.cached_property
    def _refilled(self) -> Refilled | None:
        if not self.rows[0].refills:
            return None
        return Refilled(self.shape, len(self.rows), sum(row.new_tokens for row in self.rows), self.slots)

    @property
    def computed(self) -> int:
        """Tokens that the device computes, one after another and at once."""
        return self.size if self._refilled is None else self._refilled.computed

    @property
    def forwards(self) -> int:
        """How often the model is run at most."""
        return self.shape.forwards if self._refilled is None else self._refilled.forwards


def plan(task: Task, rows: Iterable[Row], *, budget: int, overhead: float) -> list[Batch]:
    """Cut rows into the batches that cost least, each of rows of one group.

    A batch costs ``overhead`` for each of its forwards and one for each token that is computed, padding and what is
    generated included. The largest comes first, so that memory is grown once. The result is the cheapest there is where
    rows differ in length alone; where they also differ in what is generated, the cheapest that keeps the rows in order
    of that. Rows that refill the places of others are cut where their sizes make that cheaper, into batches of any
    number of rows.

    Args:
        task: Of all rows.
        rows: What is to be computed.
        budget: The most tokens that a batch takes on the device. A row that is above it alone is a batch of its own,
            for it can be run in no other way.
        overhead: Tokens that the device could compute in the time that a forward takes beside its own.
    """
    budget = min(budget, task.max_batch_tokens or budget)
    groups: dict[Hashable, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.refills, row.group), []).append(row)
    batches: list[Batch] = []
    for group in groups.values():
        if group[0].refills:
            batches += _refilling(task, group, budget, overhead)
            continue
        group.sort(key=lambda row: (row.new_tokens, row.size))
        cuts = _fill(group, budget) if task.packs else _split(group, budget, overhead=overhead)
        batches += [Batch(task, group[start:end]) for start, end in itertools.pairwise(cuts)][::-1]
    return batches


def _refilling(task: Task, rows: list[Row], budget: int, overhead: float) -> list[Batch]:
    """Return batches of rows that refill the places of others: dynamic programming over a few places to cut.

    A row much larger than the others makes places larger, and so fewer, for all.
    """
    rows.sort(key=lambda row: row.size)
    added = list(itertools.accumulate((row.new_tokens for row in rows), initial=0))
    places = sorted({len(rows) * part // REFILLING_PLACES for part in range(REFILLING_PLACES + 1)})
    # Of each place: what the rows before it cost at least, and at which place the last of their batches begins then.
    costs, begins = [0.0], [0]
    for end in range(1, len(places)):
        shape, best, begin = Shape(), math.inf, end - 1
        for start in range(end - 1, -1, -1):
            shape = shape.with_(Shape.around(rows[places[start] : places[start + 1]]))
            new_tokens = added[places[end]] - added[places[start]]
            batch = Refilled(shape, places[end] - places[start], new_tokens, _slots(shape, budget))
            cost = costs[start] + overhead * batch.forwards_at_worst + batch.computed
            if cost < best:
                best, begin = cost, start
        costs.append(best)
        begins.append(begin)
    batches = []
    for start, end in itertools.pairwise(_trace(places, begins)):
        # The longest first: what is left at the end, when places stay empty, is short then.
        batch_rows = sorted(rows[start:end], key=lambda row: (row.new_tokens, row.length), reverse=True)
        batches.append(Batch(task, batch_rows, _slots(Shape.around(batch_rows), budget)))
    return batches[::-1]


def _slots(shape: Shape, budget: int) -> int:
    return max(budget // shape.size, 1)


def _fill(rows: Sequence[Row], budget: int) -> list[int]:
    """Return where to cut sorted rows that need no padding: as seldom as possible, for tokens cost what they cost."""
    cuts, taken = [0], 0
    for index, row in enumerate(rows):
        if taken + row.size > budget and taken:
            cuts.append(index)
            taken = 0
        taken += row.size
    return [*cuts, len(rows)]


def _split(rows: Sequence[Row], budget: int, *, overhead: float) -> list[int]:
    """Return where to cut sorted rows that are padded: dynamic programming over the places where a cut can pay."""
    shapes = [Shape.of(row) for row in rows]
    # Where rows differ in length alone the last of a batch is the largest in every way.
    by_length = len({shape[1:] for shape in shapes}) == 1
    places = _places([shape.size for shape in shapes], budget) if by_length else list(range(len(rows) + 1))
    # Of each place: what the rows before it cost at least, and at which place the last of their batches begins then.
    costs, begins = [0.0], [0]
    for end in range(1, len(places)):
        until, best, begin = places[end], math.inf, end - 1
        shape = shapes[until - 1]
        size, fixed = shape.size, overhead * shape.forwards
        # By length, what is dearer from an earlier place than from this one stays so: it pays more for each longer row.
        for start in range(end - 1, begins[-1] - 1 if by_length else -1, -1):
            if not by_length:
                shape = shape.with_(shapes[places[start]])
                size, fixed = shape.size, overhead * shape.forwards
            tokens = (until - places[start]) * size
            if tokens > budget and start < end - 1:
                break
            if costs[start] + fixed + tokens < best:
                best, begin = costs[start] + fixed + tokens, start
        costs.append(best)
        begins.append(begin)
    return _trace(places, begins)


def _trace(places: Sequence[int], begins: Sequence[int]) -> list[int]:
    """Return the places of the cheapest cuts: back from the last one, from each to where its batch begins."""
    cuts = [len(places) - 1]
    while cuts[-1]:
        cuts.append(begins[cuts[-1]])
    return [places[cut] for cut in reversed(cuts)]


def _places(sizes: Sequence[int], budget: int) -> list[int]:
    """Return where rows that are sorted by length may be cut: where the length changes, and where a batch is full.

    No other cut pays: of two batches that have rows of one length, the one of shorter rows takes them cheaper until it
    is full.
    """
    last = len(sizes)
    marked = [place in {0, last} or sizes[place] != sizes[place - 1] for place in range(last + 1)]
    end = 0
    for start in range(last):
        if marked[start]:
            end = max(end, start + 1)
            while end < last and (end + 1 - start) * sizes[end] <= budget:
                end += 1
            marked[end] = True
    return [place for place in range(last + 1) if marked[place]]
