"""What a training has reached, epoch by epoch: which was the best, and whether it is time to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path


class Epoch(NamedTuple):
    """What was measured at the end of an epoch."""

    number: int
    """From 1."""
    step: int
    """Of the optimizer, at its end."""
    loss: float
    """Of the training, mean of the epoch's steps."""
    validation_loss: float
    scores: dict[str, float]


class History:
    """The epochs so far, and the training loss on the way.

    Args:
        primary: The score that tells which epoch is better.
        patience: End after so many epochs in a row that are no better than the best; 0 is never.
    """

    def __init__(self, primary: str, patience: int) -> None:
        self.primary = primary
        self._patience = patience
        self.epochs: list[Epoch] = []
        #: The training's: a step, and the mean of the steps up to it since the one before in the list.
        self.losses: list[tuple[int, float]] = []

    @property
    def best(self) -> Epoch:
        """The one with the highest score; of several with the lowest loss on the validation."""
        return max(self.epochs, key=lambda epoch: (epoch.scores[self.primary], -epoch.validation_loss))

    @property
    def improved(self) -> bool:
        """Whether the last epoch is the best."""
        return self.best is self.epochs[-1]

    @property
    def exhausted(self) -> bool:
        """Whether the training ends before its time."""
        return bool(self._patience and self.epochs) and self.epochs[-1].number - self.best.number >= self._patience

    def loss_since(self, step: int) -> float:
        """Return the mean loss of the steps after this one, at which a mean of the list ends."""
        whole = 0.0
        steps = [0, *(at for at, _ in self.losses)]
        for before, (at, loss) in zip(steps, self.losses, strict=False):
            whole += loss * (at - before) if at > step else 0.0
        return whole / (steps[-1] - step)

    def save(self, file: Path) -> None:
        state = {"epochs": [epoch._asdict() for epoch in self.epochs], "losses": self.losses}
        # At once: where the file is it is whole, though the disk was full or the process killed.
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(state), encoding="utf-8")
        unfinished.rename(file)

    def load(self, file: Path) -> None:
        """Go on from what `save` kept."""
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        self.epochs = [Epoch(**epoch) for epoch in state["epochs"]]
        self.losses = [(step, loss) for step, loss in state["losses"]]
