"""What the loop learns of the device: how long a request will take, and how much fits into a batch."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import structlog

from nlp_worker.batching import Batch, plan
from nlp_worker.cost import MOST_TOKENS, Budget, Cost
from nlp_worker.errors import CheckpointError, RequestError
from nlp_worker.metrics import count_batch

if TYPE_CHECKING:
    from nlp_worker.parts import Executor
    from nlp_worker.poll import BatchRun, Entry, Poll
    from nlp_worker.tasks.base import Task

log = structlog.get_logger()

#: Of a batch that is long enough to show the device's speed.
WARM_UP_SECONDS: Final = 0.3


class Planner:
    """Plans polls, and learns from the batches that ran, for each checkpoint apart.

    Args:
        batch_tokens: The most of one batch; None is what each checkpoint gains by, as the warm-up shows.
        cache_tokens: The most of one batch of rows that are generated, where batch_tokens does not say.
    """

    def __init__(self, batch_tokens: int | None = None, cache_tokens: int = MOST_TOKENS) -> None:
        self._batch_tokens = batch_tokens
        self._cache_tokens = cache_tokens
        self._costs: defaultdict[Task, Cost] = defaultdict(Cost)
        self._budgets: dict[Task, Budget] = {}

    def plan(self, poll: Poll) -> list[Batch]:
        return [
            batch
            for task, rows in poll.rows_by_task().items()
            for batch in plan(task, rows, budget=self._budget(task).tokens, overhead=self._costs[task].overhead)
        ]

    def device_seconds(self, entry: Entry) -> float:
        """Return how long the device will take for an entry."""
        return entry.size * self._costs[entry.task].seconds_per_token if entry.task is not None else 0.0

    def warm_up(self, task: Task, executor: Executor) -> None:
        """Run a task before the first request: kernels and threads are set up, and the device's speed is learned.

        Batches grow to all that the budget allows, so that what does not fit is found now; a slow device, where memory
        is seldom what is short, is let off sooner.

        Raises:
            CheckpointError: the model cannot run at all.
        """
        rows = list(task.warm_up_rows())
        if not rows:
            return
        cost, budget = self._costs[task], self._budget(task)
        while True:
            batch = Batch(task, rows)
            # The faster of two: what a new shape sets up, or another process took, is none of the device's speed.
            run = min((self._run(batch, executor) for _ in range(2)), key=lambda run: run.seconds)
            self._take_in(batch, run)
            most = min(budget.tokens, task.max_batch_tokens or budget.tokens)
            count = min(2 * len(rows), most * len(rows) // batch.size)
            if run.seconds > WARM_UP_SECONDS or count <= len(rows):
                break
            rows = (rows * 2)[:count]
        if self._batch_tokens is None:
            budget.settle(self._cache_tokens if rows[0].new_tokens else cost.right_tokens)
        log.info(
            "warmed_up",
            task=task.name,
            model=task.model.name,
            tokens_per_second=round(1 / cost.seconds_per_token),
            overhead_tokens=round(cost.overhead),
            batch_tokens=budget.tokens,
        )

    def _run(self, batch: Batch, executor: Executor) -> BatchRun:
        run = executor.submit(batch).result()
        if isinstance(error := run.outputs[0], RequestError):
            cause = error.__cause__ or error
            raise CheckpointError(f"{batch.task.model.checkpoint} cannot run: {type(cause).__name__}: {cause}")
        return run

    def learn(self, batch: Batch, run: BatchRun) -> None:
        """Take in what became of a batch of requests."""
        self._take_in(batch, run)
        count_batch(batch, run)
        log.info(
            "batch",
            task=batch.task.name,
            model=batch.task.model.name,
            rows=len(batch.rows),
            tokens=batch.tokens,
            padded_tokens=batch.padded_tokens,
            device_ms=round(run.seconds * 1000, 1),
            idle_ms=round(run.idle * 1000, 1),
        )

    def _take_in(self, batch: Batch, run: BatchRun) -> None:
        # One that was halved took longer, and says nothing of those that are not.
        if run.fitted is None and not any(isinstance(output, RequestError) for output in run.outputs):
            self._costs[batch.task].learn(batch, run.seconds)
        budget = self._budget(batch.task)
        before = budget.tokens
        budget.learn(batch, run)
        if budget.tokens != before:
            log.warning("batch_tokens_changed", model=batch.task.model.name, before=before, now=budget.tokens)

    def _budget(self, task: Task) -> Budget:
        return self._budgets.setdefault(task, Budget(self._batch_tokens or MOST_TOKENS))
