"""The demo's checkpoint appears complete or not at all, is trained once, and loads as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import transformers

from nlp_worker.demo import recipe, train
from nlp_worker.demo.sentences import load_sentences

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether it learns is for the demo to show; here it only must get to its end.
    monkeypatch.setattr(train, "load_sentences", lambda: load_sentences()[:96])
    monkeypatch.setattr(recipe, "EPOCHS", 1)


def test_a_second_call_takes_it_from_the_cache(tmp_path: Path) -> None:
    folder, accuracy, cached = train.ensure_demo_checkpoint(tmp_path)
    assert not cached
    assert 0 <= accuracy <= 1
    assert train.ensure_demo_checkpoint(tmp_path) == (folder, accuracy, True)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_damaged_one_is_trained_again(tmp_path: Path) -> None:
    folder, _, _ = train.ensure_demo_checkpoint(tmp_path)
    (folder / "tokenizer.json").unlink()
    assert train.ensure_demo_checkpoint(tmp_path)[2] is False
    assert (folder / "tokenizer.json").is_file()


def test_it_loads_as_any_other(tmp_path: Path) -> None:
    shares: list[float] = []
    train.train_demo_checkpoint(tmp_path / "demo", progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "demo", trust_remote_code=False)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "demo", use_safetensors=True, trust_remote_code=False
    )
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512
    assert model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}


def test_an_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train_demo_checkpoint(tmp_path / "demo", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty"):
        train.train_demo_checkpoint(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
