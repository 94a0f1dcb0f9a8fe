"""The demo's checkpoints appear complete or not at all, are trained once, and load as any other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers

from nlp_schemas import TaskName
from nlp_worker import models
from nlp_worker.demo import recipe, toy_recipes, train
from nlp_worker.demo.sentences import load_sentences
from nlp_worker.demo.toys import toys_to_ask, toys_to_learn
from nlp_worker.settings import Settings
from task_bench import warm_up

if TYPE_CHECKING:
    from pathlib import Path

SENTIMENT = TaskName.TEXT_CLASSIFICATION


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether they learn is for the demo to show; here they only must get to their end.
    monkeypatch.setattr(train, "load_sentences", lambda: load_sentences()[:96])
    monkeypatch.setattr(recipe, "EPOCHS", 1)
    short = {task: replace(one, toys=96, epochs=1) for task, one in toy_recipes.RECIPES.items()}
    monkeypatch.setattr(toy_recipes, "RECIPES", short)


def test_a_second_call_takes_it_from_the_cache(tmp_path: Path) -> None:
    miniature = train.ensure_miniature(SENTIMENT, tmp_path)
    assert not miniature.cached
    assert 0 <= miniature.accuracy <= 1
    assert train.ensure_miniature(SENTIMENT, tmp_path) == miniature._replace(cached=True)
    assert list(tmp_path.iterdir()) == [miniature.folder]


def test_a_damaged_one_is_trained_again(tmp_path: Path) -> None:
    folder = train.ensure_miniature(SENTIMENT, tmp_path).folder
    (folder / "tokenizer.json").unlink()
    assert not train.ensure_miniature(SENTIMENT, tmp_path).cached
    assert (folder / "tokenizer.json").is_file()


def test_it_loads_as_any_other(tmp_path: Path) -> None:
    shares: list[float] = []
    train.train_miniature(SENTIMENT, tmp_path / "demo", progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "demo", trust_remote_code=False)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "demo", use_safetensors=True, trust_remote_code=False
    )
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512
    assert model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}


@pytest.mark.parametrize("task", toy_recipes.RECIPES)
def test_the_worker_takes_it(task: TaskName, tmp_path: Path) -> None:
    train.train_miniature(task, tmp_path / "demo")
    (served,) = models.load(Settings(model=(f"{task}={tmp_path / 'demo'}",), device="cpu"))[task].values()
    warm_up([served])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "demo", trust_remote_code=False)
    assert tokenizer.model_max_length == 128
    assert tokenizer.pad_token_id is not None


@pytest.mark.parametrize("task", [TaskName.SUMMARIZATION, TaskName.TRANSLATION, TaskName.TEXT_GENERATION])
def test_what_writes_knows_where_to_begin_and_to_end(task: TaskName, tmp_path: Path) -> None:
    train.train_miniature(task, tmp_path)
    config = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert config.eos_token_id is not None
    assert config.pad_token_id is not None
    if task is not TaskName.TEXT_GENERATION:
        assert config.decoder_start_token_id is not None


@pytest.mark.parametrize("task", toy_recipes.RECIPES)
def test_every_word_of_a_toy_is_one_token(task: TaskName) -> None:
    one = toy_recipes.RECIPES[task]
    learnt = toys_to_learn(task, 3000, seed=0)
    tokenizer = one.tokenizer([text for toy in learnt for text in toy_recipes.texts_of(toy)])
    for toy in toys_to_ask(task, 20):
        for text in toy_recipes.texts_of(toy):
            for word in text.replace("<mask>", "").split():
                # And a token for each mark at its end.
                marks = len(word) - len(word.rstrip(".,?"))
                pieces = tokenizer.tokenize(f" {word}")
                spaces = [piece for piece in pieces if piece in {"▁", "Ġ"}]
                assert len(pieces) - len(spaces) <= 1 + marks + word.count("'") * 2, (word, pieces)


def test_the_same_seed_learns_the_same() -> None:
    first, second, other = (toy_recipes.learn(TaskName.FILL_MASK, seed, lambda _: None)[1] for seed in (0, 0, 1))
    assert _closest(first, second) < 1e-5 < _closest(first, other)


def _closest(model: Any, other: Any) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) if a.shape == b.shape else torch.inf for a, b in pairs)


def test_an_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train_miniature(SENTIMENT, tmp_path / "demo", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="is not empty"):
        train.train_miniature(SENTIMENT, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
