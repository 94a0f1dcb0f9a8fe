"""How much padding each way to batch computes, without a model: ours, and what other systems do.

The ratio is padded tokens over real ones: 1.00 is none. The cost counts what a forward costs beside its tokens too, as
OVERHEAD tokens a batch: many small batches have little padding, and are slow all the same.
"""

from __future__ import annotations

import bisect
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks.lengths import BEAM, ONE_IN, SEED, beam, one_long
from benchmarks.report import Panel, Report, Spread
from fakes import FakeTask
from nlp_worker.batching import plan
from nlp_worker.poll import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Batches = list[list[int]]
    Policy = Callable[[Sequence[int]], Batches]

TEXTS: Final = 10_000

#: Rows that ours sees at once: what `poll_records` is by default.
WINDOW: Final = 1_024

#: Tokens. An assumption, and what the worker begins with: it measures its own.
OVERHEAD: Final = 512

#: Tokens: the most of a batch, of ours and of TEI's.
BUDGET: Final = 16_384

#: Tokens of a batch, padding included, and its rows: what our window was cut by before it was planned.
FIXED_BUDGET, FIXED_ROWS = 4_096, 512

#: Tokens: the upper ends of the buckets that Beam's length-aware batching has by default.
BUCKETS: Final = (16, 32, 64, 128, 256, 512)

#: Rows of a batch, and its tokens without padding: what Beam's benchmark gives to SortAndBatchElements.
BEAM_ROWS, BEAM_WEIGHT = 32, 2_000

OURS: Final = "ours: planned"

#: Ratios that ours was to reach: those of a prototype of the plan on the same lengths.
TARGETS: Final = {"Pareto": 1.38, "log-normal": 1.10, "bimodal": 1.08, "low variance": 1.03}


def chunks(lengths: Sequence[int], size: int) -> Batches:
    """Cut after every so many."""
    return [list(lengths[start : start + size]) for start in range(0, len(lengths), size)]


def filled(lengths: Sequence[int], fits: Callable[[list[int]], bool]) -> Batches:
    """Cut where the next one would not fit."""
    batches: Batches = []
    batch: list[int] = []
    for length in lengths:
        if batch and not fits([*batch, length]):
            batches.append(batch)
            batch = []
        batch.append(length)
    return [*batches, batch] if batch else batches


def within(lengths: Sequence[int], tokens: int, rows: int = sys.maxsize) -> Batches:
    """Cut where there would be more tokens, with padding, or more rows."""
    return filled(lengths, lambda batch: padded(batch) <= tokens and len(batch) <= rows)


def padded(batch: Sequence[int]) -> int:
    """Return its tokens, with padding."""
    return len(batch) * max(batch)


def buckets(lengths: Sequence[int], size: int) -> Batches:
    """Collect in a bucket for each range of lengths, and give out a bucket when it is full."""
    batches: Batches = []
    waiting: dict[int, list[int]] = {}
    for length in lengths:
        bucket = bisect.bisect_left(BUCKETS, length)
        waiting.setdefault(bucket, []).append(length)
        if len(waiting[bucket]) == size:
            batches.append(waiting.pop(bucket))
    return [*batches, *waiting.values()]


def planned(lengths: Sequence[int]) -> Batches:
    """Plan as the worker does, window after window."""
    return [
        [row.length for row in batch.rows]
        for window in chunks(lengths, WINDOW)
        for batch in plan(FakeTask(), _rows(window), budget=BUDGET, overhead=OVERHEAD)
    ]


POLICIES: Final[Mapping[str, Policy]] = {
    "FIFO 32 (MLServer, LitServe, Ray, BentoML)": lambda lengths: chunks(lengths, 32),
    "FIFO 256": lambda lengths: chunks(lengths, 256),
    "FIFO, 16,384 tokens (TEI)": lambda lengths: within(lengths, BUDGET),
    "sorted in 8 x 32 (infinity)": lambda lengths: [
        batch for window in chunks(lengths, 8 * 32) for batch in chunks(sorted(window), 32)
    ],
    "buckets of length, 32 (Beam)": lambda lengths: buckets(lengths, 32),
    "all sorted, 32 (Beam)": lambda lengths: filled(
        sorted(lengths), lambda batch: len(batch) <= BEAM_ROWS and sum(batch) <= BEAM_WEIGHT
    ),
    "1,024 sorted, 4,096 tokens": lambda lengths: [
        batch for window in chunks(lengths, WINDOW) for batch in within(sorted(window), FIXED_BUDGET, FIXED_ROWS)
    ],
    OURS: planned,
}


def main() -> None:
    found = report()
    found.show()
    found.write()
    for name, drawn in _lengths().items():
        spread = Spread.of(plan_milliseconds(drawn))
        print(f"planning {WINDOW:,} rows, {name}: {spread.median:.1f} ms ({spread.low:.1f} to {spread.high:.1f})")


def report() -> Report:
    """Compute all of it: the same on every machine."""
    tables = {name: table(name, drawn) for name, drawn in _lengths().items()}
    return Report(
        name="padding",
        title="Padding",
        settings={"texts": TEXTS, "seed": SEED, "window": WINDOW, "overhead": OVERHEAD, "budget": BUDGET},
        rows=[row for rows in tables.values() for row in rows],
        panels=[
            Panel(name, {str(row["policy"]): Spread.of([float(row["ratio"])]) for row in rows})
            for name, rows in tables.items()
        ],
        axis="padded tokens / real tokens",
        of_machine=False,
    )


def _lengths() -> dict[str, list[int]]:
    return {name: beam(name, TEXTS) for name in BEAM} | {f"one long in {ONE_IN}": one_long(TEXTS)}


def table(name: str, lengths: Sequence[int]) -> list[dict[str, str | float]]:
    """Return a row for each policy on one distribution."""
    cut = {policy: batches_of(lengths) for policy, batches_of in POLICIES.items()}
    cost = {policy: sum(map(padded, batches)) + OVERHEAD * len(batches) for policy, batches in cut.items()}
    return [
        {
            "lengths": name,
            "policy": policy,
            "ratio": sum(map(padded, batches)) / sum(lengths),
            "target": TARGETS.get(name, "") if policy == OURS else "",
            "batches": len(batches),
            "cost": cost[policy],
            "cost / ours": cost[policy] / cost[OURS],
        }
        for policy, batches in cut.items()
    ]


def plan_milliseconds(lengths: Sequence[int]) -> list[float]:
    """Return how long each full window takes to plan: of three times the median."""
    return [
        statistics.median(_planning(_rows(window)) for _ in range(3))
        for window in chunks(lengths, WINDOW)
        if len(window) == WINDOW
    ]


def _planning(rows: Sequence[Row]) -> float:
    began = time.perf_counter()
    plan(FakeTask(), rows, budget=BUDGET, overhead=OVERHEAD)
    return (time.perf_counter() - began) * 1_000


def _rows(lengths: Sequence[int]) -> list[Row]:
    return [Row({"input_ids": [0] * length}) for length in lengths]


if __name__ == "__main__":
    main()
