"""How many of a stream's answers are right, by the revision of the checkpoint that gave them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.table import Table

from nlp_schemas import TextClassificationResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from nlp_schemas import Ok
    from nlp_worker.demo.traffic import Asked, Traffic
    from nlp_worker.demo.workers import WorkerView

#: Seconds of answers that the live accuracy is of: some hundred, so that it stands still while nothing changes.
WINDOW: Final = 10.0
#: Characters of a revision that are shown: "sha256:" and enough digits to tell two apart.
REVISION_WIDTH: Final = 15


class Score(NamedTuple):
    """Of answers."""

    right: int
    answers: int

    @property
    def share(self) -> float:
        return self.right / self.answers if self.answers else 0.0


class _Heard(NamedTuple):
    at: float
    revision: str
    right: bool


class Accuracy:
    """Keeps for every answer when it came, from which revision, and whether it is right."""

    def __init__(self) -> None:
        self._heard: list[_Heard] = []

    def note(self, asked: Asked, answer: Ok) -> None:
        """Take an answer of a text classification."""
        if isinstance(answer, TextClassificationResult):
            right = answer.outputs[0].label == asked.toy.expected
            self._heard.append(_Heard(time.monotonic(), answer.model.revision, right))

    def whole(self) -> dict[str, Score]:
        """Return the score of each revision, in the order in which they first answered."""
        return _scores(list(self._heard))

    def recent(self) -> dict[str, Score]:
        """Return the score of each revision that answered lately, of these answers alone."""
        since = time.monotonic() - WINDOW
        return _scores([one for one in list(self._heard) if one.at >= since])


def _scores(heard: Iterable[_Heard]) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    for one in heard:
        before = scores.get(one.revision, Score(0, 0))
        scores[one.revision] = Score(before.right + one.right, before.answers + 1)
    return scores


class AccuracyView:
    """Who is right how often: for workers of which one takes the place of another."""

    def __init__(self, workers: Sequence[WorkerView], traffic: Traffic, accuracy: Accuracy) -> None:
        self._workers = workers
        self._traffic = traffic
        self._accuracy = accuracy

    def line(self) -> str:
        recent = self._accuracy.recent().items()
        scores = [f"{short(revision)} {score.share:.1%} of {score.answers} right" for revision, score in recent]
        workers = [f"worker {number} {_state(worker)}" for number, worker in enumerate(self._workers, 1)]
        return " | ".join([self._totals(), *scores, *workers])

    def table(self) -> RenderableType:
        table = Table(title=self._totals(), caption=", ".join(
            f"worker {number} {_state(worker)}" for number, worker in enumerate(self._workers, 1)
        ))  # fmt: skip
        for heading in ("revision", f"right in {WINDOW:.0f} s", "of", "right in all", "of"):
            table.add_column(heading)
        recent = self._accuracy.recent()
        for revision, whole in self._accuracy.whole().items():
            late = recent.get(revision, Score(0, 0))
            lately = f"{late.share:.1%}" if late.answers else "-"
            table.add_row(short(revision), lately, str(late.answers), f"{whole.share:.1%}", str(whole.answers))
        return table

    def _totals(self) -> str:
        return f"asked {self._traffic.submitted}, answered {len(self._traffic.answers)}"


def short(revision: str) -> str:
    """Return as much of a revision as is shown."""
    return revision[:REVISION_WIDTH]


def _state(worker: WorkerView) -> str:
    running = worker.state == "running"
    return f"{worker.state}: {len(worker.partitions)} partitions" if running else worker.state
