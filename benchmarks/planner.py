"""Whether a planner with nothing to tune is as fast as the best fixed rule for each distribution of lengths.

A fixed rule sorts 1,024 rows in the order in which they come, and cuts them after so many rows, or before so many
tokens, with padding. All pairs of the two are tried once on the first 1,024 rows; then the three best take turns with
the planner on all rows. Every contestant's batches are computed by the worker's own task on its device thread. The
planner's time for planning counts; the rules' batches are cut before the clock starts. It has warmed up, as a
worker does, and computed the rows once.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from benchmarks.lengths import BEAM, beam, texts
from benchmarks.models import (
    SIZES,
    Device,
    classifier,
    compute,
    device_name,
    device_of,
    device_thread,
    file_name,
    quiet,
    serve,
)
from benchmarks.padding import WINDOW, within
from benchmarks.report import Panel, Report, Spread, take_turns
from nlp_schemas import REQUESTS, TaskName
from nlp_worker.batching import Batch
from nlp_worker.errors import RequestError
from nlp_worker.poll import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nlp_worker.executor import Executor
    from nlp_worker.poll import Row
    from nlp_worker.tasks.base import Task

TASK: Final = TaskName.TEXT_CLASSIFICATION

#: What the sweep tries: the most rows of a batch, and the most tokens of it with padding.
ROWS: Final = (8, 16, 32, 64, 128, 256)
TOKENS: Final = (1_024, 2_048, 4_096, 8_192, 16_384, sys.maxsize)

#: Points of the sweep that are measured again: one time tells the best ones no better.
FINALISTS: Final = 3

PADDED, PACKED, SWEEP = "planner, padded", "planner, packed", "best of sweep"


@click.command(context_settings={"show_default": True})
@click.option("--size", type=click.Choice(list(SIZES)), default="small")
@click.option("--texts", "count", default=2 * WINDOW, help="Of each distribution.")
@click.option("--rounds", default=5)
@click.option("--threads", type=int, help="As the worker's setting.")
@click.option("--device", default="auto", help="As the worker's setting.")
def main(*, size: str, count: int, rounds: int, threads: int | None, device: str) -> None:
    """Measure the planner beside the sweep, for each distribution."""
    quiet()
    where = device_of(device)
    settings = {"threads": threads, "device": device}
    with tempfile.TemporaryDirectory() as folder:
        path = classifier(SIZES[size], Path(folder))
        padded, packed = (serve(TASK, path, packing=packing, **settings) for packing in ("off", "auto"))
    rows: list[dict[str, str | float]] = []
    panels = []
    with device_thread() as thread:
        for name in BEAM:
            print(f"{name}:", file=sys.stderr)
            sweep = Sweep(padded, thread, _rows(padded, beam(name, count)))
            runs = {rule: partial(sweep.run, rule) for rule in sweep.best()}
            for contestant, task in ((PADDED, padded), (PACKED, packed)):
                runs[contestant] = partial(_plan, Device(task, thread, where), task, sweep.windows)
                runs[contestant]()  # from which it learns
            rates = take_turns(runs, rounds)
            rows += _table(name, rates)
            panels.append(Panel(name, _bars(rates)))
    report = Report(
        name=file_name("planner", where),
        title="The planner beside the best fixed rule",
        settings={
            "model": str(SIZES[size]),
            "device": device_name(where),
            "texts": count,
            "rounds": rounds,
        },
        rows=rows,
        panels=panels,
        axis="requests/s",
    )
    report.show()
    report.write()


class Sweep:
    """The fixed rules on the rows of one distribution.

    Args:
        task: That pads.
        thread: The device's.
        rows: In the order in which they come.
    """

    def __init__(self, task: Task, thread: Executor, rows: Sequence[Row]) -> None:
        self._task = task
        self._thread = thread
        self.windows = [list(rows[start : start + WINDOW]) for start in range(0, len(rows), WINDOW)]
        #: The windows' batches by each rule, without those that cut as an earlier one does.
        self._rules: dict[str, list[list[Batch]]] = {}
        seen: list[Any] = []
        for name, rows_of_batch, tokens in _rules():
            batches = [list(self._cut(window, rows_of_batch, tokens)) for window in self.windows]
            sizes = [[len(batch.rows) for batch in window] for window in batches]
            if sizes not in seen:
                seen.append(sizes)
                self._rules[name] = batches

    def best(self) -> list[str]:
        """Return the rules that are fastest on the first window."""
        first = next(iter(self._rules))
        self.run(first, windows=1)  # sets up what the first forwards set up
        rates = {}
        for number, rule in enumerate(self._rules, 1):
            rates[rule] = self.run(rule, windows=1)
            print(f"rule {number} of {len(self._rules)}, {rule}: {rates[rule]:.1f}", file=sys.stderr)
        return sorted(rates, key=rates.__getitem__, reverse=True)[:FINALISTS]

    def run(self, rule: str, windows: int | None = None) -> float:
        """Return rows per second of a rule's batches, on the first so many windows or on all."""
        batches = self._rules[rule][:windows]
        began = time.monotonic()
        for window in batches:
            compute(self._thread, window)
        return sum(len(batch.rows) for window in batches for batch in window) / (time.monotonic() - began)

    def _cut(self, window: Sequence[Row], rows: int, tokens: int) -> Iterator[Batch]:
        """Largest first, as the planner has it."""
        waiting = sorted(window, key=lambda row: row.length)
        for lengths in within([row.length for row in waiting], tokens, rows)[::-1]:
            yield Batch(self._task, waiting[len(waiting) - len(lengths) :])
            del waiting[len(waiting) - len(lengths) :]


def _rules() -> Iterator[tuple[str, int, int]]:
    """Give each rule's name, rows and tokens."""
    for rows, tokens in itertools.product(ROWS, TOKENS):
        yield f"{rows} rows, {'any' if tokens == sys.maxsize else f'{tokens:,}'} tokens", rows, tokens


def _plan(device: Device, task: Task, windows: Sequence[list[Row]]) -> float:
    """Return rows per second as the planner batches them, each window a poll."""
    began = time.monotonic()
    for window in windows:
        device.compute([Entry(None, TASK, task=task, rows=window)])  # type: ignore[arg-type]  # no record: nothing reads it
    return sum(map(len, windows)) / (time.monotonic() - began)


def _rows(task: Any, lengths: Sequence[int]) -> list[Row]:
    requests = [REQUESTS[TASK].model_validate({"inputs": text}) for text in texts(lengths, task._encoder.tokenizer)]
    rows = []
    for prepared in task.preprocess(requests):
        if isinstance(prepared, RequestError):
            raise prepared
        rows += prepared.rows
    return rows


def _best(rates: dict[str, Spread]) -> str:
    """Return the rule that was fastest."""
    return max(rates.keys() - {PADDED, PACKED}, key=lambda rule: rates[rule].median)


def _table(name: str, rates: dict[str, Spread]) -> list[dict[str, str | float]]:
    rule = _best(rates)
    return [
        {
            "lengths": name,
            "contestant": contestant,
            **rates[contestant].columns("requests/s"),
            SWEEP: rates[rule].median,
            "its rule": rule,
            "/ best of sweep": rates[contestant].median / rates[rule].median,
        }
        for contestant in (PADDED, PACKED)
    ]


def _bars(rates: dict[str, Spread]) -> dict[str, Spread]:
    return {PADDED: rates[PADDED], PACKED: rates[PACKED], SWEEP: rates[_best(rates)]}


if __name__ == "__main__":
    main()
