"""Rows that cannot be used are told before anything is computed: all of them, by their numbers, in one go."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from nlp_schemas import TaskName
from nlp_worker import logging as worker_logging
from nlp_worker.errors import ExitCode
from nlp_worker.train_cli import train
from nlp_worker.training.problems import DataError, Kind, Problem, count, describe, refuse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TASK = TaskName.TEXT_CLASSIFICATION

GOOD = [{"text": f"day {number}", "label": ("bad", "good")[number % 2]} for number in range(40)]


class Ended:
    """How a training ended whose base is not there: with code 2 nobody looked for it, with 5 somebody did."""

    def __init__(self, folder: Path, *arguments: str, task: str = TASK) -> None:
        before = set(folder.iterdir())
        options = ["--base", str(folder / "no-base"), "--out", str(folder / "out"), "--device", "cpu"]
        done = CliRunner().invoke(train, [task, *options, *arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        self.code = done.exit_code
        self.written = sorted(path.name for path in set(folder.iterdir()) - before)
        # Without the folder, which is another in every test.
        *self.told, self.error = done.stderr.replace(f"{folder}/", "").splitlines()


@pytest.fixture(autouse=True)
def the_log_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in this process would set it up for all tests behind it."""
    monkeypatch.setattr(worker_logging, "configure", lambda **_: None)


def write(file: Path, rows: Iterable[object]) -> str:
    file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(file)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Nothing is begun: neither the folder nor what stands beside it is there, and the base was not looked for."""
    bad = [
        {"text": "x", "label": None},
        {"text": " ", "label": "good"},
        {"review": "x", "label": "good"},
        "{",
        {"text": "x", "label": 1.5},
        {"text": "y"},
        {"text": "", "label": "bad"},
        {"text": "z", "label": "other"},
    ]
    data = write(tmp_path / "rows.jsonl", [*GOOD, *bad])
    ended = Ended(tmp_path, "--data", data, "--labels", "bad,good", "--held-out", "0.5")
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    assert ended.told[0] == "rows.jsonl: 41 rows"
    text = "text (or sentence, sentence1, premise, question1)"
    assert sorted(ended.told[1:]) == [
        "cannot be read (it is not JSON: Expecting property name enclosed in double quotes): row 44",
        "does not fit (a label is a text or an integer, and not a float): row 45",
        "empty text: row 42, row 47",
        "missing label (there is 'text', and no label: say which is which with --column): row 46",
        "missing label: row 41",
        "unknown label ('other' is none of bad, good): row 48",
        f"wrong columns (there is 'review', 'label', and no {text}: say which is which with --column): row 43",
    ]
    assert ended.error == "nlp-worker: 8 rows cannot be used: mend them, or leave them out with --skip-bad"


def test_bad_rows_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    """They are told and counted all the same, and the training goes on: to the base, which is not there."""
    data = write(tmp_path / "rows.jsonl", [{"text": "x"}, *GOOD, {"text": "", "label": "bad"}, {"text": "y"}])
    ended = Ended(tmp_path, "--data", data, "--skip-bad")
    assert ended.code == ExitCode.CHECKPOINT
    assert ended.told == [
        "rows.jsonl: 40 rows",
        "missing label (there is 'text', and no label: say which is which with --column): row 1, row 43",
        "empty text: row 42",
        "3 rows left out: missing label 2, empty text 1",
    ]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.json", "rows.parquet"])
def test_rows_have_their_numbers_in_every_format(name: str, tmp_path: Path) -> None:
    """The first row below a header is row 1."""
    import datasets  # noqa: PLC0415 - seconds, which the other tests may do without

    rows = [{"text": f"day {number}", "label": "" if number in {1, 7} else "ab"[number % 2]} for number in range(1, 21)]
    found = datasets.Dataset.from_list(rows)
    datasets.disable_progress_bars()
    write_to = {"csv": found.to_csv, "tsv": found.to_csv, "json": found.to_json, "parquet": found.to_parquet}
    write_to[name.rpartition(".")[2]](tmp_path / name, **({"sep": "\t"} if name.endswith("tsv") else {}))
    datasets.enable_progress_bars()
    ended = Ended(tmp_path, "--data", str(tmp_path / name))
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    assert ended.told == [f"{name}: 18 rows", "missing label: row 1, row 7"]


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        (TASK, [{"text": f"day {number}", "label": "good"} for number in range(40)]),
        (TaskName.TOKEN_CLASSIFICATION, [{"tokens": ["day", str(number)], "tags": ["O", "O"]} for number in range(40)]),
    ],
)
def test_one_class_alone_cannot_be_learned(task: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    """Whoever says it always would be right."""
    ended = Ended(tmp_path, "--data", write(tmp_path / "rows.jsonl", rows), task=task)
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    label = "good" if task == TASK else "O"
    assert (
        ended.error == f"nlp-worker: every row has the label '{label}': with one class only there is nothing to learn"
    )


@pytest.mark.parametrize("skip_bad", [False, True])
def test_what_is_trained_on_is_not_validated_on(tmp_path: Path, *, skip_bad: bool) -> None:
    """The same text in both would be remembered and not understood; ids and labels may be what they like."""
    data = write(tmp_path / "rows.jsonl", [row | {"id": number} for number, row in enumerate(GOOD)])
    others = [{"text": "another day", "label": "bad"}, {"text": "day 3", "label": "bad", "id": "x"}, GOOD[6]]
    validation = write(tmp_path / "others.jsonl", others)
    ended = Ended(tmp_path, "--data", data, "--validation", validation, *["--skip-bad"] * skip_bad)
    assert ended.told[:3] == ["rows.jsonl: 40 rows", "others.jsonl: 3 rows", "in training and validation: row 4, row 7"]
    if skip_bad:
        assert ended.told[3] == "2 rows left out: in training and validation 2"
    assert ended.code == (ExitCode.CHECKPOINT if skip_bad else ExitCode.USAGE)


def test_what_is_held_out_is_not_trained_on_under_another_id(tmp_path: Path) -> None:
    """A text that stands twice, on both sides of the split."""
    rows = [{"text": "the same day", "label": "good", "id": number} for number in range(20)]
    ended = Ended(tmp_path, "--data", write(tmp_path / "rows.jsonl", [*GOOD, *rows]), "--held-out", "0.5")
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    assert ended.told[1].startswith("in training and validation: row 4")


def test_a_label_that_training_has_not_cannot_be_validated(tmp_path: Path) -> None:
    """The model would have no such answer."""
    data = write(tmp_path / "rows.jsonl", GOOD)
    validation = write(tmp_path / "others.jsonl", [{"text": "x", "label": "good"}, {"text": "y", "label": "great"}])
    ended = Ended(tmp_path, "--data", data, "--validation", validation)
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    assert len(ended.told) == 3
    assert ended.told[2].startswith("unknown label ('great' is none of bad, good): ")
    assert ended.told[2].endswith("row 2")


@pytest.mark.parametrize(
    ("rows", "arguments", "told"),
    [
        (GOOD, ["--held-out", "0.00001"], "no row is left to validate on: give more rows, a larger --held-out, or"),
        (GOOD, ["--held-out", "0.9999999"], "no row is left to train on: give more rows"),
        ([], [], "cannot be read: it is empty"),
        ([" "], [], "no row is left to train on: give more rows"),
        (["{"], ["--skip-bad"], "no row is left to train on: give more rows"),
        (GOOD, ["--column", "txt=review"], "--column txt=review: text-classification has text, text_pair, label"),
        (GOOD, ["--validation", "none.csv"], "none.csv: there is no such file"),
    ],
)
def test_data_of_which_nothing_can_be_made_is_told(
    rows: list[Any], arguments: list[str], told: str, tmp_path: Path
) -> None:
    """In the command's last line, and with its own exit code."""
    ended = Ended(tmp_path, "--data", write(tmp_path / "rows.jsonl", rows), *arguments)
    assert (ended.code, ended.written) == (ExitCode.USAGE, [])
    assert ended.error.startswith("nlp-worker: ")
    assert told in ended.error


def test_squad_and_entities_that_do_not_fit_are_told(tmp_path: Path) -> None:
    """Off by one, of different lengths, overlapping: each says what stands there instead."""
    asked = {"question": "who?", "context": "it was Anna"}
    answers: list[Any] = [{"text": ["Anna"], "answer_start": [6]}, {"text": ["Anna"], "answer_start": [7, 8]}]
    data = write(tmp_path / "rows.jsonl", [{**asked, "answers": answer} for answer in answers])
    ended = Ended(tmp_path, "--data", data, task=TaskName.QUESTION_ANSWERING)
    assert ended.code == ExitCode.USAGE
    assert ended.told[1:] == [
        "does not fit (label: at 6 the context has ' Ann', and not 'Anna'): row 1",
        "does not fit (text and answer_start are not two lists of one length): row 2",
    ]


def test_many_rows_are_named_by_their_first() -> None:
    """There may be millions; no kind of problem is hidden behind another."""
    problems = [Problem(Kind.NO_LABEL, f"row {number}") for number in range(1, 2_001)]
    problems += [Problem(Kind.INVALID, f"row {number}", f"at {number}") for number in range(3_000, 3_020)]
    problems += [Problem(Kind.EMPTY, "row 9,999")]
    lines = describe(problems)
    first = ", ".join(f"row {number}" for number in range(1, 11))
    others = ", ".join(f"row {number}" for number in range(3_005, 3_015))
    assert lines == [
        f"missing label: {first} and 1,990 more",
        *(f"does not fit (at {number}): row {number}" for number in range(3_000, 3_005)),
        f"does not fit (in other ways): {others} and 5 more",
        "empty text: row 9,999",
    ]
    assert count(problems) == "missing label 2,000, does not fit 20, empty text 1"


def test_a_terminal_is_not_at_the_mercy_of_a_row() -> None:
    """What is told may have its text: it is shown, not obeyed, and not at any length."""
    (line,) = describe([Problem(Kind.INVALID, "row 1", "\x1b[2J" + "x" * 100_000)])
    assert line.startswith("does not fit (\\x1b[2Jxxx")
    assert line.endswith("xxx...): row 1")
    assert len(line) < 400


def test_one_row_is_it(capsys: pytest.CaptureFixture[str]) -> None:
    """And none is nothing to tell."""
    refuse([], print, skip_bad=False)
    with pytest.raises(DataError, match=r"^1 row cannot be used: mend it, or leave it out with --skip-bad$"):
        refuse([Problem(Kind.EMPTY, "row 1")], print, skip_bad=False)
    assert capsys.readouterr().out == "empty text: row 1\n"
