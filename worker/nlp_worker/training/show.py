"""How far a training is, on standard error: a bar on a terminal, a line for each epoch everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

    from nlp_worker.training.history import Epoch


class Shown:
    """Tells it.

    Args:
        main: Whether this process does; of several one is enough.
    """

    def __init__(self, *, main: bool) -> None:
        self._main = main
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not (main and self._console.is_terminal)
        self._progress = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._task = self._progress.add_task("step", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        if self._main:
            self._progress.console.print(line, markup=False)

    def step(self, step: int, steps: int) -> None:
        self._progress.update(self._task, completed=step, total=steps)

    def epoch(self, epoch: Epoch, *, best: bool) -> None:
        scores = "  ".join(f"{name} {score:.4f}" for name, score in epoch.scores.items())
        losses = f"loss {epoch.loss:.4f}  validation loss {epoch.validation_loss:.4f}"
        self.say(f"epoch {epoch.number}  {losses}  {scores}{'  best so far' if best else ''}")
