"""How long an answer takes at a given load: our worker beside one that batches in the order of arrival.

Requests are sent at their due times, which are drawn beforehand (Poisson arrivals), whatever is answered by then: a
worker that is slow is not asked less. The latency is from when a request was due until its answer was read. Both
workers are processes that run all the time, each on topics of its own, and take turns; they get the same requests at
the same times. This process sends and reads, on the same machine: the table says how much of a core that takes.

A load that is more than a worker's most saturates it: what is not answered waits, and the latencies are the longer the
longer the round is.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import transformers

from benchmarks import fifo
from benchmarks.lengths import SEED, natural, texts
from benchmarks.models import Size, classifier, quiet
from benchmarks.rate import Topics, best_broker, run_command
from benchmarks.report import Panel, Report, Spread, take_turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OURS: Final = "worker"
FIFO: Final = "FIFO"

#: Offered, of what our worker answers at most.
LOADS: Final = (0.1, 0.25, 0.5, 0.75, 0.9)

#: Hidden units of an attention head, BERT's.
HEAD: Final = 64

#: Requests that warm a worker up: the first batches of a process are slow.
WARM: Final = 64

#: Milliseconds of a poll for answers; it ends with the first one.
READ_MS: Final = 100


class Point(NamedTuple):
    """One contestant's round at one load."""

    p50: float
    """Milliseconds."""
    p99: float
    generator: float
    """Cores that sending and reading took."""


@click.command(context_settings={"show_default": True})
@click.option("--layers", default=4, help="Of a DistilBERT.")
@click.option("--width", default=256, help="Of each layer.")
@click.option("--seconds", default=10.0, help="Of requests, at each load and in each round.")
@click.option("--burst", default=512, help="Requests at once, whose rate is what a worker answers at most.")
@click.option("--rounds", default=3)
@click.option("--rows", default=32, help="Of the other's full batch: what such batchers are mostly set to.")
@click.option("--linger-ms", default=50, help="How long a batch of the other's waits for more at most.")
@click.option("--threads", default=1, help="Of torch, for both.")
def main(
    *, layers: int, width: int, seconds: float, burst: int, rounds: int, rows: int, linger_ms: int, threads: int
) -> None:
    """Measure both at each load, in turn."""
    quiet()
    size = Size(layers, width, width // HEAD, times=1)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        classifier(size, folder)
        broker_name, broker = stack.enter_context(best_broker())
        commands = {OURS: run_command(folder, threads), FIFO: fifo.command(folder, threads, rows, linger_ms)}
        contestants: dict[str, Topics] = {}
        for name, command in commands.items():
            # One partition: its order is that of arrival.
            contestants[name] = stack.enter_context(Topics(broker, partitions=1, linger_ms=0))
            stack.enter_context(contestants[name].worker(command))
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        sample = texts(natural(burst), tokenizer)
        for topics in contestants.values():
            answer_all(topics, sample[:WARM])
        runs = {name: partial(answer_all, topics, sample) for name, topics in contestants.items()}
        most = take_turns(runs, rounds)
        points: dict[float, dict[str, list[Point]]] = {}
        for load in LOADS:
            due = arrivals(load * most[OURS].median, seconds)
            points[load] = measured(contestants, texts(natural(len(due)), tokenizer), due, rounds)
    report = Report(
        name=f"latency-fifo-{rows}",
        title="From produce to answer",
        settings={
            "model": f"DistilBERT, {size}",
            "threads": threads,
            "FIFO": f"{rows} rows, linger {linger_ms} ms",
            "seconds": seconds,
            "rounds": rounds,
            "broker": broker_name,
        },
        rows=_rows(points, most),
        panels=_panels(points, most),
        axis="p99 in ms; lines: lowest and highest round",
    )
    report.show()
    report.write()


def answer_all(topics: Topics, sample: Sequence[str]) -> float:
    """Return how many requests a second are answered when all are there."""
    before, began = topics.answered(), time.monotonic()
    topics.send(sample)
    ended, _ = topics.wait(before + len(sample))
    return len(sample) / (ended - began)


def arrivals(rate: float, seconds: float) -> list[float]:
    """Return when requests are due, in seconds from the start, the same each time.

    Poisson arrivals of which is known how many there are, so that the load is what it says: these are uniform.
    """
    draw = random.Random(SEED)  # noqa: S311 - times, not secrets
    return sorted(draw.uniform(0, seconds) for _ in range(max(round(rate * seconds), 2)))


def measured(
    contestants: Mapping[str, Topics], sample: Sequence[str], due: Sequence[float], rounds: int
) -> dict[str, list[Point]]:
    """Return each contestant's points, a round of all after the other."""
    points: dict[str, list[Point]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, topics in contestants.items():
            points[name].append(point(topics, sample, due))
            shown = f"p50 {points[name][-1].p50:.0f} ms, p99 {points[name][-1].p99:.0f} ms"
            print(f"{len(due)} requests, round {number + 1} of {rounds}, {name}: {shown}", file=sys.stderr)
    return points


def point(topics: Topics, sample: Sequence[str], due: Sequence[float]) -> Point:
    """Send each text when it is due, and return what their latencies were."""
    latency: dict[int, float] = {}
    with topics.answers() as answers, ThreadPoolExecutor(1) as sender:
        began, began_cpu = time.monotonic(), time.process_time()
        sending = sender.submit(_send, topics, sample, [began + seconds for seconds in due])
        while len(latency) < len(due):
            for records in answers.poll(READ_MS).values():
                seen = time.monotonic() - began
                # Of a request that is answered twice the first answer counts.
                for number in (int(record.key) for record in records):
                    latency.setdefault(number, seen - due[number])
            topics.check()
            if sending.done():
                sending.result()  # raises what the sender did
        generator = (time.process_time() - began_cpu) / (time.monotonic() - began)
    topics.wait(0)  # raises where there were errors
    p50, p99 = percentiles([1_000 * seconds for seconds in latency.values()])
    return Point(p50, p99, generator)


def _send(topics: Topics, sample: Sequence[str], due: Sequence[float]) -> None:
    for number, (text, moment) in enumerate(zip(sample, due, strict=True)):
        time.sleep(max(moment - time.monotonic(), 0))
        topics.request(number, text)


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the 50th and the 99th."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]


def _rows(points: Mapping[float, Mapping[str, Sequence[Point]]], most: Mapping[str, Spread]) -> list[dict[str, Any]]:
    rows = []
    for load, contestants in points.items():
        rate = load * most[OURS].median
        for name, rounds in contestants.items():
            p50, p99 = (Spread.of(values) for values in ([p.p50 for p in rounds], [p.p99 for p in rounds]))
            rows.append(
                {
                    "requests/s": rate,
                    "of the worker's most": load,
                    "contestant": name,
                    "of its own most": rate / most[name].median,
                    "saturated": "yes" if rate >= most[name].median else "no",
                    "p50 ms": p50.median,
                    "p50 lowest": p50.low,
                    "p50 highest": p50.high,
                    "p99 ms": p99.median,
                    "p99 lowest": p99.low,
                    "p99 highest": p99.high,
                    "generator's cores": statistics.median(p.generator for p in rounds),
                }
            )
    return rows


def _panels(points: Mapping[float, Mapping[str, Sequence[Point]]], most: Mapping[str, Spread]) -> list[Panel]:
    panels = []
    for load, contestants in points.items():
        rate = load * most[OURS].median
        saturated = ", FIFO saturated" if rate >= most[FIFO].median else ""
        bars = {name: Spread.of(p.p99 for p in rounds) for name, rounds in contestants.items()}
        panels.append(Panel(f"{rate:.0f} requests/s{saturated}", bars))
    return panels


if __name__ == "__main__":
    main()
