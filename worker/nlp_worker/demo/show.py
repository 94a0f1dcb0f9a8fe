"""What the demo prints while it runs: a live table on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from rich.console import Group
from rich.live import Live
from rich.table import Table

from nlp_worker.demo.traffic import lag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kafka import KafkaAdminClient
    from rich.console import Console, RenderableType

    from nlp_worker.demo.traffic import Traffic
    from nlp_worker.demo.workers import WorkerView

#: Seconds between two looks: a terminal's table is redrawn, a pipe gets a line.
TERMINAL_SECONDS: Final = 0.25
PIPE_SECONDS: Final = 2.0

#: Seconds between two looks whether it is reached: in a pipe too the demo goes on at once.
REACHED_SECONDS: Final = 0.25

#: Seconds without an answer after which the demo gives up: well above a session timeout and a model's load.
PATIENCE: Final = 60.0


class View(Protocol):
    """What is shown: as a line in a pipe, as a table on a terminal."""

    def line(self) -> str: ...
    def table(self) -> RenderableType: ...


class Show:
    """Shows a view of workers and traffic until something is reached."""

    def __init__(self, console: Console, view: View, workers: Sequence[WorkerView], traffic: Traffic) -> None:
        self._console = console
        self._view = view
        self._workers = workers
        self._traffic = traffic

    def until(self, reached: Callable[[], bool]) -> bool:
        """Show until it is so; return False when nothing moved for too long, or no worker is left."""
        moved, answers = time.monotonic(), -1
        pause = TERMINAL_SECONDS if self._console.is_terminal else PIPE_SECONDS
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            while not reached():
                look = time.monotonic() + pause
                while time.monotonic() < look and not reached():
                    time.sleep(min(REACHED_SECONDS, pause))
                if self._console.is_terminal:
                    live.update(self._view.table(), refresh=True)
                else:
                    self._console.print(self._view.line())
                if len(self._traffic.answers) != answers:
                    moved, answers = time.monotonic(), len(self._traffic.answers)
                alive = any(worker.process.poll() is None for worker in self._workers)
                if not alive or time.monotonic() - moved > PATIENCE:
                    return False
        return True


class WorkersView:
    """Who answers how many: for workers that share the partitions."""

    def __init__(self, workers: Sequence[WorkerView], traffic: Traffic, admin: KafkaAdminClient) -> None:
        self._workers = workers
        self._traffic = traffic
        self._admin = admin
        self._before = [0 for _ in workers]
        self._looked = time.monotonic()

    def line(self) -> str:
        parts = [
            f"worker {number} {worker.state}: {len(worker.partitions)} partitions, {rate:.0f}/s, pad {_padding(worker)}"
            for number, (worker, rate) in enumerate(zip(self._workers, self._rates(), strict=True), 1)
        ]
        return " | ".join([self._totals(), *parts])

    def table(self) -> RenderableType:
        workers = Table(title=self._totals())
        for heading in ("worker", "state", "partitions", "answers/s", "answered", "padding"):
            workers.add_column(heading)
        by_task = self._traffic.answered()
        for number, (worker, rate) in enumerate(zip(self._workers, self._rates(), strict=True), 1):
            numbers = " ".join(name.rpartition("-")[2] for name in worker.partitions)
            # Of several topics the numbers say little, and are many.
            partitions = numbers if len(by_task) == 1 else str(len(worker.partitions))
            workers.add_row(str(number), worker.state, partitions, f"{rate:.0f}", str(worker.rows), _padding(worker))
        if len(by_task) == 1:
            return workers
        tasks = Table()
        for heading in ("task", "answered", "of"):
            tasks.add_column(heading)
        for task, (answered, count) in by_task.items():
            tasks.add_row(task, str(answered), str(count))
        return Group(workers, tasks)

    def _rates(self) -> list[float]:
        now, rows = time.monotonic(), [worker.rows for worker in self._workers]
        rates = [(new - old) / (now - self._looked) for new, old in zip(rows, self._before, strict=True)]
        self._before, self._looked = rows, now
        return rates

    def _totals(self) -> str:
        lag_now = lag(self._admin, "nlp-worker", self._traffic.submitted)
        return f"submitted {self._traffic.submitted}, answered {len(self._traffic.answers)}, lag {lag_now}"


def _padding(worker: WorkerView) -> str:
    """Return the share of padding in what the device computed."""
    return f"{1 - worker.tokens / worker.padded_tokens:.0%}" if worker.padded_tokens else "-"
