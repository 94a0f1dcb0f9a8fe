"""Which checkpoint serves which task, where, and in which dtype."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
import torch
import transformers

from nlp_schemas import Model
from nlp_worker.checkpoints import describe, read, unadvised, unusable
from nlp_worker.cores import usable_cores
from nlp_worker.errors import CheckpointError, SettingsError
from nlp_worker.plugins import load_plugin
from nlp_worker.tasks.feature_extraction import FeatureExtraction
from nlp_worker.tasks.fill_mask import FillMask
from nlp_worker.tasks.multiple_choice import MultipleChoice
from nlp_worker.tasks.question_answering import QuestionAnswering
from nlp_worker.tasks.summarization import Summarization
from nlp_worker.tasks.text_classification import TextClassification
from nlp_worker.tasks.text_generation import TextGeneration
from nlp_worker.tasks.token_classification import TokenClassification
from nlp_worker.tasks.translation import TranslationTask
from nlp_worker.tasks.zero_shot_classification import ZeroShotClassification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nlp_worker.settings import ModelSpec, Settings
    from nlp_worker.tasks.base import Task, TaskClass

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint."""

    model_info: Model
    tokenizer: Any
    """A transformers tokenizer; not thread-safe, so only the control thread may use it."""
    model: Any
    """A transformers model in eval mode on its device; only the device thread may use it."""
    packing: bool
    """Whether batches are packed instead of padded where the model allows it."""
    max_new_tokens: int
    """The most that are generated for a row."""


#: The tasks that are served, by their names; a plugin adds its own.
SERVED: Final[dict[str, TaskClass]] = {
    task.name: task
    for task in (
        TextClassification,
        ZeroShotClassification,
        TokenClassification,
        FillMask,
        QuestionAnswering,
        Summarization,
        TranslationTask,
        TextGeneration,
        FeatureExtraction,
        MultipleChoice,
    )
}

#: Tokens of a batch of rows that are generated, by the type of the device: keys and values are kept of each. A CPU
#: generates no faster with more (benchmarks.generation: 196 tokens a second, 174 of 8,192 and 158 of 16,384).
CACHE_TOKENS: Final[Mapping[str, int]] = {"cpu": 4_096, "cuda": 16_384}


def load(settings: Settings) -> dict[str, dict[str, Task]]:
    """Load every checkpoint of the settings: for each task by name, the first being the default.

    One after another: ``from_pretrained`` patches globals while it builds a model, and in parallel breaks models.

    Raises:
        CheckpointError: one cannot be loaded; the message says which, and why.
        SettingsError: a plugin cannot be used, or adds no task that a checkpoint is for.
    """
    # Its progress bars and its advice would stand between the log's lines.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    SERVED.update((task.name, task) for task in map(load_plugin, settings.plugin))
    device = torch_device(settings.device)
    torch.set_num_threads(settings.threads or _threads(device))
    tasks: dict[str, dict[str, Task]] = {}
    specs = settings.models
    for number, spec in enumerate(specs, 1):
        log.info("loading", model=spec.name, task=spec.task, number=number, of=len(specs))
        if (task_class := SERVED.get(spec.task)) is None:
            raise SettingsError(f"model: no plugin adds {spec.task}; there is {', '.join(SERVED)}")
        with unadvised():
            checkpoint = _load(spec, task_class, device, settings)
            try:
                task = task_class(checkpoint)
                log.info("packing", model=task.model.name, task=spec.task, packed=task.packs)
            except Exception as error:
                # Where it is a plugin's mistake its author needs to know the place.
                log.exception("task_failed", model=spec.name, task=spec.task)
                raise CheckpointError(f"{unusable(spec)}: {type(error).__name__}: {error}") from error
        tasks.setdefault(spec.task, {})[spec.name] = task
    return tasks


def cache_tokens(settings: Settings) -> int:
    """Return the most tokens of a batch of rows that are generated, where the settings do not say.

    Raises:
        CheckpointError: torch sees no such device.
    """
    return CACHE_TOKENS[torch_device(settings.device).type]


def describe_device(settings: Settings) -> str:
    """Say what checkpoints are computed on.

    Raises:
        CheckpointError: torch sees no such device.
    """
    device = torch_device(settings.device)
    if device.type != "cuda":
        return f"{device}: {torch.get_num_threads()} threads at most, {torch.cuda.device_count()} CUDA devices are seen"
    free, whole = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    return f"{device}: {torch.cuda.get_device_name(device)}, {free:.1f} GiB of {whole:.1f} GiB are free"


def torch_device(name: str) -> torch.device:
    """Return what the setting of this name means here.

    Raises:
        CheckpointError: torch sees no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CheckpointError(f"device {name}: torch sees no CUDA device; use --device cpu, or see the driver")
    return torch.device(name)


def _threads(device: torch.device) -> int:
    """Return how many threads torch computes with on the CPU.

    Beside a GPU it only copies there: with a thread for each of 16 cores, which wait in a loop for the next copy, a
    worker answered 5,300 requests a second on an H200, and with one 9,000.
    """
    return 1 if device.type == "cuda" else cpu_threads()


def cpu_threads() -> int:
    """Return how many threads torch computes with where it computes on the CPU."""
    return min(torch.get_num_threads(), usable_cores())


def _dtype(name: str, device: torch.device, own: torch.dtype | None) -> torch.dtype:
    """Return what a checkpoint is computed in.

    Args:
        name: The setting.
        device: Where.
        own: Of its weights, as its configuration says.
    """
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # Without the instructions it is several times as slow as float32; and of float32 weights nothing is given away.
    return torch.bfloat16 if own is torch.bfloat16 and torch.cpu._is_avx512_bf16_supported() else torch.float32  # noqa: SLF001


def _load(spec: ModelSpec, task_class: TaskClass, device: torch.device, settings: Settings) -> Checkpoint:
    began = time.monotonic()
    parts = read(spec, task_class.model_class, lambda own: _dtype(settings.dtype, device, own))
    unread = task_class.unread_weights
    if missing := [key for key in parts.missing if unread is None or not key.startswith(unread)]:
        # transformers fills them with random numbers and a warning; the answers would look like answers.
        reason = f"it has no weights for {', '.join(missing[:3])}: it was not trained for this task"
        raise CheckpointError(f"{unusable(spec)}: {reason}")
    try:
        parts.model.eval().to(device)
    except RuntimeError as error:
        raise CheckpointError(describe(spec, error)) from error
    log.info(
        "checkpoint_loaded",
        task=spec.task,
        model=spec.name,
        checkpoint=spec.checkpoint,
        revision=parts.revision,
        device=str(device),
        dtype=str(parts.model.dtype),
        seconds=round(time.monotonic() - began, 1),
    )
    model_info = Model(name=spec.name, checkpoint=spec.checkpoint, revision=parts.revision)
    packing = settings.packing == "auto"
    return Checkpoint(model_info, parts.tokenizer, parts.model, packing=packing, max_new_tokens=settings.max_new_tokens)
