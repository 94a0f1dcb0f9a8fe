"""How many requests a second one, two and three workers of a group answer together, on Apache Kafka.

All of them have joined before the first request is there, and all requests are seen at once: what is measured is the
workers. They share the machine with the broker, so that there is nothing to gain beyond its cores.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from apache_kafka import ApacheKafka, why_not
from benchmarks.rate import NO_MODEL, TEXT, Topics, run_command
from benchmarks.report import Panel, Report, take_turns
from checkpoints import build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apache_kafka import RunningKafka

WORKERS: Final = (1, 2, 3)

#: Of a topic: each number of workers gets equal shares.
PARTITIONS: Final = 12

#: So many that a round takes ten seconds or so, and that the last polls of the slowest worker count for little.
REQUESTS_NO_MODEL: Final = 60_000
REQUESTS_TINY_MODEL: Final = 20_000


@click.command(context_settings={"show_default": True})
@click.option("--requests", default=REQUESTS_NO_MODEL, help="In each round, with no model.")
@click.option("--model-requests", default=REQUESTS_TINY_MODEL, help="In each round, with the tiny model.")
@click.option("--rounds", default=3)
def main(requests: int, model_requests: int, rounds: int) -> None:
    """Measure each number of workers, in turn."""
    if (reason := why_not()) is not None:
        sys.exit(f"no Apache Kafka: {reason}")
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, str | float]] = []
    panels = []
    with ApacheKafka() as broker, tempfile.TemporaryDirectory() as folder:
        checkpoint = build_checkpoint("distilbert", "sequence-classification", Path(folder))
        for model, command, count in (
            ("none", NO_MODEL, requests),
            ("tiny DistilBERT", run_command(checkpoint), model_requests),
        ):
            runs = {f"{number} of a group": partial(together, broker, command, number, count) for number in WORKERS}
            rates = take_turns(runs, rounds)
            alone = next(iter(rates.values())).median
            rows += [
                {
                    "model": model,
                    "workers": workers,
                    "cores": cores,
                    "requests": count,
                    **spread.columns("requests/s"),
                    "of one worker": spread.median / alone,
                }
                for workers, spread in rates.items()
            ]
            panels.append(Panel(f"model: {model}", rates))
    report = Report(
        name="scaling",
        title=f"Workers of one group, on {cores} cores",
        settings={"partitions": PARTITIONS, "threads": 1, "rounds": rounds},
        rows=rows,
        panels=panels,
        axis="requests/s",
    )
    report.show()
    report.write()


def together(broker: RunningKafka, command: Sequence[str], workers: int, requests: int) -> float:
    """Return requests per second of so many workers, from when the requests are there until the last answer is."""
    with Topics(broker, PARTITIONS) as topics, contextlib.ExitStack() as running:
        for _ in range(workers):
            running.enter_context(topics.worker(command))
        topics.joined()
        topics.send_at_once(TEXT for _ in range(requests))
        began = time.monotonic()
        ended, _ = topics.wait(requests)
    return requests / (ended - began)


if __name__ == "__main__":
    main()
