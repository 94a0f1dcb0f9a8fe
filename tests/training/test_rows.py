"""A row's columns become what a request would ask and what it should be answered, whoever named the columns."""

from __future__ import annotations

from typing import Any

import pytest

from nlp_schemas import TaskName
from nlp_worker.training.examples import Answer, Example, Reader, Row, Words, content_id
from nlp_worker.training.problems import DataError, Kind, Problem

TEXT, TOKENS, QUESTION, SUMMARY, TRANSLATION = (
    TaskName.TEXT_CLASSIFICATION,
    TaskName.TOKEN_CLASSIFICATION,
    TaskName.QUESTION_ANSWERING,
    TaskName.SUMMARIZATION,
    TaskName.TRANSLATION,
)

PAIR = {"text": "a day", "text_pair": "a night"}
ASKED = {"question": "who?", "context": "it was Anna"}
ANNA = (Answer("Anna", 7),)
TAGGED = Words(((0, 4), (5, 10)), ("B-PER", "O"))
WORDS = [{"entity": "B-PER", "start": 0, "end": 4}, {"entity": "O", "start": 5, "end": 10}]
ENTITY = {"entity_group": "PER", "start": 0, "end": 4}


def read(task: str, row: dict[str, Any], **options: Any) -> Example | Problem:
    return Reader(task, **options).example(Row("row 7", row))


@pytest.mark.parametrize(
    ("task", "row", "inputs", "expected"),
    [
        (TEXT, {"inputs": "a day", "label": "good"}, "a day", "good"),
        (TEXT, {"inputs": PAIR, "label": "good"}, PAIR, "good"),
        (TEXT, {"sentence": "a day", "label": 1, "idx": 3}, "a day", "1"),
        (TEXT, {"sentence1": "a day", "sentence2": "a night", "label": "same", "idx": 0}, PAIR, "same"),
        (TEXT, {"premise": "a day", "hypothesis": "a night", "label": "same"}, PAIR, "same"),
        (TEXT, {"question1": "a day", "question2": "a night", "label": "same"}, PAIR, "same"),
        (TEXT, {"text": " a day\n", "text_pair": None, "label": "not good"}, " a day\n", "not good"),
        (TOKENS, {"tokens": ["Anna", "lives"], "ner_tags": ["B-PER", "O"]}, "Anna lives", TAGGED),
        (TOKENS, {"words": ["Anna", "lives"], "pos_tags": ["B-PER", "O"]}, "Anna lives", TAGGED),
        (TOKENS, {"inputs": "Anna lives", "label": WORDS[::-1]}, "Anna lives", TAGGED),
        (TOKENS, {"text": "Anna lives", "entities": [ENTITY | {"score": 0.9, "word": "anna"}]}, "Anna lives", TAGGED),
        (TOKENS, {"text": "Anna lives", "label": [ENTITY | {"entity": None}]}, "Anna lives", TAGGED),
        (TOKENS, {"text": "Anna lives", "label": []}, "Anna lives", Words(TAGGED.places, ("O", "O"))),
        (QUESTION, {**ASKED, "answers": {"text": ["Anna"], "answer_start": [7]}, "title": "x"}, ASKED, ANNA),
        (QUESTION, {**ASKED, "answers": [{"text": "Anna", "answer_start": 7}]}, ASKED, ANNA),
        (QUESTION, {**ASKED, "answers": {"text": [], "answer_start": []}}, ASKED, ()),
        (QUESTION, {"inputs": ASKED, "label": [{"answer": "Anna", "start": 7, "score": 0.5}]}, ASKED, ANNA),
        (QUESTION, {**ASKED, "answer": "Anna"}, ASKED, ANNA),
        (QUESTION, {**ASKED, "answer": "Anna", "answer_start": "7"}, ASKED, ANNA),
        (SUMMARY, {"article": "a long day", "highlights": "a day"}, "a long day", "a day"),
        (SUMMARY, {"document": "a long day", "summary": "a day"}, "a long day", "a day"),
        (SUMMARY, {"dialogue": "a long day", "summary": "a day"}, "a long day", "a day"),
        (TRANSLATION, {"source": "ein Tag", "target": "a day"}, "ein Tag", "a day"),
        (TRANSLATION, {"text": "ein Tag", "translation": "a day"}, "ein Tag", "a day"),
    ],
)
def test_columns_are_read_as_data_sets_name_them(task: str, row: dict[str, Any], inputs: Any, expected: Any) -> None:
    """GLUE, CoNLL, SQuAD, CNN/DailyMail, XSum, OPUS; the worker's own answers; and the contract's own form."""
    assert read(task, row) == Example("row 7", content_id(inputs), inputs, expected)


def test_columns_can_be_named() -> None:
    """Also what stands in a column, unless a column has just this name."""
    row = {"translation": {"de": "ein Tag", "en": "a day"}, "translation.en": "the day"}
    columns = {"text": "translation.de", "label": "translation.en"}
    found = read(TRANSLATION, row, columns=columns)
    assert (found.inputs, found.expected) == ("ein Tag", "the day")  # type: ignore[union-attr]  # no problem


def test_a_column_that_the_task_has_not_is_refused() -> None:
    """A typo would train on another column in silence."""
    with pytest.raises(DataError, match="--column txt=review: text-classification has text, text_pair, label"):
        Reader(TEXT, {"txt": "review"})


@pytest.mark.parametrize(
    ("label", "expected"), [(0, "bad"), (1, "good"), ("1", "good"), ("good", "good"), (-1, None), ("-1", None)]
)
def test_numbers_have_the_names_that_are_given(label: Any, expected: str | None) -> None:
    """As CSV writes them too; -1 is how GLUE says that there is none."""
    found = read(TEXT, {"text": "a day", "label": label}, names={"label": ["bad", "good"]})
    assert getattr(found, "expected", None) == expected
    assert getattr(found, "kind", None) == (None if expected else Kind.NO_LABEL)


def test_a_name_that_is_a_number_is_not_looked_up() -> None:
    """Stars from 1 to 5 are what they say, in a file of texts."""
    found = read(TEXT, {"text": "a day", "label": "1"}, names={"": ["1", "2"]})
    assert found.expected == "1"  # type: ignore[union-attr]  # no problem


def test_names_are_of_the_column_that_is_read() -> None:
    """CoNLL has two columns of tags, each with names of its own."""
    row = {"tokens": ["Anna", "lives"], "pos_tags": [0, 1], "ner_tags": [1, 0]}
    found = read(TOKENS, row, names={"pos_tags": ["NOUN", "VERB"], "ner_tags": ["O", "B-PER"]})
    assert found.expected == TAGGED  # type: ignore[union-attr]  # no problem


@pytest.mark.parametrize(("given", "expected"), [("x", "x"), (5, "5"), ("", None), (None, None)])
def test_an_id_is_a_text_or_a_number(given: Any, expected: str | None) -> None:
    """And where there is none it is made of what is asked, whatever the order of its columns."""
    found = read(TEXT, {"label": "same", "sentence2": "a night", "sentence1": "a day", "id": given})
    assert found.id == (expected or content_id(PAIR))  # type: ignore[union-attr]  # no problem


WRONG: list[tuple[str, dict[str, Any], Kind, str]] = [
    (TEXT, {"text": "a day"}, Kind.NO_LABEL, "there is 'text', and no label"),
    (TEXT, {"text": "a day", "label": None}, Kind.NO_LABEL, ""),
    (TEXT, {"text": "a day", "label": ""}, Kind.NO_LABEL, ""),
    (TEXT, {"text": "a day", "label": "  "}, Kind.NO_LABEL, ""),
    (TEXT, {"text": "a day", "label": " good"}, Kind.INVALID, "' good' begins or ends with a space"),
    (TEXT, {"text": "a day", "label": True}, Kind.INVALID, "a text or an integer, and not a bool"),
    (TEXT, {"text": "a day", "label": 1.0}, Kind.INVALID, "a text or an integer, and not a float"),
    (TEXT, {"text": "a day", "label": ["good"]}, Kind.INVALID, "a text or an integer, and not a list"),
    (TEXT, {"text": "a day", "label": "x" * 1_001}, Kind.INVALID, "at most 1000 characters"),
    (TEXT, {"text": "a day", "label": "\udc00"}, Kind.INVALID, "label: "),
    (TEXT, {"text": "\ud800", "label": "good"}, Kind.INVALID, "inputs: "),
    (TEXT, {"text": float("nan"), "label": "good"}, Kind.INVALID, "inputs: Input should be a valid string"),
    (TEXT, {"text": "x" * 100_001, "label": "good"}, Kind.INVALID, "at most 100000 characters"),
    (TEXT, {"text": " \n", "label": "good"}, Kind.EMPTY, ""),
    (TEXT, {"text": None, "label": "good"}, Kind.EMPTY, ""),
    (TEXT, {"text": "a day", "text_pair": "", "label": "good"}, Kind.EMPTY, ""),
    (TEXT, {"sentence1": None, "sentence2": "a night", "label": "good"}, Kind.EMPTY, ""),
    (TEXT, {"review": "a day", "label": "good"}, Kind.COLUMNS, "there is 'review', 'label', and no text (or sentence,"),
    (TEXT, {"review": "a day", "stars": 1}, Kind.COLUMNS, "and no label: say which is which with --column"),
    (TEXT, {}, Kind.COLUMNS, "there is none, and no text"),
    (TEXT, {"text": "a day", "sentence": "a", "label": "x"}, Kind.COLUMNS, "'text' and 'sentence' could both be the"),
    *[
        (TEXT, {"text": "a day", "label": "good", "id": given}, Kind.INVALID, "id is neither a text nor an integer")
        for given in ([1], {"a": 1}, True, 1.5)
    ],
    (TEXT, {"text": "a day", "label": "good", "id": "x" * 201}, Kind.INVALID, "id: String should have at most 200"),
    (TOKENS, {"tokens": ["a", "b"], "tags": ["O"]}, Kind.INVALID, "2 tokens and 1 tags"),
    (TOKENS, {"tokens": "a b", "tags": ["O"]}, Kind.INVALID, "tokens is not a list of texts"),
    (TOKENS, {"tokens": ["a", 1], "tags": ["O", "O"]}, Kind.INVALID, "tokens is not a list of texts"),
    (TOKENS, {"tokens": [], "tags": []}, Kind.EMPTY, ""),
    (TOKENS, {"tokens": ["a", " "], "tags": ["O", "O"]}, Kind.EMPTY, "a token"),
    (TOKENS, {"tokens": ["a"], "tags": [None]}, Kind.NO_LABEL, "of a token"),
    (TOKENS, {"tokens": ["a"], "tags": [True]}, Kind.INVALID, "not a bool"),
    (TOKENS, {"tokens": ["a"], "tags": "O"}, Kind.INVALID, "should be a valid list"),
    (TOKENS, {"text": "Anna Smith", "label": [ENTITY, ENTITY]}, Kind.INVALID, "two places overlap at 0"),
    (TOKENS, {"text": "Anna Smith", "label": [ENTITY | {"end": 3}]}, Kind.INVALID, "from 0 to 3 are no whole words"),
    (TOKENS, {"text": "Anna Smith", "label": [ENTITY | {"end": 11}]}, Kind.INVALID, "ends at 11, and the text at 10"),
    (TOKENS, {"text": "Anna Smith", "label": [ENTITY | {"end": 0}]}, Kind.INVALID, "end"),
    (TOKENS, {"text": "Anna Smith", "label": [ENTITY, WORDS[1]]}, Kind.INVALID, "label"),
    (QUESTION, {**ASKED, "answers": {"text": ["Anna"], "answer_start": [8]}}, Kind.INVALID, "at 8 the context has"),
    (QUESTION, {**ASKED, "answers": {"text": ["Anna"], "answer_start": [7, 8]}}, Kind.INVALID, "two lists of one"),
    (QUESTION, {**ASKED, "answers": {"text": "Anna", "answer_start": 7}}, Kind.INVALID, "two lists of one length"),
    (QUESTION, {**ASKED, "answers": {"text": None, "answer_start": None}}, Kind.INVALID, "two lists of one length"),
    (QUESTION, {**ASKED, "answers": ["Anna"]}, Kind.INVALID, "label.0"),
    (QUESTION, {**ASKED, "answers": 5}, Kind.INVALID, "should be a valid list"),
    (QUESTION, {**ASKED, "answer": "Bob"}, Kind.INVALID, "the context has no such answer"),
    (QUESTION, {**ASKED, "answer": "Anna", "answer_start": "²"}, Kind.INVALID, "should be a valid integer"),
    (QUESTION, {**ASKED, "context": " ", "answers": []}, Kind.EMPTY, ""),
    (QUESTION, {"question": "who?", "answers": []}, Kind.COLUMNS, "and no context: say"),
    (SUMMARY, {"document": "a long day", "summary": " "}, Kind.NO_LABEL, ""),
    (TRANSLATION, {"translation": {"de": "Tag", "en": "day"}}, Kind.COLUMNS, "and no text (or source): say which is"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "kind", "told"), WRONG)
def test_what_is_wrong_is_told_of_the_row(task: str, row: dict[str, Any], kind: Kind, told: str) -> None:
    """Of which kind it is, and what would be right; never an exception."""
    found = read(task, row)
    assert isinstance(found, Problem), found
    assert (found.kind, found.place) == (kind, "row 7")
    assert told in found.told
    assert bool(told) == bool(found.told)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (2, "2 has no name: those from 0 to 1 have one"),
        ("2", "2 has no name: those from 0 to 1 have one"),
        (-2, "-2 has no name: those from 0 to 1 have one"),
    ],
)
def test_a_number_without_a_name_is_an_unknown_label(label: Any, told: str) -> None:
    """And not the last one, as Python would count."""
    assert read(TEXT, {"text": "a day", "label": label}, names={"": ["bad", "good"]}) == (
        Kind.UNKNOWN_LABEL,
        "row 7",
        told,
    )


def test_a_digit_that_is_no_number_is_a_label() -> None:
    """int() refuses ² although it is a digit: looked up it would end the command."""
    found = read(TEXT, {"text": "a day", "label": "²"}, names={"": ["bad", "good"]})
    assert found.expected == "²"  # type: ignore[union-attr]  # no problem
