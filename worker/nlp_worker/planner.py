"""What the loop learns of the device: how long a request will take, and how much fits into a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from nlp_worker.batching import Batch, Budget, Rate, plan

if TYPE_CHECKING:
    from nlp_worker.poll import BatchRun, Entry, Poll
    from nlp_worker.tasks.base import Task

log = structlog.get_logger()


class Planner:
    """Plans polls, and learns from the batches that ran, for each checkpoint apart.

    Args:
        padded_tokens: The most of one batch.
    """

    def __init__(self, padded_tokens: int) -> None:
        self._padded_tokens = padded_tokens
        self._rates: dict[Task, Rate] = {}
        self._budgets: dict[Task, Budget] = {}

    def plan(self, poll: Poll) -> list[Batch]:
        return [
            batch
            for task, rows in poll.rows_by_task().items()
            for batch in plan(task, rows, budget=self._budget(task).tokens)
        ]

    def device_seconds(self, entry: Entry) -> float:
        """Return how long the device will take for an entry."""
        return entry.size * self._rate(entry.task).seconds_per_token if entry.task is not None else 0.0

    def learn(self, batch: Batch, run: BatchRun) -> None:
        """Take in what became of a batch."""
        self._rate(batch.task).learn(batch.size, run.seconds)
        budget = self._budget(batch.task)
        before = budget.tokens
        budget.learn(batch, run)
        if budget.tokens != before:
            log.warning("batch_tokens_changed", model=batch.task.model.name, before=before, now=budget.tokens)
        log.info(
            "batch",
            task=batch.task.name,
            model=batch.task.model.name,
            rows=len(batch.rows),
            tokens=batch.tokens,
            padded_tokens=batch.padded_tokens,
            device_ms=round(run.seconds * 1000, 1),
        )

    def _rate(self, task: Task) -> Rate:
        return self._rates.setdefault(task, Rate())

    def _budget(self, task: Task) -> Budget:
        return self._budgets.setdefault(task, Budget(self._padded_tokens))
