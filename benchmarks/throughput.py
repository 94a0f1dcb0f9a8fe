"""How many texts a second are classified from Kafka to Kafka by a real model, beside what could be done without us.

Every contestant has the same checkpoint, texts, device, dtype and threads:

- `transformers.pipeline`, a text at a time and in batches of 32, in the order in which the texts come. They are slow,
  and get a sample: of the texts sorted by length every n-th, in their order, so that its lengths are those of all.
- Offline: the model's forward alone, over all texts, which were tokenized, sorted, cut, padded and on the device before
  the clock starts. The limit of what padded batches can do; of several cuts the one that was fastest before the first
  round.
- Matrix products: those of the model's layers alone, over the tokens of the texts without any padding. What is left
  when everything else takes no time, so that nobody can be faster with this checkpoint on this device.
- The worker, a new process in each round. Some texts warm it up; then the clock starts, all texts are sent, and when
  the broker has their last answer it stops. So producing them, both ways through Kafka and the last poll count.

MLServer is not among them: release 1.7.1 wants an older protobuf (below 7) than the sentencepiece of constraints.txt,
so it cannot be installed beside the worker.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import torch
import transformers

from benchmarks.contest import BATCHES, OFFLINE, ONE_BY_ONE, Contest
from benchmarks.lengths import BEAM, beam, natural
from benchmarks.models import SIZES, classifier, device_name, device_of, file_name, quiet
from benchmarks.rate import best_broker, run_command
from benchmarks.report import Panel, Report, Spread, take_turns
from nlp_worker import models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NATURAL: Final = "natural"
DISTRIBUTIONS: Final = (NATURAL, *BEAM)
ALL: Final = "all"


@click.command(context_settings={"show_default": True})
@click.option("--size", "sizes", type=click.Choice(list(SIZES)), multiple=True, default=list(SIZES))
@click.option("--texts", "count", default=1_024, help="In each round; of the small model 8 times as many.")
@click.option("--sample", default=256, help="The most texts of the pipelines.")
@click.option("--rounds", default=3)
@click.option(
    "--distribution",
    "chosen",
    type=click.Choice([*DISTRIBUTIONS, ALL]),
    multiple=True,
    default=[NATURAL],
    help="Of lengths.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--threads", type=int, help="Of torch, for every contestant; else as the worker's default.")
@click.option("--device", default="auto", help="As the worker's setting, for every contestant.")
def main(
    *,
    sizes: Sequence[str],
    count: int,
    sample: int,
    rounds: int,
    chosen: Sequence[str],
    dtype: str,
    threads: int | None,
    device: str,
) -> None:
    """Measure all contestants, in turn."""
    quiet()
    where = device_of(device)
    threads = threads or models._threads(where)
    torch.set_num_threads(threads)
    distributions = [name for name in DISTRIBUTIONS if name in chosen or ALL in chosen]
    options = ("--dtype", dtype, "--device", str(where))
    rows: list[dict[str, str | float]] = []
    bars: dict[str, dict[str, Spread]] = {distribution: {} for distribution in distributions}
    with best_broker() as (broker_name, broker), tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            checkpoint = classifier(SIZES[size], Path(folder) / size)
            pipeline = transformers.pipeline("text-classification", str(checkpoint), dtype=dtype, device=where)
            command = run_command(checkpoint, threads, *options)
            for distribution in distributions:
                print(f"{size}, {distribution}:", file=sys.stderr)
                contest = Contest(pipeline, _lengths(distribution, count * SIZES[size].times), sample)
                rates = take_turns(contest.contestants(broker, command), rounds)
                rows += _table(size, distribution, rates, contest)
                bars[distribution] |= _bars(size, rates)
    name = ALL if len(distributions) == len(DISTRIBUTIONS) else "-".join(distributions).lower().replace(" ", "-")
    report = Report(
        name=file_name(f"throughput-{name}-{dtype}", where),
        title="Text classification, from Kafka to Kafka",
        settings={
            **{size: str(SIZES[size]) for size in sizes},
            "texts": ", ".join(f"{size} {count * SIZES[size].times}" for size in sizes),
            "of pipelines": sample,
            "dtype": dtype,
            "device": device_name(where),
            "threads": threads,
            "rounds": rounds,
            "broker": broker_name,
        },
        rows=rows,
        panels=[Panel(distribution, of_it) for distribution, of_it in bars.items()],
        axis="requests/s, over one by one",
    )
    report.show()
    report.write()


def _table(size: str, distribution: str, rates: Mapping[str, Spread], contest: Contest) -> list[dict[str, str | float]]:
    one_by_one, batches, offline = (rates[name].median for name in (ONE_BY_ONE, BATCHES, OFFLINE))
    return [
        {
            "model": size,
            "lengths": distribution,
            "contestant": f"{name}, {contest.cut}" if name == OFFLINE else name,
            **spread.columns("requests/s"),
            "/ one by one": spread.median / one_by_one,
            "/ batches of 32": spread.median / batches,
            "/ offline": spread.median / offline,
            "idle": f"{statistics.median(contest.idle[name]):.1%}" if name in contest.idle else "",
        }
        for name, spread in rates.items()
    ]


def _bars(size: str, rates: Mapping[str, Spread]) -> dict[str, Spread]:
    """Return what is shown of a model: how often as fast as one by one each of the others is."""
    one_by_one = rates[ONE_BY_ONE].median
    return {
        f"{size}: {name}": Spread(*(value / one_by_one for value in spread))
        for name, spread in rates.items()
        if name != ONE_BY_ONE
    }


def _lengths(distribution: str, count: int) -> list[int]:
    return natural(count) if distribution == NATURAL else beam(distribution, count)


if __name__ == "__main__":
    main()
