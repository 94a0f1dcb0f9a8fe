"""The demo's circle counts right answers by revision, and keeps what is asked apart from what is learned."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from nlp_schemas import RESULT, TaskName
from nlp_schemas.labels import LABELLED
from nlp_worker.demo import accuracy, recipe, toys, train
from nlp_worker.demo.accuracy import Accuracy, AccuracyView, Score
from nlp_worker.demo.circle import FEW, to_ask, to_label
from nlp_worker.demo.sentences import load_sentences
from nlp_worker.demo.toys import Toy
from nlp_worker.demo.traffic import Asked

if TYPE_CHECKING:
    from nlp_schemas import Ok

TASK = TaskName.TEXT_CLASSIFICATION
OLD, NEW = "sha256:0123456789abcdef", "sha256:fedcba9876543210"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that a test sets."""
    now = SimpleNamespace(now=0.0)
    monkeypatch.setattr("nlp_worker.demo.accuracy.time", SimpleNamespace(monotonic=lambda: now.now))
    return now


def _note(noted: Accuracy, revision: str, said: str, expected: str) -> None:
    noted.note(Asked(TASK, Toy("A text.", expected)), _answer(revision, said))


def _answer(revision: str, label: str) -> Ok:
    answer: Any = RESULT.validate_python(
        {
            "id": "1",
            "task": TASK,
            "status": "ok",
            "outputs": [{"label": label, "score": 0.9}],
            "model": {"name": "sentiment", "checkpoint": "folder", "revision": revision},
            "source": {"topic": "t", "partition": 0, "offset": 0},
            "usage": {"input_tokens": 3},
            "timing_ms": {"queue": 1.0, "device": 1.0},
        }
    )
    return answer  # type: ignore[no-any-return]


def test_right_answers_are_counted_by_revision(clock: SimpleNamespace) -> None:
    """All of a revision's answers count for the whole, and those of the last seconds alone for what is shown live."""
    noted = Accuracy()
    _note(noted, OLD, "POSITIVE", "NEGATIVE")
    clock.now = accuracy.WINDOW + 1
    _note(noted, OLD, "POSITIVE", "POSITIVE")
    _note(noted, NEW, "NEGATIVE", "NEGATIVE")
    assert noted.whole() == {OLD: Score(1, 2), NEW: Score(1, 1)}
    assert noted.recent() == {OLD: Score(1, 1), NEW: Score(1, 1)}
    clock.now = 3 * accuracy.WINDOW
    assert noted.recent() == {}


@pytest.mark.usefixtures("clock")
def test_line_and_table_tell_both_revisions() -> None:
    """Whoever watches sees for each revision how many answers are right, and which workers run."""
    noted = Accuracy()
    _note(noted, OLD, "POSITIVE", "NEGATIVE")
    _note(noted, NEW, "POSITIVE", "POSITIVE")
    traffic: Any = SimpleNamespace(submitted=3, answers={"a": 1, "b": 1})
    workers: Any = [
        SimpleNamespace(state="exit 0", partitions=["t-0"]),
        SimpleNamespace(state="running", partitions=["t-0"]),
    ]
    view = AccuracyView(workers, traffic, noted)
    assert view.line() == (
        "asked 3, answered 2 | sha256:01234567 0.0% of 1 right | sha256:fedcba98 100.0% of 1 right"
        " | worker 1 exit 0 | worker 2 running: 1 partitions"
    )
    printed = io.StringIO()
    Console(file=printed, width=100).print(view.table())
    for part in ("asked 3, answered 2", "sha256:01234567", "sha256:fedcba98", "100.0%", "worker 1 exit 0"):
        assert part in printed.getvalue()


def test_what_is_asked_is_never_learned() -> None:
    """The stream's sentences, the labelled ones and those of the base are three sets without a common one."""
    asked = {one.toy.inputs for one in to_ask()}
    labelled = {row["inputs"] for row in to_label()}
    sentences = load_sentences()
    base = {text for number, (_, text) in enumerate(sentences[:FEW]) if number % recipe.HELD_OUT}
    assert len(asked) + len(labelled) + len(base) == len(asked | labelled | base) == len(sentences)
    # Sentences that are repeated are held out as if they were not.
    assert recipe.HELD_OUT == toys.HELD_OUT
    assert FEW % recipe.HELD_OUT == 0


def test_labels_are_of_the_contract() -> None:
    """What the demo's producer emits is what `nlp-worker train` reads, each row with an id of its own."""
    rows = to_label()
    for row in rows:
        LABELLED[TASK].model_validate(row)
    assert len({row["id"] for row in rows}) == len(rows)


def test_few_sentences_make_another_checkpoint() -> None:
    """The cache holds the checkpoint of all sentences and that of few beside each other."""
    assert len({train._key(TASK, None), train._key(TASK, 600), train._key(TASK, 610)}) == 3
