"""What a training leaves behind: a checkpoint that a worker serves, and a card that tells what it is."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any, Final

import pytest
from huggingface_hub import ModelCard

from nlp_worker.checkpoints import content_hash
from nlp_worker.errors import CheckpointError, SettingsError
from nlp_worker.settings import load_settings
from nlp_worker.training import evaluation, labelled_set
from nlp_worker.training.problems import DataError
from task_bench import serve
from task_families import TASK_HEADS
from tiny_families import FAMILY
from trained import ROWS, Heard, run, write_rows

if TYPE_CHECKING:
    from pathlib import Path


TASKS: Final = ("text-classification", "token-classification", "question-answering", "summarization", "translation")
#: Each task with each family that has its head; of tokens and spans those whose tokenizers tell places in a text.
CASES: Final = [(task, name) for task in TASKS for name, family in FAMILY.items() if TASK_HEADS[task] in family.heads]
#: Parameters without which a family does not translate.
LANGUAGES: Final = {
    "mbart": {"src_lang": "en_XX", "tgt_lang": "ro_RO"},
    "m2m_100": {"src_lang": "en", "tgt_lang": "fr"},
}


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    return lambda task, count=None: write_rows(tmp_path / "rows.jsonl", ROWS[task][:count])


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize(("task", "family"), CASES)
def test_every_family_learns_and_is_served(task: str, family: str, tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """Its weights change; the folder is loaded by a worker's own code, and answers as the card says that it does."""
    base, data = folder_of(family, TASK_HEADS[task]), rows(task)
    written = {"max_new_tokens": 8, "num_beams": 1} if TASK_HEADS[task] == "seq2seq-lm" else {}
    parameters = {**written, **(LANGUAGES.get(family, {}) if task == "translation" else {})}
    trained = run(tmp_path / "out", task, base, data, epochs=4, learning_rate=5e-3, seed=1, parameters=parameters)
    assert trained.revision != content_hash(base)
    best = trained.history.best
    assert evaluated(task, trained.folder, data, parameters) == pytest.approx(best.scores, abs=1e-6)


def evaluated(task: str, folder: Path, data: Path, parameters: Any) -> dict[str, float]:
    """Return the scores of `nlp-worker evaluate --held-out 0.3`."""
    model = f"candidate:{task}={folder}"
    settings = load_settings({"model": (model,), "device": "cpu", "threads": 1, "dtype": "float32", "packing": "off"})
    read = labelled_set.read(settings, str(data), task, columns={}, labels=())
    assert read is not None
    held_out = [example for example in read.examples if labelled_set.is_held_out(example, 0.3)]
    metrics = evaluation.metrics_for(task, evaluation.known_labels(settings), held_out, None)
    report = evaluation.evaluate(settings, held_out, parameters, metrics, lambda *_: None)
    assert report.evaluated[0].errors == {}
    return report.evaluated[0].scores


def test_the_revision_is_the_one_that_answers_show(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """A hash of the weights: in the card, in training.json, at the end of the command, and in each answer."""
    base = folder_of("bert", "sequence-classification")
    trained = run(tmp_path / "out", "text-classification", base, rows("text-classification"))
    (answer,) = serve(("text-classification", trained.folder)).ask([{"inputs": "The film was dull."}])
    assert answer["model"]["revision"] == trained.revision == content_hash(trained.folder)
    assert json.loads((trained.folder / "training.json").read_text())["revision"] == trained.revision
    assert trained.revision in (trained.folder / "README.md").read_text()


def test_the_card_tells_data_settings_and_scores(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """As the hub reads cards; without the folders of whoever trained. The rows themselves are in none of the files."""
    base = folder_of("bert", "sequence-classification")
    data = rows("text-classification")
    trained = run(tmp_path / "out", "text-classification", base, data, seed=7)
    card = ModelCard.load(trained.folder / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    reported = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert reported == pytest.approx(trained.history.best.scores, abs=1e-6)
    record = json.loads((trained.folder / "training.json").read_text())
    assert record["settings"]["seed"] == 7
    assert record["data"]["training_rows"] + record["data"]["validation_rows"] == len(ROWS["text-classification"])
    for told in (*record["data"].values(), record["base_revision"]):
        assert str(told) in card.text
    assert [epoch["number"] for epoch in record["epochs"]] == [1, 2]
    written = b"".join(file.read_bytes() for file in trained.folder.iterdir() if file.suffix in {".md", ".json"})
    assert str(tmp_path).encode() not in written
    assert str(base).encode() not in written
    assert b"The film was" not in written
    assert (trained.folder / "learning-curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_fingerprint_is_of_the_rows_and_not_of_their_order(tmp_path: Path, folder_of: Any) -> None:
    """Two trainings of the same rows tell so; one row more, and they tell otherwise."""
    base, whole = folder_of("bert", "sequence-classification"), ROWS["text-classification"]
    prints = []
    for name, chosen in (("one", whole), ("turned", whole[::-1]), ("less", whole[1:])):
        data = write_rows(tmp_path / f"{name}.jsonl", chosen)
        folder = run(tmp_path / name, "text-classification", base, data, epochs=1).folder
        found = json.loads((folder / "training.json").read_text())["data"]
        prints.append((found["training_fingerprint"], found["validation_fingerprint"]))
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_other_users_may_read_it(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """A worker in a container is another user than whoever trained: safetensors alone would keep it out."""
    base = folder_of("bert", "sequence-classification")
    trained = run(tmp_path / "out", "text-classification", base, rows("text-classification"), epochs=1)
    assert all(file.stat().st_mode & stat.S_IROTH for file in trained.folder.iterdir())


def test_a_base_that_knows_the_labels_keeps_its_head(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """In its own order; one that knows others gets a new head, with the labels in the order of the alphabet."""
    data = rows("text-classification")
    options: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-9}
    knows = folder_of("bert", "sequence-classification", labels=("good", "fair", "bad"))
    kept = run(tmp_path / "kept", "text-classification", knows, data, **options)
    assert labels(kept.folder) == ["good", "fair", "bad"]
    before = serve(("text-classification", knows)).outputs([{"inputs": "The film was dull."}])
    after = serve(("text-classification", kept.folder)).outputs([{"inputs": "The film was dull."}])
    assert before[0][0]["label"] == after[0][0]["label"]
    assert before[0][0]["score"] == pytest.approx(after[0][0]["score"], abs=1e-4)
    other = run(
        tmp_path / "other", "text-classification", folder_of("bert", "sequence-classification"), data, **options
    )
    assert labels(other.folder) == ["bad", "good"]
    masked = run(tmp_path / "masked", "text-classification", folder_of("bert", "masked-lm"), data, **options)
    assert labels(masked.folder) == ["bad", "good"]


def test_a_label_that_the_base_lacks_beside_others_that_it_has_is_a_mistake(tmp_path: Path, folder_of: Any) -> None:
    """One misspelt label among thousands must not cost the base its head; --labels says that it is meant."""
    base = folder_of("bert", "sequence-classification", labels=("bad", "good"))
    data = write_rows(tmp_path / "rows.jsonl", [*ROWS["text-classification"], {"text": "Fine.", "label": "goood"}])
    heard = Heard()
    with pytest.raises(DataError, match="1 row cannot be used"):
        run(tmp_path / "out", "text-classification", base, data, heard=heard)
    assert heard.said[1:] == ["unknown label ('goood' is none of bad, good): row 181"]
    meant = run(tmp_path / "out", "text-classification", base, data, labels=("bad", "good", "goood"), epochs=1)
    assert labels(meant.folder) == ["bad", "good", "goood"]


def test_what_becomes_of_the_base_s_head_is_told(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """Kept, with other labels, or new: transformers says it in a warning that nobody reads."""
    data, told = rows("text-classification"), []
    for name, options in (("kept", {"labels": ("bad", "good")}), ("other", {"labels": ("0", "1")}), ("new", {})):
        heard, base = Heard(), folder_of("bert", "sequence-classification", **options)
        run(tmp_path / name, "text-classification", base, data, heard=heard, epochs=1)
        told.append(heard.said[1])
    assert told == [
        "the base's head is kept: bad, good",
        "the base's head gave 0, 1, and learns other labels: bad, good",
        "the base has no such head, and gets one: bad, good",
    ]


def labels(folder: Path) -> list[str]:
    config = json.loads((folder / "config.json").read_text())
    return [config["id2label"][str(number)] for number in range(len(config["id2label"]))]


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path: Path, rows: Any, folder_of: Any) -> None:
    """Of several epochs the one with the best score."""
    base = folder_of("bert", "sequence-classification", labels=("bad", "good"))
    data = rows("text-classification")
    trained = run(tmp_path / "out", "text-classification", base, data, epochs=8, learning_rate=1e-2, seed=1)
    scores = [epoch.scores["accuracy"] for epoch in trained.history.epochs]
    assert trained.history.best.scores["accuracy"] == max(scores) > scores[-1], "the last was the best: proves nothing"
    assert evaluated("text-classification", trained.folder, data, {})["accuracy"] == pytest.approx(max(scores))


def test_longer_rows_are_cut_in_training_alone(tmp_path: Path, folder_of: Any) -> None:
    """--max-length saves memory while it learns; the checkpoint reads as much as before."""
    base = folder_of("bert", "sequence-classification")
    long = [{**row, "text": row["text"] + " So it was." * 20} for row in ROWS["text-classification"]]
    data = write_rows(tmp_path / "long.jsonl", long)
    trained = run(tmp_path / "out", "text-classification", base, data, epochs=1, max_length=16)
    (answer,) = serve(("text-classification", trained.folder)).ask([{"inputs": long[0]["text"]}])
    (before,) = serve(("text-classification", base)).ask([{"inputs": long[0]["text"]}])
    assert answer["usage"] == before["usage"]
    assert answer["usage"]["input_tokens"] > 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": "bleu"}, "--metric: .*accuracy"),
        ({"parameters": {"num_beams": 2}}, "--parameter num_beams: Extra inputs are not permitted"),
        ({"parameters": {"top_k": 0}}, "--parameter top_k: .*greater than or equal to 1"),
        (
            {"task": "token-classification", "parameters": {"aggregation_strategy": "simple"}},
            "leave out aggregation_strategy",
        ),
        ({"task": "summarization"}, "bert.*has no model for summarization"),
        ({"base": "/nowhere"}, "/nowhere.*there is no such folder"),
        ({"device": "cuda"}, "torch sees no CUDA device"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_is_said_before_anything_is(
    changed: dict[str, Any], message: str, tmp_path: Path, folder_of: Any
) -> None:
    """Each names what was wrong, and the folder that was asked for is not there."""
    task = changed.get("task", "text-classification")
    head = "token-classification" if task == "token-classification" else "sequence-classification"
    base = changed.get("base", folder_of("bert", head))
    data = write_rows(tmp_path / "rows.jsonl", ROWS[task])
    options = {name: value for name, value in changed.items() if name not in {"task", "base"}}
    with pytest.raises((SettingsError, CheckpointError), match=message):
        run(tmp_path / "out", task, base, data, **options)
    assert not (tmp_path / "out").exists()
