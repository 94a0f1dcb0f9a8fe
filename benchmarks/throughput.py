"""How many texts a second are classified from Kafka to Kafka by a real model, beside what could be done without us.

Every contestant has the same checkpoint, texts and threads:

- `transformers.pipeline`, a text at a time and in batches of 32, in the order in which the texts come. They are slow,
  and get a sample: of the texts sorted by length every n-th, in their order, so that its lengths are those of all.
- Offline: the model's forward alone, over all texts, which were tokenized, sorted, cut and padded before the clock
  starts. The limit of what padded batches can do; of several cuts the one that was fastest before the first round.
- The worker, a new process in each round. Some texts warm it up; then the clock starts, all texts are sent, and when
  the broker has their last answer it stops. So producing them, both ways through Kafka and the last poll count.
"""

from __future__ import annotations

import contextlib
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

from apache_kafka import ApacheKafka, why_not
from benchmarks.lengths import BEAM, NATURAL, beam, natural, texts
from benchmarks.padding import chunks, within
from benchmarks.rate import Topics, embedded_broker, run_command
from benchmarks.report import Panel, Report, take_turns
from checkpoints import build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apache_kafka import RunningKafka
    from benchmarks.report import Spread

    Cut = Callable[[Sequence[int]], list[list[int]]]

ONE_BY_ONE: Final = "pipeline, one by one"
BATCHES: Final = "pipeline, batches of 32"
OFFLINE: Final = "offline, sorted"

#: The most texts of the pipelines' sample: on two cores a quarter to half a minute of DistilBERT.
SAMPLE: Final = 256

#: Texts that warm a worker up: enough batches of several lengths to learn what they cost.
WARM: Final = 64

#: What the offline limit tries: rows of a batch, and tokens of a batch with padding.
OFFLINE_ROWS: Final = (4, 8, 16, 32)
OFFLINE_TOKENS: Final = (512, 1_024, 2_048, 4_096)

#: Settings of the workers. Longer polls are for padded batches: what is sorted together is more.
WORKERS: Final = {
    "worker, packed": {"packing": "auto"},
    "worker, padded": {"packing": "off"},
    "worker, padded, poll_seconds=10": {"packing": "off", "poll_seconds": "10"},
}


class Size(NamedTuple):
    """Of a DistilBERT."""

    layers: int
    dim: int
    heads: int
    times: int
    """How often as many texts as asked for: a round should take seconds."""


#: DistilBERT's own, and one so small that everything beside the model counts.
SIZES: Final = {"distilbert": Size(6, 768, 12, 1), "small": Size(2, 128, 2, 8)}


@click.command(context_settings={"show_default": True})
@click.option("--size", "sizes", type=click.Choice(list(SIZES)), multiple=True, default=list(SIZES))
@click.option("--texts", "count", default=1_024, help="In each round; of the small model 8 times as many.")
@click.option("--rounds", default=3)
@click.option("--distribution", type=click.Choice(["natural", *BEAM]), default="natural", help="Of lengths.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--threads", default=len(os.sched_getaffinity(0)), help="Of torch, for every contestant.")
def main(*, sizes: Sequence[str], count: int, rounds: int, distribution: str, dtype: str, threads: int) -> None:
    """Measure all contestants, in turn."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    rows: list[dict[str, str | float]] = []
    panels = []
    with _broker() as (broker_name, broker):
        for name in sizes:
            size = SIZES[name]
            lengths = _lengths(distribution, count * size.times)
            with tempfile.TemporaryDirectory() as folder:
                contest = Contest(_checkpoint(size, Path(folder)), lengths, dtype)
                runs: dict[str, Callable[[], float]] = {
                    ONE_BY_ONE: contest.one_by_one,
                    BATCHES: contest.batches,
                    OFFLINE: contest.offline,
                }
                command = run_command(Path(folder), threads, "--dtype", dtype)
                for worker, settings in WORKERS.items():
                    runs[worker] = partial(contest.worker, broker, command, **settings)
                rates = take_turns(runs, rounds)
            model = f"{size.layers} layers of {size.dim}"
            rows += _rows(model, rates, contest)
            panels.append(Panel(model, rates))
    report = Report(
        name=f"throughput-{distribution.lower().replace(' ', '-')}-{dtype}",
        title="Text classification, from Kafka to Kafka",
        settings={
            "lengths": distribution,
            "dtype": dtype,
            "threads": threads,
            "rounds": rounds,
            "broker": broker_name,
        },
        rows=rows,
        panels=panels,
        axis="requests/s",
    )
    report.show()
    report.write()


class Contest:
    """The contestants on one checkpoint; each of them returns texts per second."""

    def __init__(self, checkpoint: Path, lengths: Sequence[int], dtype: str) -> None:
        self._pipeline = transformers.pipeline("text-classification", str(checkpoint), dtype=dtype, device="cpu")
        self.texts = texts(lengths, self._pipeline.tokenizer)
        by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.sample = [self.texts[index] for index in sorted(by_length[:: math.ceil(len(lengths) / SAMPLE)])]
        self.cut, cut = self._best_cut()
        self._batches = self._padded(self.texts, cut)

    def one_by_one(self) -> float:
        return _per_second(len(self.sample), lambda: [self._pipeline(text) for text in self.sample])

    def batches(self) -> float:
        return _per_second(len(self.sample), lambda: self._pipeline(self.sample, batch_size=32))

    def offline(self) -> float:
        return _per_second(len(self.texts), lambda: self._forward(self._batches))

    def worker(self, broker: RunningKafka, command: Sequence[str], **settings: str) -> float:
        with Topics(broker) as topics, topics.worker(command, **settings):
            warm = self.sample[:WARM]
            topics.send(warm)
            topics.wait(len(warm))
            began = time.monotonic()
            topics.send(self.texts)
            ended, _ = topics.wait(len(warm) + len(self.texts))
        return len(self.texts) / (ended - began)

    def _best_cut(self) -> tuple[str, Cut]:
        """Return the cut that is fastest on the sample, with its name."""
        cuts: dict[str, Cut] = {f"batches of {size}": partial(chunks, size=size) for size in OFFLINE_ROWS}
        cuts |= {f"{tokens:,} tokens": partial(within, tokens=tokens) for tokens in OFFLINE_TOKENS}
        rates = {}
        for name, cut in cuts.items():
            batches = self._padded(self.sample, cut)
            self._forward(batches[:1])  # the first forward of a shape sets up kernels
            rates[name] = _per_second(len(self.sample), partial(self._forward, batches))
            print(f"offline, {name}: {rates[name]:.1f} texts/s of the sample", file=sys.stderr)
        best = max(rates, key=rates.__getitem__)
        return best, cuts[best]

    def _padded(self, sample: Sequence[str], cut: Cut) -> list[Any]:
        """Return padded batches of texts, sorted and cut, as tensors of shape [rows, longest]."""
        tokenizer = self._pipeline.tokenizer
        rows = sorted(tokenizer(list(sample))["input_ids"], key=len)
        batches = []
        for batch in cut([len(row) for row in rows]):
            batches.append(tokenizer.pad({"input_ids": rows[: len(batch)]}, return_tensors="pt"))
            rows = rows[len(batch) :]
        return batches

    def _forward(self, batches: Sequence[Any]) -> None:
        with torch.inference_mode():
            for batch in batches:
                self._pipeline.model(**batch)


def _per_second(count: int, run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return count / (time.monotonic() - began)


def _rows(model: str, rates: dict[str, Spread], contest: Contest) -> list[dict[str, str | float]]:
    one_by_one, batches, offline = (rates[name].median for name in (ONE_BY_ONE, BATCHES, OFFLINE))
    return [
        {
            "model": model,
            "contestant": f"{name}, {contest.cut}" if name == OFFLINE else name,
            "texts": len(contest.sample if name in {ONE_BY_ONE, BATCHES} else contest.texts),
            **spread.columns("requests/s"),
            "/ offline": spread.median / offline,
            "/ one by one": spread.median / one_by_one,
            "/ batches of 32": spread.median / batches,
        }
        for name, spread in rates.items()
    ]


def _lengths(distribution: str, count: int) -> list[int]:
    drawn = natural(count) if distribution == "natural" else beam(distribution, count)
    return [min(length, NATURAL[1]) for length in drawn]


def _checkpoint(size: Size, folder: Path) -> Path:
    config: dict[str, Any] = {
        "dim": size.dim,
        "hidden_dim": 4 * size.dim,
        "n_layers": size.layers,
        "n_heads": size.heads,
    }
    return build_checkpoint("distilbert", "sequence-classification", folder, max_position_embeddings=512, **config)


@contextlib.contextmanager
def _broker() -> Iterator[tuple[str, RunningKafka]]:
    if why_not() is None:
        with ApacheKafka() as broker:
            yield "Apache Kafka", broker
    else:
        with embedded_broker() as embedded:
            yield "embedded", embedded


if __name__ == "__main__":
    main()
