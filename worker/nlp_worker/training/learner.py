"""A checkpoint that learns: its model with the head that the labels need, and the worker's own task on it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers

from nlp_schemas import Model, TaskName
from nlp_worker import checkpoints, models
from nlp_worker.errors import CheckpointError
from nlp_worker.settings import ModelSpec, Settings
from nlp_worker.training.features import collator, features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nlp_worker.tasks.base import Task
    from nlp_worker.training.examples import Example
    from nlp_worker.training.features import Features

#: Weights that a base may lack beside its head: masked language models have no pooler.
NEW_WEIGHTS: Final = "pooler"

#: What the classes of models that give labels have in their names.
HEADS: Final[Mapping[str, str]] = {
    TaskName.TEXT_CLASSIFICATION: "ForSequenceClassification",
    TaskName.TOKEN_CLASSIFICATION: "ForTokenClassification",
}

#: A token that a tokenizer gets which has none to pad with.
PADDING: Final = "[PAD]"

#: Under this name answers have it while it learns.
NAME: Final = "learner"


class Learner:
    """A tokenizer, a model, and the task that serves them.

    Args:
        spec: The checkpoint to begin with.
        labels: That the model is to give, in the order of their numbers; none where it writes texts, or points at them.
        max_length: Most tokens of a row that is learned from; None is the model's.
        seed: Of the new head's weights.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or cannot learn the task.
    """

    def __init__(self, spec: ModelSpec, labels: Sequence[str], max_length: int | None, seed: int) -> None:
        transformers.set_seed(seed)
        task_class = models.SERVED[spec.task]
        before = checkpoints.labels_of(checkpoints.read_config(spec)) if labels else []
        with checkpoints.unadvised():
            parts = checkpoints.read(
                spec,
                task_class.model_class,
                lambda _: torch.float32,
                lambda config: _label(config, labels),
                # Of a head for other labels, which is made anew.
                ignore_mismatched_sizes=bool(labels),
            )
        self.tokenizer, self.model, self.revision = parts.tokenizer, parts.model, parts.revision
        if lacking := [key for key in parts.missing if not self._may_be_new(key)]:
            raise CheckpointError(f"checkpoint {spec.checkpoint} has no weights for {', '.join(lacking[:3])}")
        if spec.task == TaskName.TOKEN_CLASSIFICATION and not self.tokenizer.is_fast:
            problem = f"checkpoint {spec.checkpoint} cannot point into a text"
            raise CheckpointError(f"{problem}: training tokens needs a fast tokenizer, one with a tokenizer.json")
        if self.tokenizer.pad_token_id is None:
            self._add_padding()
        #: The labels in the order of the model's numbers, which are the base's own where it knows them all.
        self.labels = checkpoints.labels_of(self.model.config) if labels else []
        # A task takes the model's own parameters for generation away: they are put back where it is saved.
        self._generation = copy.deepcopy(getattr(self.model, "generation_config", None))
        self._info = Model(name=NAME, checkpoint=spec.checkpoint, revision=self.revision)
        #: What became of the base's head, in words.
        self.told = self._tell(before, parts.missing)
        # The Trainer takes the cache away, for good.
        self._use_cache = getattr(self.model.config, "use_cache", None)
        #: As it will be served.
        self.task: Task = self._task(task_class, None)
        self._reads = self._task(task_class, max_length) if max_length else self.task

    def _tell(self, before: Sequence[str], missing: Sequence[str]) -> str:
        """Say what became of the base's head; whoever trained it would else learn that from the answers."""
        if missing:
            return f"the base has no such head, and gets one: {', '.join(self.labels) or 'it is learned anew'}"
        if self.labels and self.labels != list(before):
            return f"the base's head gave {', '.join(before)}, and learns other labels: {', '.join(self.labels)}"
        return f"the base's head is kept{': ' if self.labels else ''}{', '.join(self.labels)}"

    def _add_padding(self) -> None:
        """Give a decoder what its batches are padded with, as transformers' heads look for a row's last other token."""
        if self.tokenizer.eos_token is not None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        else:
            self.tokenizer.add_special_tokens({"pad_token": PADDING})
            self.model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        self.model.config.pad_token_id = self.tokenizer.pad_token_id

    def _may_be_new(self, weight: str) -> bool:
        """Whether a base may lack a weight: of a new head, and of none that writes."""
        body = f"{self.model.base_model_prefix}."
        return not self.model.can_generate() and (not weight.startswith(body) or NEW_WEIGHTS in weight)

    def _task(self, task_class: Any, max_length: int | None) -> Task:
        if self._generation is not None:
            self.model.generation_config = copy.deepcopy(self._generation)
        longest = self.tokenizer.model_max_length
        self.tokenizer.model_max_length = min(max_length or longest, longest)
        try:
            checkpoint = models.Checkpoint(
                self._info, self.tokenizer, self.model, packing=False,
                max_new_tokens=Settings.model_fields["max_new_tokens"].default,
            )  # fmt: skip
            with checkpoints.unadvised():
                task: Task = task_class(checkpoint)
        finally:
            self.tokenizer.model_max_length = longest
        return task

    def features(self, examples: Sequence[Example], parameters: Mapping[str, Any]) -> Features:
        """Return what the model learns from examples."""
        return features(self._reads, self.tokenizer, self.model, examples, parameters)

    def collator(self) -> Any:
        return collator(self.task, self.tokenizer, self.model)

    def save(self, folder: Path) -> None:
        """Write a checkpoint that a worker serves."""
        config, now = self.model.config, getattr(self.model, "generation_config", None)
        caches = getattr(config, "use_cache", None)
        if self._generation is not None:
            self.model.generation_config = self._generation
        if self._use_cache is not None:
            config.use_cache = self._use_cache
        try:
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        finally:
            if now is not None:
                self.model.generation_config = now
            if caches is not None:
                config.use_cache = caches


def has_head(config: Any, task: str) -> bool:
    """Whether a checkpoint of this configuration has a head that gives labels of the task."""
    return task in HEADS and any(HEADS[task] in name for name in getattr(config, "architectures", None) or ())


def base_labels(spec: ModelSpec) -> list[str]:
    """Return the labels that a base gives, where it has learned the task already.

    Raises:
        CheckpointError: its configuration cannot be read.
    """
    config = checkpoints.read_config(spec)
    return checkpoints.labels_of(config) if has_head(config, spec.task) else []


def _label(config: Any, labels: Sequence[str]) -> None:
    """Let the model give these labels; a base that gives them already keeps its own, in its order."""
    if not labels:
        return
    trained = any(has_head(config, task) for task in HEADS)
    if trained and set(labels) <= set(config.label2id or {}):
        return
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
