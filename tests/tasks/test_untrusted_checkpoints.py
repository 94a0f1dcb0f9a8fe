"""Checkpoints that carry code: none of it runs, whoever made the folder."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import torch

from nlp_worker.errors import CheckpointError
from nlp_worker.models import load
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def checkpoint(folder_of: Callable[..., Path], tmp_path: Path) -> Path:
    return shutil.copytree(folder_of("bert", "sequence-classification"), tmp_path / "checkpoint")


def refuse(checkpoint: Path) -> str:
    with pytest.raises(CheckpointError) as refused:
        load(load_settings({"model": (f"text-classification={checkpoint}",), "device": "cpu"}))
    return str(refused.value)


class _Payload:
    """What is unpickled runs what it names: here a command that leaves a folder behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_weights_in_a_pickle_are_not_loaded(checkpoint: Path, tmp_path: Path) -> None:
    """Safetensors only: without them the folder is refused, and the pickle beside is not opened."""
    (checkpoint / "model.safetensors").unlink()
    torch.save({"weight": _Payload(tmp_path / "ran")}, checkpoint / "pytorch_model.bin")
    assert "safetensors" in refuse(checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("known", [True, False], ids=["known-family", "unknown-family"])
def test_code_in_a_checkpoint_is_not_run(checkpoint: Path, tmp_path: Path, *, known: bool) -> None:
    """A configuration may name classes of a file in the folder, which transformers imports where that is allowed."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    names = ("AutoConfig", "AutoModelForSequenceClassification")
    config["auto_map"] = {name: f"own.{name}" for name in names}
    config["model_type"] = config["model_type"] if known else "nobody-knows-it"
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (checkpoint / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n", encoding="utf-8")
    if known:  # its own code is passed over, and transformers' own class serves it
        load(load_settings({"model": (f"text-classification={checkpoint}",), "device": "cpu"}))
    else:
        assert "custom code" in refuse(checkpoint)
    assert not (tmp_path / "ran").exists()
