"""What both ways to train share: the order of the rows, what is kept for a resumption, the best epoch."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from nlp_worker.training.features import IGNORED
from nlp_worker.training.history import Epoch, History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.training.learner import Learner
    from nlp_worker.training.settings import TrainingSettings

#: Of the gradient, above which it is scaled down: what BERT was trained with, and the Trainer's default.
GRADIENT_NORM: Final = 1.0

#: Steps between two points of the learning curve: reading the loss waits for the device.
LOSS_STEPS: Final = 10

#: A state that is complete has this file, which is written last.
HISTORY: Final = "history.json"


class Show(Protocol):
    """Where it is told how far a training is."""

    def step(self, step: int, steps: int) -> None: ...
    def epoch(self, epoch: Epoch, *, best: bool) -> None: ...


@dataclass(frozen=True)
class Job:
    """A training."""

    settings: TrainingSettings
    learner: Learner
    features: Sequence[dict[str, Any]]
    collate: Callable[[list[Any]], Any]
    evaluate: Callable[[], tuple[float, dict[str, float]]]
    """Gives the loss and the scores on the validation rows, the same in all processes."""
    history: History
    folder: Path
    """Of states and of the best epoch's checkpoint."""
    show: Show
    bfloat16: bool
    on_cpu: bool

    def sampler(self, processes: int) -> GroupedByLength:
        rows = self.settings.batch_rows * self.settings.accumulate * processes
        return GroupedByLength([len(row["input_ids"]) for row in self.features], rows, self.settings.seed)

    def warm_up_steps(self, processes: int) -> int:
        """Return the steps in which the learning rate rises, from 0 in the first one; few steps have no warm-up."""
        settings = self.settings
        batches = math.ceil(len(self.features) / settings.batch_rows)
        steps = math.ceil(math.ceil(batches / processes) / settings.accumulate) * settings.epochs
        return int(steps * settings.warm_up)

    def end_epoch(self, step: int, *, main: bool) -> None:
        """Measure what an epoch has reached, and keep its checkpoint where it is the best so far.

        Args:
            step: The optimizer's, at the epoch's end.
            main: Whether this process writes.
        """
        before = self.history.epochs[-1].step if self.history.epochs else 0
        validation_loss, scores = self.evaluate()
        number = len(self.history.epochs) + 1
        self.history.epochs.append(Epoch(number, step, self.history.loss_since(before), validation_loss, scores))
        improved = self.history.improved
        if main:
            self.show.epoch(self.history.epochs[-1], best=improved)
            if improved:
                self.learner.save(self.best)

    @property
    def best(self) -> Path:
        """The checkpoint of the best epoch so far."""
        return self.folder / f"best-{self.history.best.step}"

    def state(self, step: int) -> Path:
        """Where the state after a step is kept."""
        return self.folder / f"checkpoint-{step}"

    def seal(self, step: int) -> None:
        """Make a state that was written one to go on from, and remove what it takes the place of."""
        self.history.save(self.state(step) / HISTORY)
        keep = {self.state(step), *([self.best] if self.history.epochs else [])}
        for folder in {*self.folder.glob("checkpoint-*"), *self.folder.glob("best-*")} - keep:
            shutil.rmtree(folder)

    def resumed(self) -> int:
        """Return the step of the last complete state, whose history is taken over; 0 where there is none."""
        states = [file.parent for file in self.folder.glob(f"checkpoint-*/{HISTORY}")]
        step = max((int(state.name.rpartition("-")[2]) for state in states), default=0)
        if step:
            self.history.load(self.state(step) / HISTORY)
        return step


def counted(batch: Mapping[str, Any]) -> torch.Tensor:
    """Return what the mean of a batch's loss is taken over: tokens with a label, else rows; a float."""
    labels = batch.get("labels")
    if labels is None:
        return torch.tensor(float(len(batch["input_ids"])), device=batch["input_ids"].device)
    found: torch.Tensor = (labels != IGNORED).sum()
    return found.float()


class GroupedByLength(Sampler[int]):
    """Rows of like length together, in another order in each epoch: transformers' grouping, seeded by the epoch.

    transformers' own sampler takes its order from torch's global random numbers, which a resumed run has used less of.

    Args:
        lengths: Of the rows, in tokens.
        rows: Of what is computed for one step.
        seed: With the epoch decides the order.
    """

    def __init__(self, lengths: Sequence[int], rows: int, seed: int) -> None:
        self._lengths = lengths
        self._rows = rows
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._rows, generator=generator))
