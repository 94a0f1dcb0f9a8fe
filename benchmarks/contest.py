"""The contestants of benchmarks.throughput: what they are is said there."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from benchmarks.lengths import texts
from benchmarks.padding import chunks, within
from benchmarks.rate import Topics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from apache_kafka import RunningKafka

    Cut = Callable[[Sequence[int]], list[list[int]]]

ONE_BY_ONE: Final = "pipeline, one by one"
BATCHES: Final = "pipeline, batches of 32"
OFFLINE: Final = "offline, sorted"
PRODUCTS: Final = "matrix products alone"

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
    """How the fastest cut of the offline limit is found, and of the products'."""

    texts: int
    """At most."""
    rows: Sequence[int]
    """Of a batch."""
    tokens: Sequence[int]
    """Of a batch, with padding."""


TRIALS: Final = {
    "cpu": Trial(256, (4, 8, 16, 32), (512, 1_024, 2_048, 4_096, 16_384)),
    "cuda": Trial(4_096, (32, 64, 128, 256), (4_096, 8_192, 16_384, 32_768)),
}


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
        trial = TRIALS[pipeline.device.type]
        self.cut, cut = self._best_cut(trial)
        self._batches = self._padded(self._texts, cut)
        self._product_tokens = max(trial.tokens, key=self._products)
        #: Of each worker and round, which part of the time its device had nothing to do.
        self.idle: defaultdict[str, list[float]] = defaultdict(list)
        if pipeline.device.type == "cuda":
            # Kernels are loaded, and chosen by shapes, in the first forwards; a worker has texts to warm up with.
            for run in (self.one_by_one, self.batches, self.offline, self.products):
                run()

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
            PRODUCTS: self.products,
            **{name: partial(self.worker, name, broker, command, **settings) for name, settings in workers.items()},
        }

    def one_by_one(self) -> float:
        return _per_second(len(self._sample), lambda: [self._pipeline(text) for text in self._sample])

    def batches(self) -> float:
        return _per_second(len(self._sample), lambda: self._pipeline(self._sample, batch_size=32))

    def offline(self) -> float:
        return _per_second(len(self._texts), lambda: self._forward(self._batches))

    def products(self) -> float:
        return self._products(self._product_tokens)

    @torch.inference_mode()
    def _products(self, most: int) -> float:
        """Run the layers' products one after another, in batches of so many tokens, for the sample's texts."""
        model = self._pipeline.model
        layers = [layer for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear)]
        tokens = sum(map(len, self._pipeline.tokenizer(self._sample)["input_ids"]))
        sizes = [min(most, tokens - done) for done in range(0, tokens, most)]
        inputs = {
            width: torch.randn(most, width, dtype=model.dtype, device=model.device)
            for width in {layer.in_features for layer in layers}
        }

        def run() -> None:
            for size in sizes:
                for layer in layers:
                    output = layer(inputs[layer.in_features][:size])
            output[0, 0].item()  # waits for a GPU

        return _per_second(len(self._sample), run)

    def worker(self, name: str, broker: RunningKafka, command: Sequence[str], **settings: str) -> float:
        with (
            tempfile.NamedTemporaryFile() as log,
            Topics(broker) as topics,
            topics.worker(command, Path(log.name), **settings),
        ):
            warm = self._sample[:WARM]
            topics.send(warm)
            topics.wait(len(warm))
            began = time.monotonic()
            topics.send(self._texts)
            ended, _ = topics.wait(len(warm) + len(self._texts))
            self.idle[name].append(_idle(Path(log.name), since=time.time() - (time.monotonic() - began)))
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
            self._forward(batches if self._pipeline.device.type == "cuda" else batches[:1])  # sets up kernels
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


def _idle(log: Path, since: float) -> float:
    """Return the part of the time in which a worker's device had nothing to do.

    Args:
        log: Of the worker.
        since: Seconds since 1970; batches that were logged before do not count.
    """
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    batches = [
        event
        for event in events
        if event["event"] == "batch" and datetime.fromisoformat(event["timestamp"]).timestamp() > since
    ]
    device, idle = (sum(batch[name] for batch in batches) for name in ("device_ms", "idle_ms"))
    return float(idle / (device + idle))


def _per_second(count: int, run: Callable[[], object]) -> float:
    began = time.monotonic()
    run()
    return count / (time.monotonic() - began)
