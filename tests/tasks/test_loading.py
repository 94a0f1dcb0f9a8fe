"""Checkpoints as a worker loads them: warmed up, or refused with a message that says which and why."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from checkpoints import HEADS
from nlp_worker import models
from nlp_worker.errors import CheckpointError
from nlp_worker.models import load
from nlp_worker.settings import load_settings
from task_bench import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from task_bench import TaskBench

#: Each task of this kind, and the head that it needs.
TASKS = {
    "text-classification": "sequence-classification",
    "zero-shot-classification": "sequence-classification",
    "token-classification": "token-classification",
    "multiple-choice": "multiple-choice",
}


@pytest.mark.parametrize("family", HEADS)
def test_warm_up_runs(bench_of: Callable[..., TaskBench], family: str) -> None:
    """The rows that each task makes are rows that the model accepts."""
    warm_up(bench_of(task, family).task for task, head in TASKS.items() if head in HEADS[family])


def refuse(checkpoint: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load(load_settings({"model": (f"text-classification={checkpoint}",), "device": "cpu"}))


def test_a_checkpoint_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """A missing folder, and one with nothing in it."""
    for folder in (tmp_path / "missing", tmp_path):
        refuse(folder, folder.name)


def test_a_checkpoint_without_the_tasks_head_is_refused(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """Transformers would give it a head of random numbers, and every answer would be noise."""
    folder = folder_of("bert", "sequence-classification")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    transformers.AutoModel.from_pretrained(folder).save_pretrained(tmp_path)
    refuse(tmp_path, "no weights for classifier")


def test_a_family_without_a_model_for_the_task_is_named(folder_of: Callable[..., Path]) -> None:
    """With what it is, and not with transformers' list of all that it would take."""
    folder = folder_of("bert", "sequence-classification")
    told = "cannot be used: it is a bert, of which transformers has no model for summarization: take a checkpoint"
    with pytest.raises(CheckpointError, match=told):
        load(load_settings({"model": (f"summarization={folder}",), "device": "cpu"}))


def test_a_pooler_may_be_missing_only_where_it_is_not_read(folder_of: Callable[..., Path], tmp_path: Path) -> None:
    """BERT's classifier reads it, and a random one would look like an answer; token vectors do without."""
    shutil.copytree(folder_of("bert", "sequence-classification"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refuse(tmp_path, "no weights for bert.pooler")
    load(load_settings({"model": (f"feature-extraction={tmp_path}",), "device": "cpu"}))


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do() -> None:
    """The tests are offline, so that is what any hub id runs into."""
    refuse("nobody/nothing@main", "give a folder, or a filled cache by HF_HOME")


@pytest.mark.parametrize(
    ("name", "device", "own", "instructions", "dtype"),
    [
        ("auto", "cpu", torch.float32, True, torch.float32),
        ("auto", "cpu", torch.bfloat16, True, torch.bfloat16),
        ("auto", "cpu", torch.bfloat16, False, torch.float32),
        ("auto", "cpu", torch.float16, True, torch.float32),
        ("auto", "cuda", torch.float32, True, torch.bfloat16),
        ("auto", "cuda", torch.bfloat16, False, torch.float32),
        ("float16", "cpu", torch.bfloat16, False, torch.float16),
    ],
)
def test_half_precision_is_taken_where_the_device_has_it(  # noqa: PLR0917 - a table
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    device: str,
    own: torch.dtype,
    instructions: bool,
    dtype: torch.dtype,
) -> None:
    """On a CPU only for weights that are so already; what the settings say counts over all."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: instructions)
    assert models._dtype(name, torch.device(device), own) is dtype


def test_beside_a_gpu_torch_computes_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nothing to compute there, and threads that wait for copies take the cores of others."""
    monkeypatch.setattr(models, "usable_cores", lambda: 1)
    assert models._threads(torch.device("cpu")) == 1
    monkeypatch.setattr(models, "usable_cores", lambda: 10**6)
    assert models._threads(torch.device("cpu")) == torch.get_num_threads()
    assert models._threads(torch.device("cuda")) == 1
