"""The checkpoints of the golden answers, built as `checkpoints.py` builds them, and how to tell them from others."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final

import sentencepiece
from safetensors import safe_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: How far the norms of two tensors may be apart, relatively: float noise of another CPU is far below, another seed far
#: above.
NORM_TOLERANCE: Final = 1e-3


def make(recipe: Mapping[str, Any], folder: Path, build: Callable[..., Path]) -> Path:
    """Build a checkpoint, and return its folder.

    Args:
        recipe: Of the file of golden answers: family, head, seed, config, and what of its vocabulary is renamed.
        folder: Made where it does not exist.
        build: `checkpoints.build_checkpoint`; not imported here, as it does not run under transformers 4.
    """
    build(recipe["family"], recipe["head"], folder, seed=recipe["seed"], **recipe["config"])
    if recipe["rename"]:
        path = folder / "vocab.json"
        vocab = json.loads(path.read_text(encoding="utf-8"))
        if missing := recipe["rename"].keys() - vocab.keys():
            raise ValueError(f"{path} lacks {missing}: rename other pieces.")
        renamed = {recipe["rename"].get(token, token): index for token, index in vocab.items()}
        path.write_text(json.dumps(renamed), encoding="utf-8")
    return folder


def fingerprint(folder: Path) -> dict[str, Any]:
    """Describe a checkpoint: hashes of its vocabulary and settings, and the norm of each of its tensors."""
    norms = dict(_norms(folder))
    return {
        "vocabulary": _hash(list(_vocabulary(folder))),
        "settings": _hash([_settings(folder / name) for name in ("config.json", "generation_config.json")]),
        "tensors": _hash(list(norms)),
        "norms": list(norms.values()),
    }


def difference(ours: Mapping[str, Any], golden: Mapping[str, Any]) -> str | None:
    """Say in which way a checkpoint is not the one that golden answers were made with; None where it is."""
    for name in "vocabulary", "settings", "tensors":
        if ours[name] != golden[name]:
            return f"other {name}"
    for place, (norm, expected) in enumerate(zip(ours["norms"], golden["norms"], strict=True)):
        if not math.isclose(norm, expected, rel_tol=NORM_TOLERANCE, abs_tol=NORM_TOLERANCE):
            return f"another tensor at {place}: norm {norm}, not {expected}"
    return None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _vocabulary(folder: Path) -> Iterator[Any]:
    fast = folder / "tokenizer.json"
    if fast.exists():
        tokenizer = json.loads(fast.read_text(encoding="utf-8"))
        yield [tokenizer["model"]["vocab"], tokenizer["model"].get("merges")]
        yield sorted([token["content"], token["id"]] for token in tokenizer["added_tokens"])
        return
    yield json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.spm")):
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        yield [[pieces.id_to_piece(i), round(pieces.get_score(i), 2)] for i in range(pieces.get_piece_size())]


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # Another release of transformers adds settings and drops them: those that change an answer change a norm or stay.
    kept = ("max_length", "min_length", "num_beams", "early_stopping", "length_penalty", "no_repeat_ngram_size")
    names = (*kept, "model_type", "prefix", "task_specific_params", "max_position_embeddings", "bad_words_ids")
    return {name: value for name, value in settings.items() if name in names or name.endswith("_token_id")}


def _norms(folder: Path) -> Iterator[tuple[str, float]]:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        for name in sorted(file.keys()):
            yield name, float(f"{file.get_tensor(name).double().norm().item():.5g}")
