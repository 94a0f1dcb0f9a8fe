"""A folder is read as a data set of the hub is: splits, names of labels, and what cannot be read told in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from nlp_schemas import TaskName
from nlp_worker.settings import load_settings
from nlp_worker.training import labelled_set, sources
from nlp_worker.training.problems import DataError, Kind

TASK = TaskName.TEXT_CLASSIFICATION


def parquet(rows: list[dict[str, Any]], file: Path, features: datasets.Features) -> None:
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows, features=features).to_parquet(file)
    datasets.enable_progress_bars()


def test_a_hub_that_cannot_be_reached_is_told() -> None:
    """Tests are offline: it is asked for one name, and not for another when that failed."""
    with pytest.raises(
        DataError, match=r"glue/mrpc@main: it is no file, no folder, no topic NAME\.labels, and as a data set"
    ):
        sources.read_dataset("glue/mrpc@main", "train")


@pytest.mark.parametrize("error", [RuntimeError("scripts are no longer supported"), ValueError("\nno config x")])
def test_a_data_set_of_the_hub_is_asked_for_as_the_hub_and_as_papers_name_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nyu-mll/glue/mrpc, glue/mrpc, imdb; whatever fails, the first failure is told."""
    asked: list[tuple[Any, ...]] = []

    def names(path: str, configuration: str | None, *, revision: str | None) -> list[str]:
        asked.append((path, configuration, revision))
        raise error

    monkeypatch.setattr(datasets, "get_dataset_split_names", names)
    for source in ("nyu-mll/glue/mrpc@v1", "glue/mrpc", "imdb"):
        with pytest.raises(DataError, match=str(error).strip()):
            sources.read_dataset(source, "train")
    assert asked == [
        ("nyu-mll/glue", "mrpc", "v1"),
        ("nyu-mll", "glue/mrpc", "v1"),
        ("glue/mrpc", None, None),
        ("glue", "mrpc", None),
        ("imdb", None, None),
    ]


@pytest.fixture
def mrpc(tmp_path: Path) -> Path:
    """A folder as the hub has GLUE's MRPC: a split for each use, and numbers that have names."""
    features = datasets.Features(
        {
            "sentence1": datasets.Value("string"),
            "sentence2": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["not_equivalent", "equivalent"]),
            "idx": datasets.Value("int32"),
        }
    )
    for split, labels in {"train": [1, 0], "validation": [1], "test": [-1]}.items():
        rows = [
            {"sentence1": f"{split} {index}", "sentence2": "other", "label": label, "idx": index}
            for index, label in enumerate(labels)
        ]
        parquet(rows, tmp_path / f"{split}-00000-of-00001.parquet", features)
    return tmp_path


def read(source: Path, split: str, task: str = TASK, labels: tuple[str, ...] = ()) -> labelled_set.LabelledSet | None:
    return labelled_set.read(load_settings({}), str(source), task, columns={}, labels=labels, split=split)


def test_a_folder_is_read_as_the_hub_is(mrpc: Path) -> None:
    """Each split by itself; labels have the names that the data set gives them, in its order."""
    found = read(mrpc, "train")
    assert found is not None
    assert (found.source, found.names) == (f"{mrpc} (train)", ["not_equivalent", "equivalent"])
    assert [(one.place, one.inputs, one.expected) for one in found.examples] == [
        ("row 1", {"text": "train 0", "text_pair": "other"}, "equivalent"),
        ("row 2", {"text": "train 1", "text_pair": "other"}, "not_equivalent"),
    ]
    validation = read(mrpc, "validation")
    assert validation is not None
    assert [one.inputs["text"] for one in validation.examples] == ["validation 0"]
    assert read(mrpc, "dev") is None


def test_a_split_without_labels_has_none(mrpc: Path) -> None:
    """GLUE writes -1 where the label is a secret: it is not the last class."""
    found = read(mrpc, "test")
    assert found is not None
    assert (found.examples, [problem.kind for problem in found.problems]) == ([], [Kind.NO_LABEL])


def test_names_that_are_given_win(mrpc: Path) -> None:
    """Over those of the data set."""
    found = read(mrpc, "train", labels=("no", "yes"))
    assert found is not None
    assert [one.expected for one in found.examples] == ["yes", "no"]


def test_names_of_tags_are_those_of_the_column_that_is_learned(tmp_path: Path) -> None:
    """CoNLL has parts of speech with names too."""
    tags = {"pos_tags": ["NOUN", "VERB"], "ner_tags": ["O", "B-PER"]}
    of_tags = {name: datasets.List(datasets.ClassLabel(names=names)) for name, names in tags.items()}
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), **of_tags})
    parquet(
        [{"tokens": ["Anna", "lives"], "pos_tags": [0, 1], "ner_tags": [1, 0]}], tmp_path / "train.parquet", features
    )
    found = read(tmp_path, "train", TaskName.TOKEN_CLASSIFICATION)
    assert found is not None
    assert found.names == ["O", "B-PER"]
    assert found.examples[0].expected.tags == ("B-PER", "O")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "doesn't contain any data files"),
        ({"script.py": "x"}, "cannot be read: "),
        ({"train.jsonl": '{"text": "a", "label": "b"}\n{"text":\n'}, "cannot be read: JSON parse error"),
        ({"train.parquet": "x"}, "cannot be read: Parquet"),
        ({"train.csv": 'text,label\na,b\n"c,d\n'}, "cannot be read: Error tokenizing data"),
    ],
)
def test_a_folder_that_cannot_be_read_is_told(files: dict[str, str], told: str, tmp_path: Path) -> None:
    """In one line, by its cause; it is not looked for on the hub."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(tmp_path, "train")
    assert str(caught.value).startswith(f"{tmp_path} cannot be read: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_leaves_no_copy_behind(mrpc: Path) -> None:
    """Of a data set of the hub a copy is kept, for the next time; of somebody's own folder there is none."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    before = set(cache.rglob("*"))
    read(mrpc, "train")
    assert not {path for path in set(cache.rglob("*")) - before if path.suffix != ".lock"}
