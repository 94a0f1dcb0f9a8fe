"""The demo's circle closes: serve, label, train, evaluate, roll over, without a request lost."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nlp_worker.demo import circle
from nlp_worker.demo.sentences import load_sentences
from processes import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(3 * PATIENCE)

#: Sentences that the circle has, and how many of them are asked a second: with these it takes two thirds of the time.
SENTENCES = 3600
RATE = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whoever comes second finds the base checkpoint in the cache."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(autouse=True)
def smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circle, "load_sentences", lambda: load_sentences()[:SENTENCES])
    monkeypatch.setattr(circle, "RATE", RATE)


@pytest.mark.slow  # the whole: a minute of two idle cores
def test_the_circle_closes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the commands of a shell: every request is answered, and the new revision is right more often."""
    closed = circle.run_circle(folder)
    printed = capsys.readouterr().out
    assert closed, printed
    asked, answered = (int(number) for number in re.findall(r"^asked (\d+), answered (\d+)$", printed, re.MULTILINE)[0])
    assert asked == answered > circle.WATCHED
    assert "lost 0, " in printed
    assert "the candidate is better" in printed
    (before, old), (after, new) = re.findall(r"^(?:before|after): ([\d.]+)% .* by (sha256:\w+)$", printed, re.MULTILINE)
    assert float(before) < float(after)
    assert f"revision {new}" in printed  # as `nlp-worker train` named it
    assert old != new
    assert "worker 1 exit 0" in printed


def test_a_command_that_fails_breaks_the_circle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code decides whether it goes on: behind a failed one nothing is rolled over to."""
    monkeypatch.setattr(circle, "TRAINING", ("--epochs", "0"))
    assert not circle.run_circle(folder)
    printed = capsys.readouterr().out
    assert "the circle is not closed: nlp-worker train ended with 2" in printed
    assert "evaluate" not in printed
    assert "worker 2" not in printed
