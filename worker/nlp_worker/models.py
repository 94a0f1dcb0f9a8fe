"""Which checkpoint serves which task, and loading it: safetensors only, never remote code, one dtype."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import torch
import transformers

from nlp_schemas import Model, TaskName
from nlp_worker.errors import CheckpointError
from nlp_worker.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from nlp_worker.settings import ModelSpec, Settings
    from nlp_worker.tasks.base import Task

log = structlog.get_logger()

#: The task of each name, and the transformers class that loads its model.
SERVED: Final[Mapping[TaskName, tuple[type[TextClassification], Any]]] = {
    TaskName.TEXT_CLASSIFICATION: (TextClassification, transformers.AutoModelForSequenceClassification),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint."""

    model_info: Model
    tokenizer: Any
    """A transformers tokenizer; not thread-safe, so only the control thread may use it."""
    model: Any
    """A transformers model in eval mode on its device; only the device thread may use it."""


def load(settings: Settings) -> dict[TaskName, dict[str, Task]]:
    """Load every checkpoint of the settings: for each task by name, the first being the default.

    One after another: ``from_pretrained`` patches globals while it builds a model, and in parallel breaks models.

    Raises:
        CheckpointError: one cannot be loaded; the message says which, and why.
    """
    # Its progress bars would stand between the log's lines.
    transformers.utils.logging.disable_progress_bar()
    device = _device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    tasks: dict[TaskName, dict[str, Task]] = {}
    for spec in settings.models:
        task_class, model_class = SERVED[spec.task]
        task = task_class(_load(spec, model_class, device, _dtype(settings.dtype)))
        tasks.setdefault(spec.task, {})[spec.name] = task
    return tasks


def warm_up(tasks: Iterable[Task]) -> None:
    """Run each task once: the first forward sets up kernels and threads.

    Raises:
        CheckpointError: the model cannot run at all.
    """
    for task in tasks:
        try:
            task.forward(task.collate(task.warm_up_rows()))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise CheckpointError(f"{task.model.checkpoint} cannot run: {type(error).__name__}: {error}") from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CheckpointError(f"device {name}: torch sees no CUDA device; use --device cpu, or see the driver")
    return torch.device(name)


def _dtype(name: str) -> torch.dtype:
    # float32 by default: in half precision batched answers differ from single ones where scores are close.
    dtype: torch.dtype = getattr(torch, "float32" if name == "auto" else name)
    return dtype


def _load(spec: ModelSpec, model_class: Any, device: torch.device, dtype: torch.dtype) -> Checkpoint:
    began = time.monotonic()
    path = str(Path(spec.checkpoint).expanduser()) if Path(spec.checkpoint).expanduser().is_dir() else spec.checkpoint
    arguments: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **arguments)
        # The commit that the revision means now, so that a branch that moves meanwhile does not mix two checkpoints.
        arguments["revision"] = commit = getattr(config, "_commit_hash", None) or spec.revision
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **arguments)
        model, loading = model_class.from_pretrained(
            path, config=config, use_safetensors=True, dtype=dtype, output_loading_info=True, **arguments
        )
        model.eval().to(device)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise CheckpointError(_describe(spec, error)) from error
    if missing := sorted(loading["missing_keys"]):
        # transformers fills them with random numbers and a warning; the answers would look like answers.
        reason = f"it has no weights for {', '.join(missing[:3])}: it was not trained for this task"
        raise CheckpointError(f"checkpoint {spec.checkpoint} for {spec.task} cannot be used: {reason}")
    revision = _content_hash(Path(path)) if Path(path).is_dir() else str(commit)
    log.info(
        "checkpoint_loaded",
        task=spec.task,
        model=spec.name,
        checkpoint=spec.checkpoint,
        revision=revision,
        device=str(device),
        dtype=str(dtype),
        seconds=round(time.monotonic() - began, 1),
    )
    return Checkpoint(Model(name=spec.name, checkpoint=spec.checkpoint, revision=revision), tokenizer, model)


def _describe(spec: ModelSpec, error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    if spec.checkpoint.startswith((".", "/", "~")) and not Path(spec.checkpoint).expanduser().is_dir():
        first_line = "there is no such folder"
    elif "couldn't connect" in first_line:
        first_line = f"{first_line.rstrip('.')}; without the hub give a folder, or a filled cache by HF_HOME"
    return f"checkpoint {spec.checkpoint} for {spec.task} cannot be loaded: {first_line}"


def _content_hash(folder: Path) -> str:
    """Hash a folder's weights, so that an answer says which it came from."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
