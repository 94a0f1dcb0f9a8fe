"""What the benchmarks that run a model share: checkpoints by size, devices, and polls without Kafka."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import transformers

from checkpoints import build_checkpoint
from nlp_worker import device_errors, models
from nlp_worker import logging as worker_logging
from nlp_worker.errors import RequestError
from nlp_worker.executor import Executor
from nlp_worker.planner import Planner
from nlp_worker.poll import Poll
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nlp_schemas import TaskName
    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun, Entry
    from nlp_worker.tasks.base import Task


class Size(NamedTuple):
    """Of a DistilBERT."""

    layers: int
    dim: int
    heads: int
    times: int
    """How often as many texts as asked for: a round should take seconds."""

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.dim}"


#: DistilBERT's own, and one so small that everything beside the model counts.
SIZES: Final = {"distilbert": Size(6, 768, 12, 1), "small": Size(2, 128, 2, 8)}


def classifier(size: Size, folder: Path) -> Path:
    """Write a text classifier of the size to the folder, with positions for 512 tokens, and return the folder."""
    config: dict[str, Any] = {
        "dim": size.dim,
        "hidden_dim": 4 * size.dim,
        "n_layers": size.layers,
        "n_heads": size.heads,
    }
    return build_checkpoint("distilbert", "sequence-classification", folder, max_position_embeddings=512, **config)


def quiet() -> None:
    """Show only warnings of what the worker's parts log, and neither progress bars nor advice of transformers."""
    worker_logging.configure(level="warning", log_format="console", worker="bench")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def device_of(name: str) -> torch.device:
    """Return what the worker's setting means here.

    Raises:
        CheckpointError: torch sees no such device.
    """
    return models.torch_device(name)


def device_name(device: torch.device) -> str:
    """Return the device's name for a report."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def file_name(name: str, device: torch.device) -> str:
    """Return a report's name: what is measured on a GPU stands beside what is measured on a CPU."""
    return name if device.type == "cpu" else f"{name}-{device.type}"


def serve(task: TaskName, folder: Path, **settings: Any) -> Task:
    """Load a checkpoint as a worker does.

    Args:
        task: What it is served for.
        folder: Of the checkpoint.
        settings: Of the worker.
    """
    (served,) = models.load(load_settings({"model": [f"{task}={folder}"], **settings}))[task].values()
    return served


class Device:
    """The worker's device thread with a planner that has warmed up, for one task.

    Args:
        task: What is computed.
        executor: The thread.
        device: Where.
    """

    def __init__(self, task: Task, executor: Executor, device: torch.device) -> None:
        self._executor = executor
        self._planner = Planner(cache_tokens=models.CACHE_TOKENS[device.type])
        self._planner.warm_up(task, executor)

    def compute(self, entries: list[Entry]) -> None:
        """Plan entries as a poll, compute it, learn from it, and give each row its output."""
        batches = self._planner.plan(Poll(entries, {}))
        for batch, run in zip(batches, compute(self._executor, batches), strict=True):
            self._planner.learn(batch, run)
            batch.land(run)


def compute(executor: Executor, batches: Iterable[Batch]) -> list[BatchRun]:
    """Compute batches one after another, as the worker does.

    Raises:
        RuntimeError: a row failed.
    """
    futures = [executor.submit(batch) for batch in batches]
    runs = [future.result() for future in futures]
    if errors := [output for run in runs for output in run.outputs if isinstance(output, RequestError)]:
        raise RuntimeError(f"a row failed, so the figures would mean nothing: {errors[0]}")
    return runs


def device_thread() -> contextlib.closing[Executor]:
    """Return the worker's device thread, to be entered."""
    return contextlib.closing(Executor(device_errors.translate))
