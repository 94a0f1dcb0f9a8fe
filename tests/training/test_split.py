"""Which rows are held out, and which label of an id counts: the same in every run, wherever rows stand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlp_schemas import TaskName
from nlp_worker.training import labelled_set
from nlp_worker.training.examples import Example, Reader, Row, content_id
from nlp_worker.training.labelled_set import LabelledSet, is_held_out
from nlp_worker.training.problems import Kind, Problem
from nlp_worker.training.sources import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TASK = TaskName.TEXT_CLASSIFICATION

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
SHARES = st.floats(0, 1)


def example(identity: str) -> Example:
    return Example("row 1", identity, "a day", "good")


def gather(*rows: Row | Problem) -> LabelledSet:
    return labelled_set._gather(Rows("rows", list(rows)), Reader(TASK))


def row(number: int, **columns: Any) -> Row:
    return Row(f"row {number}", {"text": f"day {number}", "label": "good", **columns})


def held_out(examples: Iterable[Example], share: float = 0.3) -> set[str]:
    return {one.id for one in examples if is_held_out(one, share)}


def test_where_a_row_goes_never_changes() -> None:
    """Between releases too: a row that was trained on would be validated on."""
    assert held_out(map(example, "abcdefghijklmnopqrstuvwxyz")) == set(HELD_OUT)


#: Of the ids from a to z, 0.3 of them: the first 8 bytes of each SHA-256 are below 0.3 * 2**64.
HELD_OUT = "bcdefjnprsuvx"


@given(IDS, SHARES, SHARES)
def test_a_larger_share_holds_out_what_a_smaller_one_did(identity: str, one: float, other: float) -> None:
    """So that who wants more to validate on never validates on what was trained on."""
    small, large = sorted((one, other))
    assert is_held_out(example(identity), large) or not is_held_out(example(identity), small)


@given(IDS)
def test_the_shares_have_ends(identity: str) -> None:
    assert not is_held_out(example(identity), 0)
    assert is_held_out(example(identity), 1)


def test_the_share_is_the_share() -> None:
    """Of ids that look alike too: 10,000 of them are off by less than five standard deviations."""
    examples = [example(f"nlp.text-classification.labels-0-{number}") for number in range(10_000)]
    for share in (0.01, 0.1, 0.5):
        spread = (10_000 * share * (1 - share)) ** 0.5
        assert len(held_out(examples, share)) == pytest.approx(10_000 * share, abs=5 * spread)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans())), st.randoms(use_true_random=False), SHARES)
def test_no_row_changes_sides(drawn: list[tuple[int, bool]], random: Any, share: float) -> None:
    """In whatever order rows stand, and however many come: by their own ids, or by what they ask."""
    rows = [row(number, **({"id": number} if has_id else {})) for number, has_id in drawn]
    before = gather(*rows[: len(rows) // 2]).examples
    shuffled = random.sample(rows, len(rows))
    after = gather(*shuffled).examples
    outside = held_out(after, share)
    assert held_out(before, share) == outside & {one.id for one in before}
    assert {one.id for one in before} <= {one.id for one in after}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["good", "bad", None]))))
def test_the_last_label_of_an_id_counts(drawn: list[tuple[int, str | None]]) -> None:
    """As a dictionary keeps the last; None takes back what was there, and may come back later."""
    rows: list[Row] = []
    expected: dict[str, str] = {}
    replaced = 0
    for place, (number, label) in enumerate(drawn):
        identity = str(number)
        replaced += expected.pop(identity, None) is not None
        if label is None:
            rows.append(Row(f"row {place}", None, identity))
        else:
            rows.append(row(place, id=number, label=label))
            expected[identity] = label
    found = gather(*rows)
    assert [(one.id, one.expected) for one in found.examples] == list(expected.items())
    assert (found.problems, found.replaced) == ([], replaced)


def test_without_an_id_the_same_question_is_the_same_row() -> None:
    """Two labels of one text cannot both be right: the later is, and the text is on one side of the split."""
    found = gather(row(1, text="a day", label="bad"), row(2), row(3, text="a day"))
    assert [(one.place, one.id, one.expected) for one in found.examples] == [
        ("row 2", content_id("day 2"), "good"),
        ("row 3", content_id("a day"), "good"),
    ]
    assert found.replaced == 1


def test_what_was_wrong_is_mended_by_a_later_row_of_the_id() -> None:
    """Nobody can change a record of a topic: who labelled it wrong sends it again, or takes it back."""
    bad = [row(number, id=identity, label=None) for number, identity in enumerate("abc", 1)]
    found = gather(*bad, row(4, id="a"), Row("row 5", None, "b"), row(6, id="d"), row(7, id="d", label=None))
    assert [one.id for one in found.examples] == ["a", "d"]
    assert found.problems == [(Kind.NO_LABEL, "row 3", ""), (Kind.NO_LABEL, "row 7", "")]
    assert found.replaced == 2


def test_names_are_of_the_column_that_has_the_labels() -> None:
    """Of CoNLL the tags of entities are learned, and not the parts of speech that stand before them."""
    names = {"pos_tags": ["NOUN", "VERB"], "ner_tags": ["O", "B-PER"]}
    columns = {"tokens": ["Anna", "lives"], "pos_tags": [0, 1], "ner_tags": [1, 0]}
    rows = Rows("rows", [Row("row 1", {}), Row("row 2", columns)], names)
    found = labelled_set._gather(rows, Reader(TaskName.TOKEN_CLASSIFICATION, names=names))
    assert found.names == ["O", "B-PER"]
    assert labelled_set.label_names(TaskName.TOKEN_CLASSIFICATION, found.examples, found.names) == ["O", "B-PER"]


KEPT: list[tuple[TaskName, dict[str, Any]]] = [
    (TASK, {"text": "grün\u2028 ", "label": "0", "id": 5}),
    (TASK, {"text": "a day", "text_pair": "a night", "label": "same"}),
    (TaskName.TOKEN_CLASSIFICATION, {"tokens": ["Anna", "lives"], "tags": ["B-PER", "O"]}),
    (TaskName.TOKEN_CLASSIFICATION, {"text": "Anna lives.", "label": []}),
    (TaskName.QUESTION_ANSWERING, {"question": "who?", "context": "Anna", "answer": "Anna"}),
    (TaskName.QUESTION_ANSWERING, {"question": "who?", "context": "Anna", "answers": []}),
    (TaskName.SUMMARIZATION, {"document": "a long\nday", "summary": " a day"}),
    (TaskName.TRANSLATION, {"source": "ein Tag", "target": "a day"}),
]


@pytest.mark.parametrize(("task", "columns"), KEPT)
def test_a_run_that_goes_on_has_the_same_rows(task: TaskName, columns: dict[str, Any], tmp_path: Path) -> None:
    """What is kept of them is all that there is to them, and is read by the contract's own form."""
    found = Reader(task).example(Row("topic-0-7", columns))
    assert isinstance(found, Example)
    labelled_set.save([found], tmp_path / "rows")
    assert labelled_set.load(task, tmp_path / "rows") == [found]
    kept = json.loads((tmp_path / "rows").read_text(encoding="ascii"))
    assert kept.pop("place") == "topic-0-7"
    assert kept == labelled_set.as_row(found)


def test_a_fingerprint_is_of_the_rows_and_not_of_their_order() -> None:
    """Another label, id or text is another fingerprint."""
    rows = [Example("row 1", identity, "a day", "good") for identity in "ab"]
    known = labelled_set.fingerprint(rows)
    assert labelled_set.fingerprint(reversed(rows)) == known
    for changed in ({"id": "c"}, {"inputs": "a night"}, {"expected": "bad"}):
        assert labelled_set.fingerprint([rows[0], rows[1]._replace(**changed)]) != known
    assert labelled_set.fingerprint([rows[0], rows[1]._replace(place="row 9")]) == known


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["2", "10", "1"], ["1", "2", "10"]),
        (["good", "bad"], ["bad", "good"]),
        (["b", "10", "9"], ["9", "10", "b"]),
        (["I-A", "O", "B-A"], ["O", "B-A", "I-A"]),
    ],
)
def test_labels_have_an_order(labels: list[str], expected: list[str]) -> None:
    """What is no entity first, numbers by their values, then names: the same whatever the order of the rows."""
    examples = [Example("row 1", "x", "a day", label) for label in labels]
    assert labelled_set.label_names(TASK, examples, ()) == expected
    assert labelled_set.label_names(TASK, examples, ("y", "z")) == ["y", "z"]
    assert labelled_set.label_names(TaskName.SUMMARIZATION, examples, ()) == []
