"""How fast a model learns from padded batches: grouped by length as `nlp-worker train` has them, and as others do.

Fixed padding makes every row as long as the longest of all (``padding="max_length"`` of many recipes, and kind to it:
that length is that of the data, and not the model's). Padded by batch, rows come in random order, as with the Trainer's
defaults. Each contestant learns from the same rows in every round; all take the same steps.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import torch
import transformers
from torch.utils.data import DataLoader, RandomSampler, Sampler

from benchmarks.lengths import BEAM, SEED, beam, natural
from benchmarks.models import SIZES, classifier, quiet
from benchmarks.report import Panel, Report, Spread, take_turns
from nlp_worker.training.job import GroupedByLength

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What the others are compared with.
FIXED: Final = "all rows padded to the longest"
BY_BATCH: Final = "padded by batch, random order"
GROUPED: Final = "padded by batch, grouped by length (ours)"

WAYS: Final = (FIXED, BY_BATCH, GROUPED)

#: Tokens of a row at most.
LONGEST: Final = 512


@click.command(context_settings={"show_default": True})
@click.option("--rows", "count", default=1_024, help="Of each distribution of lengths.")
@click.option("--batch-rows", default=16, help="As the training's setting.")
@click.option("--rounds", default=3)
@click.option("--size", type=click.Choice(list(SIZES)), default="small")
@click.option("--threads", default=torch.get_num_threads(), help="Of torch.")
def main(*, count: int, batch_rows: int, rounds: int, size: str, threads: int) -> None:
    """Measure how many rows a second a text classifier learns from."""
    quiet()
    torch.set_num_threads(threads)
    found: dict[str, dict[str, Spread]] = {}
    padding: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = classifier(SIZES[size], Path(folder))
        for name in ("natural", *BEAM):
            lengths = [min(length, LONGEST) for length in (natural(count) if name == "natural" else beam(name, count))]
            course = Course(checkpoint, lengths, batch_rows)
            found[name] = take_turns({way: course.contestant(way) for way in WAYS}, rounds)
            padding[name] = {way: course.padding(way) for way in WAYS}
    report = Report(
        name="training",
        title="Training",
        settings={"rows": count, "batch_rows": batch_rows, "rounds": rounds, "model": str(SIZES[size]), "seed": SEED},
        rows=[
            {
                "lengths": name,
                "way": way,
                **spread.columns("rows/s"),
                "over fixed": spread.median / spreads[FIXED].median,
                "padded / real tokens": padding[name][way],
            }
            for name, spreads in found.items()
            for way, spread in spreads.items()
        ],
        panels=[
            Panel(name, {way: Spread(*(rate / spreads[FIXED].median for rate in spreads[way])) for way in WAYS})
            for name, spreads in found.items()
        ],
        axis="rows a second, over fixed padding",
    )
    report.show()
    report.write()


class Course:
    """Rows of given lengths, and a model that learns from them.

    Args:
        checkpoint: Of a text classifier.
        lengths: Tokens of each row.
        batch_rows: Rows of a batch.
    """

    def __init__(self, checkpoint: Path, lengths: Sequence[int], batch_rows: int) -> None:
        self._checkpoint = checkpoint
        self._lengths = lengths
        self._batch_rows = batch_rows
        self._longest = max(lengths)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        vocabulary = len(self._tokenizer)
        draw = torch.Generator().manual_seed(SEED)
        self._rows = [
            {"input_ids": torch.randint(vocabulary, (length,), generator=draw).tolist(), "labels": length % 2}
            for length in lengths
        ]

    def _batches(self, way: str) -> DataLoader[Any]:
        options = {"padding": "max_length", "max_length": self._longest} if way == FIXED else {}
        return DataLoader(
            self._rows,  # type: ignore[arg-type]  # a list is a data set to it
            batch_size=self._batch_rows,
            sampler=self._sampler(way),
            collate_fn=transformers.DataCollatorWithPadding(self._tokenizer, **options),
        )

    def _sampler(self, way: str) -> Sampler[int]:
        if way == GROUPED:
            return GroupedByLength(self._lengths, self._batch_rows, SEED)
        return RandomSampler(self._rows, generator=torch.Generator().manual_seed(SEED))

    def padding(self, way: str) -> float:
        """Return the tokens that are computed, over those that there are."""
        computed = sum(int(batch["input_ids"].numel()) for batch in self._batches(way))
        return computed / sum(self._lengths)

    def contestant(self, way: str) -> Callable[[], float]:
        """Return what learns from all rows once, and gives the rows a second."""

        def learn() -> float:
            transformers.set_seed(SEED)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(self._checkpoint).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
            began = time.perf_counter()
            for batch in self._batches(way):
                optimizer.zero_grad()
                model(**batch).loss.backward()
                optimizer.step()
            return float(len(self._rows) / (time.perf_counter() - began))

        return learn


if __name__ == "__main__":
    main()
