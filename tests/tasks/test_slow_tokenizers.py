"""Tokenizers in Python, which do not tell where in the text a token stands: what can be served with them is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import pipeline

from checkpoints import SENTENCES, build_checkpoint
from parity import PROBABILITIES, difference, plain
from task_bench import DEVICE, serve
from tiny_tokenizers import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def asked(inputs: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer in Python, as PhoBERT's: it does not know where in the text a token stands."""
    folder = build_checkpoint("bert", "token-classification", tmp_path_factory.mktemp("slow"), vocab_size=500)
    (folder / "tokenizer.json").unlink()
    save_tokenizer("ctrl", folder)
    return folder


def test_a_tokenizer_without_offsets_serves_what_it_can(slow: Path) -> None:
    """As the pipeline: tokens and simple groups without start and end; words and windows are refused by name."""
    bench = serve(("token-classification", slow))
    cases = [asked(text, aggregation_strategy=each) for text in SENTENCES[:6] for each in ("none", "simple")]
    ours = bench.outputs([*cases, asked("")])
    assert ours.pop() == []
    single = pipeline("token-classification", model=str(slow), dtype=torch.float32, device=DEVICE)
    for case, answer in zip(cases, ours, strict=True):
        difference(answer, plain(single(case["inputs"], **case["parameters"])), PROBABILITIES)
    refused = [asked("a", aggregation_strategy=each) for each in ("first", "average", "max")]
    for answer in bench.ask([*refused, asked("a", stride=1)]):
        assert answer["error"]["code"] == "invalid_request"
        assert "stride" in answer["error"]["message"]
        assert "aggregation_strategy" in answer["error"]["message"]
