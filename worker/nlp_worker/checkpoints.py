"""Reading a checkpoint, of whatever task: safetensors only, never remote code, and why where it cannot be read."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2

from nlp_worker.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from nlp_worker.settings import ModelSpec


@contextlib.contextmanager
def unadvised() -> Iterator[None]:
    """Do without advice: Marian's tokenizer, and every copy of it, wants sacremoses, which it then uses for nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        yield


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
        raise CheckpointError(describe(spec, error)) from error
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
        raise CheckpointError(describe(spec, error)) from error


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


def unusable(spec: ModelSpec) -> str:
    """Say that a checkpoint is of no use; the reason follows."""
    return f"checkpoint {spec.checkpoint} for {spec.task} cannot be used"


def describe(spec: ModelSpec, error: Exception) -> str:
    """Say why a checkpoint cannot be loaded, in words of whoever named it."""
    first_line = str(error).strip().partition("\n")[0]
    if "transfo-xl" in first_line:
        reason = "Transformer-XL left transformers 5, and has no attention mask, so that no batch of it can be padded"
        return f"{unusable(spec)}: {reason}: take another family"
    if found := re.match(r"Unrecognized configuration class <class '[\w.]+\.(\w+)'> for this kind of Auto", first_line):
        kind = str(getattr(getattr(transformers, found[1], None), "model_type", found[1]))
        kind = f"an {kind}" if kind.startswith(("a", "e", "i", "o")) else f"a {kind}"
        reason = f"it is {kind}, of which transformers has no model for {spec.task}"
        return f"{unusable(spec)}: {reason}: take a checkpoint that was trained for this task"
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
