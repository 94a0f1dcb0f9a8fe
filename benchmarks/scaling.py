"""How many requests a second several workers of a group answer together.

All of them have joined before the first request is there, and on Apache Kafka all requests are seen at once: what is
measured is the workers. They share the machine with the broker, so that there is nothing to gain beyond its cores. On a
GPU, which they share too, one worker's control thread is slower than the device with a model of DistilBERT's size.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from apache_kafka import ApacheKafka
from benchmarks.models import SIZES, classifier, device_name, device_of, file_name, quiet
from benchmarks.rate import NO_MODEL, TEXT, Topics, best_broker, run_command
from benchmarks.report import Panel, Report, take_turns
from checkpoints import build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apache_kafka import RunningKafka

#: How many there are, by the type of the device.
WORKERS: Final = {"cpu": (1, 2, 3), "cuda": (1, 2, 4, 8)}

#: Of a topic: each number of workers gets equal shares.
PARTITIONS: Final = 24

#: So many that a round takes ten seconds or so, and that the last polls of the slowest worker count for little.
REQUESTS_NO_MODEL: Final = 60_000
REQUESTS: Final = 20_000


@click.command(context_settings={"show_default": True})
@click.option("--requests", default=REQUESTS_NO_MODEL, help="In each round, with no model.")
@click.option("--model-requests", default=REQUESTS, help="In each round, with a model.")
@click.option("--rounds", default=3)
@click.option("--device", default="cpu", help="cuda: of a DistilBERT, else of a tiny one.")
def main(requests: int, model_requests: int, rounds: int, device: str) -> None:
    """Measure each number of workers, in turn."""
    quiet()
    where = device_of(device)
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, str | float]] = []
    panels = []
    with best_broker() as (broker_name, broker), tempfile.TemporaryDirectory() as folder:
        cases: list[tuple[str, Sequence[str], int]] = []
        if where.type == "cuda":
            name, checkpoint = "DistilBERT", classifier(SIZES["distilbert"], Path(folder))
        else:
            cases.append(("none", NO_MODEL, requests))
            name = "tiny DistilBERT"
            checkpoint = build_checkpoint("distilbert", "sequence-classification", Path(folder))
        cases.append((name, run_command(checkpoint, 1, "--device", device), model_requests))
        for model, command, count in cases:
            runs = {
                f"{number} of a group": partial(together, broker, command, number, count)
                for number in WORKERS[where.type]
            }
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
        name=file_name("scaling", where),
        title=f"Workers of one group, on {cores} cores",
        settings={
            "device": device_name(where),
            "partitions": PARTITIONS,
            "threads": 1,
            "rounds": rounds,
            "broker": broker_name,
        },
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
        texts = (TEXT for _ in range(requests))
        if isinstance(broker, ApacheKafka):
            topics.send_at_once(texts)
            began = time.monotonic()
        else:
            # The embedded broker has no transactions: sending counts.
            began = time.monotonic()
            topics.send(texts)
        ended, _ = topics.wait(requests)
    return requests / (ended - began)


if __name__ == "__main__":
    main()
