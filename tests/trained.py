"""Trainings for tests: labelled rows that a tiny checkpoint can learn something of, and a run on them."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any, Final

from accelerate.state import AcceleratorState

from nlp_worker.settings import load_settings
from nlp_worker.training.run import train
from nlp_worker.training.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nlp_worker.training.history import Epoch
    from nlp_worker.training.run import Trained

NAMES: Final = ("Ann", "Bob")
PLACES: Final = ("Paris", "Rome")
THINGS: Final = ("film", "food", "room", "book", "play", "bill", "train", "museum", "garden", "letter")
GOOD: Final = ("wonderful", "moving", "friendly")
BAD: Final = ("terrible", "boring", "dull")
WHEN: Final = ("", " Nobody answered the telephone.", " It was half the price, and twice as fast, on Monday.")


def _texts() -> list[dict[str, Any]]:
    return [
        {"text": f"The {thing} was {word}.{when}", "label": label}
        for words, label in ((GOOD, "good"), (BAD, "bad"))
        for thing, word, when in itertools.product(THINGS, words, WHEN)
    ]


def _pairs() -> list[dict[str, Any]]:
    return [
        {"sentence1": f"The {thing} was {first}.", "sentence2": f"It was {second}.{when}", "label": int(second in GOOD)}
        for thing, first, second, when in itertools.product(THINGS[:4], (*GOOD, *BAD), (*GOOD, *BAD), WHEN)
    ]


def _entities() -> list[dict[str, Any]]:
    rows = []
    for name, place, thing, when in itertools.product(NAMES, PLACES, THINGS, WHEN):
        text = f"{name} read the {thing} in {place}.{when}"
        spans = (("PER", name), ("LOC", place))
        label = [
            {"entity_group": group, "start": text.index(word), "end": text.index(word) + len(word)}
            for group, word in spans
        ]
        rows.append({"inputs": text, "label": label})
    return rows


def _questions() -> list[dict[str, Any]]:
    return [
        {"question": f"Where is the {thing}?", "context": f"{name} left the {thing} in {place}.{when}", "answer": place}
        for name, place, thing, when in itertools.product(NAMES, PLACES, THINGS, WHEN)
    ]


def _summaries() -> list[dict[str, Any]]:
    return [{"text": row["text"], "summary": row["label"]} for row in _texts()]


def _translations() -> list[dict[str, Any]]:
    return [{"source": row["text"], "target": row["label"]} for row in _texts()]


ROWS: Final[Mapping[str, Sequence[dict[str, Any]]]] = {
    "text-classification": _texts(),
    "pairs": _pairs(),
    "token-classification": _entities(),
    "question-answering": _questions(),
    "summarization": _summaries(),
    "translation": _translations(),
}


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


class Cut(Exception):  # noqa: N818 - a kill, not an error
    """The process ends here."""


class Heard:
    """What a training told; it may be cut off after a step.

    Args:
        cut_at: Of the optimizer's steps; 0 is never.
    """

    def __init__(self, cut_at: int = 0) -> None:
        self.said: list[str] = []
        self.steps: list[int] = []
        self.epochs: list[Epoch] = []
        self._cut_at = cut_at

    def say(self, line: str) -> None:
        self.said.append(line)

    def step(self, step: int, steps: int) -> None:
        assert step <= steps
        self.steps.append(step)
        if step == self._cut_at:
            raise Cut

    def epoch(self, epoch: Epoch, *, best: bool) -> None:
        del best
        self.epochs.append(epoch)


def run(
    out: Path, task: str, base: Path, data: Path, *, heard: Heard | None = None, resume: bool = False, **settings: Any
) -> Trained:
    """Train on one thread of the CPU, in a few seconds."""
    heard = heard or Heard()
    # A process has one precision; here several trainings follow one another in it.
    AcceleratorState._reset_state(reset_partial_state=True)
    chosen = {"epochs": 2, "batch_rows": 8, "learning_rate": 1e-2, "held_out": 0.3, "device": "cpu", "threads": 1}
    training = TrainingSettings(task=task, base=str(base), data=str(data), **{**chosen, **settings})
    return train(training, load_settings({}), out, heard, heard.say, resume=resume)
