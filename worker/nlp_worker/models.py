"""Which checkpoint serves which task, and loading it: safetensors only, never remote code, one dtype."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
import tokenizers
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2

from nlp_schemas import Model
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
    from collections.abc import Callable, Iterator, Mapping

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
                raise CheckpointError(f"{_unusable(spec)}: {type(error).__name__}: {error}") from error
        tasks.setdefault(spec.task, {})[spec.name] = task
    return tasks


@contextlib.contextmanager
def unadvised() -> Iterator[None]:
    """Do without advice: Marian's tokenizer, and every copy of it, wants sacremoses, which it then uses for nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        yield


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
        raise CheckpointError(f"{_unusable(spec)}: {reason}")
    try:
        parts.model.eval().to(device)
    except RuntimeError as error:
        raise CheckpointError(_describe(spec, error)) from error
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


class Parts(NamedTuple):
    """What a checkpoint is read into, on the CPU."""

    tokenizer: Any
    model: Any
    missing: list[str]
    """Names of the weights that the checkpoint does not have, which are random numbers now."""
    revision: str
    """The hub's full commit, or a hash of a folder's weights."""


def read(
    spec: ModelSpec,
    model_class: Any,
    dtype: Callable[[torch.dtype | None], torch.dtype],
    adapt: Callable[[Any], None] = lambda _: None,
    **options: Any,
) -> Parts:
    """Read a checkpoint's tokenizer and model.

    Args:
        spec: Which.
        model_class: Of transformers.
        dtype: Tells by the weights' own, as the configuration has it, what they become.
        adapt: May change the configuration before the model is made by it.
        options: More of ``from_pretrained``.

    Raises:
        CheckpointError: it cannot be loaded; the message says why.
    """
    config = read_config(spec)
    path = _path(spec)
    arguments: dict[str, Any] = {"trust_remote_code": False}
    try:
        # The commit that the revision means now, so that a branch that moves meanwhile does not mix two checkpoints.
        arguments["revision"] = commit = getattr(config, "_commit_hash", None) or spec.revision
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **arguments)
        _restore_normalizer(tokenizer, path, arguments["revision"])
        own = getattr(config, "dtype", None)
        adapt(config)
        model, loading = model_class.from_pretrained(
            path,
            config=config,
            use_safetensors=True,
            dtype=dtype(own),
            output_loading_info=True,
            **arguments,
            **options,
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise CheckpointError(_describe(spec, error)) from error
    revision = content_hash(Path(path)) if Path(path).is_dir() else str(commit)
    # Where other shapes are let pass, their weights are new too.
    missing = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    return Parts(tokenizer, model, sorted(missing), revision)


def read_config(spec: ModelSpec) -> Any:
    """Read a checkpoint's configuration alone.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        return transformers.AutoConfig.from_pretrained(_path(spec), revision=spec.revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
        raise CheckpointError(_describe(spec, error)) from error


def _path(spec: ModelSpec) -> str:
    """Return what transformers takes for a checkpoint: a folder's path, or a hub id."""
    folder = Path(spec.checkpoint).expanduser()
    return str(folder) if folder.is_dir() else spec.checkpoint


def _restore_normalizer(tokenizer: Any, path: str, revision: str | None) -> None:
    """Give a tokenizer the normalizer that its file has and its class in transformers 5 drops: mBART's.

    Without it full-width forms, ligatures and the like become other ids than the checkpoint was trained on.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.normalizer is not None:
        return
    arguments = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    if (file := transformers.utils.cached_file(path, "tokenizer.json", **arguments)) is not None:
        normalizer = tokenizers.Tokenizer.from_file(file).normalizer
    elif (file := transformers.utils.cached_file(path, "sentencepiece.bpe.model", **arguments)) is not None:
        proto: Any = sentencepiece_model_pb2.ModelProto.FromString(Path(file).read_bytes())  # type: ignore[attr-defined]
        charsmap = proto.normalizer_spec.precompiled_charsmap
        normalizer = tokenizers.normalizers.Precompiled(charsmap) if charsmap else None
    else:
        return
    if normalizer is not None:
        backend.normalizer = normalizer


def _unusable(spec: ModelSpec) -> str:
    return f"checkpoint {spec.checkpoint} for {spec.task} cannot be used"


def _describe(spec: ModelSpec, error: Exception) -> str:
    first_line = str(error).strip().partition("\n")[0]
    if "transfo-xl" in first_line:
        reason = "Transformer-XL left transformers 5, and has no attention mask, so that no batch of it can be padded"
        return f"{_unusable(spec)}: {reason}: take another family"
    if found := re.match(r"Unrecognized configuration class <class '[\w.]+\.(\w+)'> for this kind of Auto", first_line):
        kind = str(getattr(getattr(transformers, found[1], None), "model_type", found[1]))
        kind = f"an {kind}" if kind.startswith(("a", "e", "i", "o")) else f"a {kind}"
        reason = f"it is {kind}, of which transformers has no model for {spec.task}"
        return f"{_unusable(spec)}: {reason}: take a checkpoint that was trained for this task"
    if spec.checkpoint.startswith((".", "/", "~")) and not Path(spec.checkpoint).expanduser().is_dir():
        first_line = "there is no such folder"
    elif "couldn't connect" in first_line:
        here = f"there is no folder {spec.checkpoint} here, and as a checkpoint of the hub: {first_line.rstrip('.')}"
        first_line = f"{here}; without the hub give a folder, or a filled cache by HF_HOME"
    return f"checkpoint {spec.checkpoint} for {spec.task} cannot be loaded: {first_line}"


def labels_of(config: Any) -> list[str]:
    """Return the labels that a checkpoint of this configuration gives, in the order of their numbers."""
    return [str(config.id2label[number]) for number in range(config.num_labels)]


def content_hash(folder: Path) -> str:
    """Hash a folder's weights, so that an answer says which it came from."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
