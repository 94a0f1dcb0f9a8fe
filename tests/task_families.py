"""Which families each task is tested with, and of which architecture these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tiny_families import FAMILY

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The head that each task asks of its checkpoints.
TASK_HEADS: Final[Mapping[str, str]] = {
    "text-classification": "sequence-classification",
    "zero-shot-classification": "sequence-classification",
    "token-classification": "token-classification",
    "fill-mask": "masked-lm",
    "question-answering": "question-answering",
    "summarization": "seq2seq-lm",
    "translation": "seq2seq-lm",
    "text-generation": "causal-lm",
    "feature-extraction": "base",
    "multiple-choice": "multiple-choice",
}
#: Every task with every family that has its head: (task, family).
EVERY: Final = [
    (task, name) for name, family in FAMILY.items() for task, head in TASK_HEADS.items() if head in family.heads
]


def architecture(family: str) -> str:
    """Tell by what it can write: encoder, decoder, or encoder-decoder."""
    heads = FAMILY[family].heads
    if "seq2seq-lm" in heads:
        return "encoder-decoder"
    return "decoder" if "causal-lm" in heads else "encoder"
