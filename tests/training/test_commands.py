"""The commands `train` and `evaluate` as a pipeline uses them: options, exit codes, and what they print."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from click.testing import CliRunner, Result

from nlp_worker.cli import main
from nlp_worker.errors import ExitCode
from task_families import TASK_HEADS
from trained import ROWS, run, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASK: Final = "text-classification"
#: Of a checkpoint that knows the rows' labels.
OWN_LABELS: Final = {"token-classification": {"labels": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")}}
QUIET: Final = ("--device", "cpu", "--threads", "1")


class Given(NamedTuple):
    """What there is to compare."""

    base: Path
    better: Path
    data: Path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, folder_of: Callable[..., Path]) -> Given:
    """A base that guesses, and what it has learned."""
    folder = tmp_path_factory.mktemp("given")
    data = write_rows(folder / "rows.jsonl", ROWS[TASK])
    base = folder_of("bert", "sequence-classification", labels=("bad", "good"))
    return Given(base, run(folder / "better", TASK, base, data, epochs=8, seed=1).folder, data)


def evaluate(*arguments: Any) -> Result:
    return CliRunner().invoke(main, ["evaluate", TASK, *map(str, arguments), *QUIET])


def test_a_better_candidate_is_told_and_let_through(given: Given) -> None:
    """Its scores, its baseline's, the difference with its interval; and exit code 0, whatever is required."""
    ended = evaluate(given.better, "--baseline", given.base, "--data", given.data, "--require", "better")
    assert ended.exit_code == 0, ended.output
    rows, _, candidate, baseline, verdict = ended.stdout.splitlines()
    assert rows == f"{given.data}: 180 rows"
    assert str(given.better) in candidate
    assert str(given.base) in baseline
    assert verdict.endswith("the candidate is better")


def test_a_worse_candidate_ends_with_1(given: Given) -> None:
    """So a pipeline stops; and with `better` required an equal one does too."""
    ended = evaluate(given.base, "--baseline", given.better, "--data", given.data)
    assert (ended.exit_code, ended.stdout.splitlines()[-1][-22:]) == (1, "the candidate is worse")
    same = given.base, "--baseline", given.base, "--data", given.data
    assert evaluate(*same).exit_code == 0
    assert evaluate(*same, "--require", "better").exit_code == 1


def test_all_figures_as_json_and_all_rows_in_a_file(given: Given, tmp_path: Path) -> None:
    """One object for programs; and for whoever wants to see what went wrong a line for each row."""
    output = tmp_path / "rows.jsonl"
    ended = evaluate(
        given.better, "--baseline", given.base, "--data", given.data, "--held-out", "0.3", "--json", "--output", output
    )
    found = json.loads(ended.stdout)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert found["rows"] == len(lines) < len(ROWS[TASK])
    right = [line["candidate"] == line["expected"] for line in lines]
    assert found["candidate"]["scores"]["accuracy"] == pytest.approx(sum(right) / len(right))
    comparison = found["comparison"]
    assert comparison["low"] <= comparison["difference"] <= comparison["high"]
    assert comparison["difference"] == pytest.approx(comparison["candidate"] - comparison["baseline"])


@pytest.mark.parametrize("task", ["token-classification", "question-answering", "summarization", "translation"])
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_every_task_is_evaluated(task: str, tmp_path: Path, folder_of: Callable[..., Path]) -> None:
    """Beside a baseline, by the task's own scores; here beside itself, which is no different."""
    families = {"token-classification": "bert", "question-answering": "bert", "summarization": "t5"}
    base = folder_of(families.get(task, "marian"), TASK_HEADS[task], **OWN_LABELS.get(task, {}))
    data = write_rows(tmp_path / "rows.jsonl", ROWS[task][:12])
    written = ["-p", "max_new_tokens=8", "-p", "num_beams=1"] if TASK_HEADS[task] == "seq2seq-lm" else []
    arguments = ["evaluate", task, str(base), "--baseline", str(base), "--data", str(data), *written, *QUIET]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines()[-1].endswith("the candidate is no different")


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_a_checkpoint_that_answers_nothing_is_not_let_through(tmp_path: Path, folder_of: Callable[..., Path]) -> None:
    """A language that is forgotten: both score 0, and no different would be no reason to roll out."""
    base = str(folder_of("mbart", "seq2seq-lm"))
    data = write_rows(tmp_path / "rows.jsonl", ROWS["translation"][:5])
    arguments = ["evaluate", "translation", base, "--baseline", base, "--data", str(data), *QUIET]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    assert "not one row is answered with outputs, the first is answered invalid_request: parameters." in ended.stderr


def test_where_its_rows_go_is_looked_at_first(given: Given, tmp_path: Path) -> None:
    """Not behind an hour of answers, and not with the code of a candidate that is worse."""
    ended = evaluate(given.better, "--data", given.data, "--output", tmp_path / "none" / "rows.jsonl")
    assert (ended.exit_code, "rows.jsonl cannot be written to" in ended.stderr) == (2, True)
    assert ended.stdout == ""


def test_rows_that_it_was_trained_on_are_warned_of(given: Given) -> None:
    """Without --held-out a candidate is judged on what it has learned by heart, and looks better than it is."""
    warned = evaluate(given.better, "--data", given.data)
    assert "was trained on rows of" in warned.stderr
    assert "--held-out 0.3 leaves those out" in warned.stderr
    assert evaluate(given.better, "--data", given.data, "--held-out", "0.3").stderr == ""
    assert evaluate(given.base, "--data", given.data).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["train", "fill-mask", "--base", "x", "--data", "y", "--out", "z"], 2, "fill-mask cannot be trained"),
        (["train", TASK, "--base", "x", "--data", "y"], 2, "Missing option '--out'"),
        (["train", TASK, "--base", "x", "--data", "y", "--out", "z", "--epochs", "none"], 2, "--epochs none: "),
        (["train", TASK, "--base", "x", "--data", "y", "--out", "z", "--seed", "-1"], 2, "--seed -1: "),
        (["train", TASK, "--base", "x", "--data", "y", "--out", "z", "--column", "label"], 2, "FIELD=COLUMN"),
        (["train", TASK, "--base", "x", "--data", "none.csv", "--out", "z"], 2, "there is no such file"),
        (["evaluate", TASK, "/nowhere", "--data", "none.csv"], ExitCode.CHECKPOINT, "there is no such folder"),
        (["evaluate", TASK, "x", "--data", "y", "--confidence", "1"], 2, "--confidence"),
        (["evaluate", TASK, "x", "--data", "y", "--confidence", "nan"], 2, "it is no number"),
        (["evaluate", "fill-mask", "x", "--data", "y"], 2, "fill-mask cannot be trained"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said(
    arguments: list[str], code: int, told: str, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, with what would be right, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(main, arguments)
    assert (ended.exit_code, told in ended.stderr) == (code, True), ended.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["train", TASK, "--base", "x", "--out", "z"], ["evaluate", TASK, "x"]], ids=str)
def test_without_the_extra_it_is_said_how_to_get_it(command: list[str]) -> None:
    """Whoever serves has no need of it."""
    program = "import sys; sys.modules['accelerate'] = None; from nlp_worker.cli import main; main()"
    arguments = [sys.executable, "-c", program, *command, "--data", "rows.csv"]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False)
    told = "nlp-worker: accelerate is missing: install nlp-worker with its extras inference and train\n"
    assert (ended.returncode, ended.stderr) == (2, told)
