"""What a model that learns has reached: its loss, and the scores of the answers that a worker would give with it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from nlp_worker import device_errors
from nlp_worker.executor import Executor
from nlp_worker.planner import Planner
from nlp_worker.training.predictions import expected, predicted
from nlp_worker.training.served import ServedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_worker.training.examples import Example
    from nlp_worker.training.learner import Learner
    from nlp_worker.training.metrics import Metrics

#: Of one batch, with padding: what a CPU gains by (planner), and less than what fits where a training does.
BATCH_TOKENS: Final = 4_096


class Validation:
    """Examples that are not trained on.

    Args:
        learner: That learns.
        examples: Of its task.
        parameters: Of their requests.
        metrics: Of the answers.
        collate: Makes a batch of features.
        batch_rows: Rows of a batch of features.
    """

    def __init__(
        self,
        learner: Learner,
        examples: Sequence[Example],
        parameters: Mapping[str, Any],
        metrics: Metrics,
        *,
        collate: Callable[[list[Any]], Any],
        batch_rows: int,
    ) -> None:
        self._learner = learner
        self._examples = examples
        self._parameters = parameters
        self._metrics = metrics
        self._collate = collate
        self._batch_rows = batch_rows
        rows = learner.features(examples, parameters).rows
        self._features = sorted(rows, key=lambda row: len(row["input_ids"]))

    def measure(self) -> tuple[float, dict[str, float]]:
        """Return loss and scores; where several processes learn each does its part, and all get the whole.

        torch's random numbers stay where they are: a training is the same whether or not it is looked at.
        """
        model = self._learner.model
        learning = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
                return self._loss(), self._metrics.scores(*self._answers())
        finally:
            model.train(learning)

    @torch.no_grad()
    def _loss(self) -> float:
        model, batches = self._learner.model, range(0, len(self._features), self._batch_rows)
        with PartialState().split_between_processes(list(batches)) as mine:
            sums = []
            for start in mine:
                rows = self._features[start : start + self._batch_rows]
                batch = self._collate([dict(row) for row in rows]).to(model.device)
                sums.append((float(model(**batch).loss) * len(rows), len(rows)))
        sums = gather_object(sums)
        return float(sum(loss for loss, _ in sums) / max(sum(rows for _, rows in sums), 1))

    def _answers(self) -> tuple[list[Any], list[Any]]:
        with (
            PartialState().split_between_processes(list(self._examples)) as mine,
            contextlib.closing(Executor(device_errors.translate)) as executor,
        ):
            served = ServedTask(self._learner.task, Planner(BATCH_TOKENS), executor)
            requests = [{"inputs": example.inputs, "parameters": self._parameters} for example in mine]
            answers = served.answers(requests)
            pairs = [(expected(one), predicted(one, answer)) for one, answer in zip(mine, answers, strict=True)]
        pairs = gather_object(pairs)
        return [wanted for wanted, _ in pairs], [got for _, got in pairs]
