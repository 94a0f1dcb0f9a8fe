"""Checkpoints on labelled rows, loaded and asked as a worker loads and asks them."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_schemas import TaskName
from nlp_worker import checkpoints, device_errors, models
from nlp_worker.errors import CheckpointError
from nlp_worker.executor import Executor
from nlp_worker.planner import Planner
from nlp_worker.training.bootstrap import Comparison, compare
from nlp_worker.training.card import RECORD, shown
from nlp_worker.training.labelled_set import labels_of
from nlp_worker.training.learner import HEADS, has_head
from nlp_worker.training.predictions import expected, metrics_of, predicted, request_parameters
from nlp_worker.training.problems import DataError
from nlp_worker.training.served import ServedTask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.settings import Settings
    from nlp_worker.training.examples import Example
    from nlp_worker.training.metrics import Metrics

#: The names under which checkpoints are loaded.
CANDIDATE: Final = "candidate"
BASELINE: Final = "baseline"


class Evaluated(NamedTuple):
    """A checkpoint."""

    name: str
    checkpoint: str
    revision: str
    scores: dict[str, float]
    predicted: list[Any]
    """Of each row; None where it was answered with an error."""
    errors: dict[str, int]
    """Answers that are errors, by their codes and the first message of each."""


class Report(NamedTuple):
    """Of one checkpoint, or of two."""

    examples: Sequence[Example]
    evaluated: list[Evaluated]
    metrics: Metrics

    def compare(self, confidence: float) -> Comparison:
        """Compare candidate and baseline by a paired bootstrap over the rows."""
        got = {one.name: one.predicted for one in self.evaluated}
        wanted = [expected(example) for example in self.examples]
        return compare(self.metrics, wanted, got[BASELINE], got[CANDIDATE], confidence=confidence)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give for each row what was expected, and what each checkpoint answered."""
        for number, example in enumerate(self.examples):
            answered = {one.name: one.predicted[number] for one in self.evaluated}
            yield {
                "row": example.place,
                "id": example.id,
                "inputs": example.inputs,
                "expected": expected(example),
            } | answered


def known_labels(settings: Settings) -> dict[str, list[str]]:
    """Return the labels that each checkpoint gives, by its name; nothing of tasks without labels.

    Raises:
        CheckpointError: one cannot be read.
    """
    configs = {spec: checkpoints.read_config(spec) for spec in settings.models if spec.task in HEADS}
    for spec, config in configs.items():
        if not has_head(config, spec.task):
            raise CheckpointError(
                f"checkpoint {spec.checkpoint} has no head for {spec.task}: it was not trained for it"
            )
    return {spec.name: checkpoints.labels_of(config) for spec, config in configs.items()}


def metrics_for(
    task: str, labels: Mapping[str, Sequence[str]], examples: Sequence[Example], primary: str | None
) -> Metrics:
    """Return what all of the checkpoints are measured by.

    Args:
        task: Its name.
        labels: Of each checkpoint.
        examples: That they are asked.
        primary: The score that decides; None is the task's first.

    Raises:
        SettingsError: the task has no such score.
    """
    names = list(labels.get(CANDIDATE, ()))
    if task == TaskName.TOKEN_CLASSIFICATION:
        names += [label for of_one in labels.values() for label in of_one]
        names += [label for example in examples for label in labels_of(example)]
    return metrics_of(task, list(dict.fromkeys(names)), primary)


def trained_on(checkpoint: Path, source: str) -> float | None:
    """Return the share that was held out of a source when this checkpoint was trained on it; None where it was not.

    Args:
        checkpoint: Its folder.
        source: A labelled set's name.
    """
    if not (checkpoint / RECORD).is_file():
        return None
    try:
        record = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))
        share, trained = record["settings"]["held_out"], record["data"]["data"]
    except (ValueError, KeyError, TypeError):  # another program's file
        return None
    return float(share) if trained == shown(source) else None


def evaluate(
    settings: Settings,
    examples: Sequence[Example],
    parameters: Mapping[str, Any],
    metrics: Metrics,
    progress: Callable[[str, int], None],
) -> Report:
    """Ask each checkpoint of the settings for all of the examples.

    Args:
        settings: Of a worker that serves them.
        examples: At least one.
        parameters: Of the requests.
        metrics: Of the answers.
        progress: Called with a checkpoint's name and how many rows it has answered.

    Raises:
        CheckpointError: one cannot be loaded, or cannot run.
        DataError: one answers all of the examples with errors.
        DeviceLostError: the device is lost.
    """
    (served,) = models.load(settings).values()
    task_name = settings.models[0].task
    asked = request_parameters(task_name, examples, parameters)
    requests = [{"inputs": example.inputs, "parameters": asked} for example in examples]
    wanted = [expected(example) for example in examples]
    planner = Planner(settings.batch_tokens, models.cache_tokens(settings))
    done = []
    with contextlib.closing(Executor(device_errors.translate)) as executor:
        for name, task in served.items():
            planner.warm_up(task, executor)
            got: list[Any] = []
            codes: Counter[str] = Counter()
            messages: dict[str, str] = {}
            answers = ServedTask(task, planner, executor).answers(requests)
            for example, answer in zip(examples, answers, strict=True):
                got.append(predicted(example, answer))
                if answer["status"] == "error":
                    error = answer["error"]
                    codes[messages.setdefault(error["code"], f"{error['code']}: {error['message']}")] += 1
                progress(name, len(got))
            if codes.total() == len(examples):
                told = f"{name}: not one row is answered with outputs, the first is answered {next(iter(codes))}"
                raise DataError(told)
            checkpoint = task.model.checkpoint, task.model.revision
            done.append(Evaluated(name, *checkpoint, metrics.scores(wanted, got), got, dict(codes)))
    return Report(examples, done, metrics)
