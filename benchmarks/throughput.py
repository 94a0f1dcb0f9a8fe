"""How many texts a second are classified from Kafka to Kafka by a real model, beside what could be done without us.

Every contestant has the same checkpoint, texts, device, dtype and threads:

- `transformers.pipeline`, a text at a time and in batches of 32, in the order in which the texts come. They are slow,
  and get a sample: of the texts sorted by length every n-th, in their order, so that its lengths are those of all.
- Offline: the model's forward alone, over all texts, which were tokenized, sorted, cut, padded and on the device before
  the clock starts. The limit of what padded batches can do; of several cuts the one that was fastest before the first
  round.
- The worker, a new process in each round. Some texts warm it up; then the clock starts, all texts are sent, and when
  the broker has their last answer it stops. So producing them, both ways through Kafka and the last poll count.

MLServer is not among them: release 1.7.1 wants an older protobuf (below 7) than the sentencepiece of constraints.txt,
so it cannot be installed beside the worker.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import torch
import transformers

from benchmarks.lengths import BEAM, beam, natural, texts
from benchmarks.models import SIZES, classifier, device_name, device_of, file_name, quiet
from benchmarks.padding import chunks, within
from benchmarks.rate import Topics, best_broker, run_command
from benchmarks.report import Panel, Report, Spread, take_turns
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apache_kafka import RunningKafka

    Cut = Callable[[Sequence[int]], list[list[int]]]

ONE_BY_ONE: Final = "pipeline, one by one"
BATCHES: Final = "pipeline, batches of 32"
OFFLINE: Final = "offline, sorted"

NATURAL: Final = "natural"
DISTRIBUTIONS: Final = (NATURAL, *BEAM)
ALL: Final = "all"

#: Texts that warm a worker up: enough batches of several lengths to learn what they cost.
WARM: Final = 64

#: Settings of the workers. Longer polls are for padded batches: what is sorted together is more. A GPU reaches the most
#: records of a poll before its seconds.
WORKERS: Final = {
    "worker, packed": {"packing": "auto"},
    "worker, padded": {"packing": "off"},
}
LONG_POLLS: Final = {"worker, padded, poll_seconds=10": {"packing": "off", "poll_seconds": "10"}}


class Trial(NamedTuple):
    """How the fastest cut of the offline limit is found."""

    texts: int
    """At most."""
    rows: Sequence[int]
    """Of a batch."""
    tokens: Sequence[int]
    """Of a batch, with padding."""


TRIALS: Final = {
    "cpu": Trial(256, (4, 8, 16, 32), (512, 1_024, 2_048, 4_096)),
    "cuda": Trial(4_096, (32, 64, 128, 256), (4_096, 8_192, 16_384, 32_768)),
}


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
@click.option("--batch-tokens", default=load_settings({}).batch_tokens, help="As the worker's setting.")
@click.option("--threads", default=len(os.sched_getaffinity(0)), help="Of torch, for every contestant.")
@click.option("--device", default="auto", help="As the worker's setting, for every contestant.")
def main(
    *,
    sizes: Sequence[str],
    count: int,
    sample: int,
    rounds: int,
    chosen: Sequence[str],
    dtype: str,
    batch_tokens: int,
    threads: int,
    device: str,
) -> None:
    """Measure all contestants, in turn."""
    quiet()
    torch.set_num_threads(threads)
    where = device_of(device)
    distributions = [name for name in DISTRIBUTIONS if name in chosen or ALL in chosen]
    options = ("--dtype", dtype, "--device", str(where), "--batch-tokens", str(batch_tokens))
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
                rows += _rows(size, distribution, rates, contest)
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
            "batch_tokens": batch_tokens,
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


class Contest:
    """The contestants on one checkpoint and texts of one distribution; each of them returns texts per second.

    Args:
        pipeline: transformers' of the checkpoint.
        lengths: Of the texts, in tokens.
        sample: Texts of the pipelines at most.
    """

    def __init__(self, pipeline: Any, lengths: Sequence[int], sample: int) -> None:
        self._pipeline = pipeline
        self._texts = texts(lengths, pipeline.tokenizer)
        self._by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        self._sample = self._of_all_lengths(sample)
        self.cut, cut = self._best_cut(TRIALS[pipeline.device.type])
        self._batches = self._padded(self._texts, cut)

    def contestants(self, broker: RunningKafka, command: Sequence[str]) -> dict[str, Callable[[], float]]:
        """Return all, by their names.

        Args:
            broker: Of the workers' topics.
            command: Starts a worker.
        """
        workers: Mapping[str, Mapping[str, str]] = WORKERS
        if self._pipeline.device.type == "cpu":
            workers = {**WORKERS, **LONG_POLLS}
        return {
            ONE_BY_ONE: self.one_by_one,
            BATCHES: self.batches,
            OFFLINE: self.offline,
            **{name: partial(self.worker, broker, command, **settings) for name, settings in workers.items()},
        }

    def one_by_one(self) -> float:
        return _per_second(len(self._sample), lambda: [self._pipeline(text) for text in self._sample])

    def batches(self) -> float:
        return _per_second(len(self._sample), lambda: self._pipeline(self._sample, batch_size=32))

    def offline(self) -> float:
        return _per_second(len(self._texts), lambda: self._forward(self._batches))

    def worker(self, broker: RunningKafka, command: Sequence[str], **settings: str) -> float:
        with Topics(broker) as topics, topics.worker(command, **settings):
            warm = self._sample[:WARM]
            topics.send(warm)
            topics.wait(len(warm))
            began = time.monotonic()
            topics.send(self._texts)
            ended, _ = topics.wait(len(warm) + len(self._texts))
        return len(self._texts) / (ended - began)

    def _of_all_lengths(self, most: int) -> list[str]:
        """Return every n-th of the texts sorted by length, in their order."""
        return [self._texts[index] for index in sorted(self._by_length[:: math.ceil(len(self._texts) / most)])]

    def _best_cut(self, trial: Trial) -> tuple[str, Cut]:
        """Return the cut that is fastest in a trial, with its name."""
        cuts: dict[str, Cut] = {f"batches of {rows}": partial(chunks, size=rows) for rows in trial.rows}
        cuts |= {f"{tokens:,} tokens": partial(within, tokens=tokens) for tokens in trial.tokens}
        sample = self._of_all_lengths(trial.texts)
        rates = {}
        for name, cut in cuts.items():
            batches = self._padded(sample, cut)
            self._forward(batches[:1])  # the first forward of a shape sets up kernels
            rates[name] = _per_second(len(sample), partial(self._forward, batches))
            print(f"offline, {name}: {rates[name]:.1f} texts/s of the sample", file=sys.stderr)
        best = max(rates, key=rates.__getitem__)
        return best, cuts[best]

    def _padded(self, sample: Sequence[str], cut: Cut) -> list[Any]:
        """Return padded batches of texts, sorted and cut, as tensors of shape [rows, longest] on the device."""
        tokenizer = self._pipeline.tokenizer
        rows = sorted(tokenizer(list(sample))["input_ids"], key=len)
        batches = []
        for batch in cut([len(row) for row in rows]):
            padded = tokenizer.pad({"input_ids": rows[: len(batch)]}, return_tensors="pt")
            batches.append(padded.to(self._pipeline.device))
            rows = rows[len(batch) :]
        return batches

    def _forward(self, batches: Sequence[Any]) -> None:
        with torch.inference_mode():
            logits = [self._pipeline.model(**batch).logits for batch in batches]
            torch.cat(logits).cpu()  # waits for a GPU


def _per_second(count: int, run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return count / (time.monotonic() - began)


def _rows(size: str, distribution: str, rates: Mapping[str, Spread], contest: Contest) -> list[dict[str, str | float]]:
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
