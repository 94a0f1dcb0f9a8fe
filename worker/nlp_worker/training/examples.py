"""From a row's columns to an example: what a request would ask, and what it should be answered."""

from __future__ import annotations

import hashlib
import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from nlp_schemas import TaskName
from nlp_schemas.labels import LABELLED, Labelled, LabelledQuestion, LabelledWord, LabelledWords
from nlp_worker.training.label_forms import WrongError, named, only, spans, tagged, tokens_of
from nlp_worker.training.problems import DataError, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The columns of each task, with the names that data sets give them (GLUE, CoNLL, SQuAD, CNN/DailyMail, XSum, OPUS).
#: `inputs` and `label` as nlp_schemas.labels has them are read of every task.
COLUMNS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    TaskName.TEXT_CLASSIFICATION: {
        "text": ("text", "sentence", "sentence1", "premise", "question1"),
        "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
        "label": ("label",),
    },
    TaskName.TOKEN_CLASSIFICATION: {
        "text": ("text",),
        "tokens": ("tokens", "words"),
        "label": ("label", "entities", "ner_tags", "pos_tags", "tags"),
    },
    TaskName.QUESTION_ANSWERING: {
        "question": ("question",),
        "context": ("context",),
        "label": ("label", "answers", "answer"),
        "answer_start": ("answer_start",),
    },
    TaskName.SUMMARIZATION: {
        "text": ("text", "article", "document", "dialogue"),
        "label": ("label", "summary", "highlights"),
    },
    TaskName.TRANSLATION: {
        "text": ("text", "source"),
        "label": ("label", "target", "translation"),
    },
}

#: The tasks that can be trained.
TRAINABLE: Final = tuple(COLUMNS)

NO_NAMES: Final[Mapping[str, Any]] = MappingProxyType({})

#: Columns that a row may do without.
OPTIONAL: Final = frozenset({"text_pair", "tokens", "answer_start"})

#: Hexadecimal digits of a hash: two of a billion texts share one with a probability of 1 in 10^12.
ID_LENGTH: Final = 32

#: Words of a text whose entities alone are given: runs of letters and digits, and each other character by itself.
WORD: Final = re.compile(r"\w+|[^\w\s]")


class Words(NamedTuple):
    """What a text's words should be tagged with."""

    places: tuple[tuple[int, int], ...]
    """Start and end of each word, in code points of the text."""
    tags: tuple[str, ...]


class Answer(NamedTuple):
    """What a question may be answered."""

    text: str
    start: int
    """In code points of the context."""


class Example(NamedTuple):
    """A row that can be used."""

    place: str
    """Which row: its number in a file, or its record."""
    id: str
    inputs: Any
    """As a request has them, in JSON."""
    expected: Any
    """A label; Words; the Answers that are right, none where there is none; or a text."""


class Row(NamedTuple):
    """A row as it was read."""

    place: str
    columns: Mapping[str, Any] | None
    """None takes back what has the id."""
    id: str = ""
    """Where its columns have none, and its contents are not what tells it from others."""


class Reader:
    """Makes examples of a task's rows.

    Args:
        task: Its name.
        columns: The names of columns, by the task's own (COLUMNS), where they are others than data sets have. A name
            with dots reaches into a column: ``translation.de``.
        names: By column, what labels that are numbers mean: the name of each. One for the empty name is of all.

    Raises:
        DataError: the task has no such column.
    """

    def __init__(
        self, task: str, columns: Mapping[str, str] = NO_NAMES, names: Mapping[str, Sequence[str]] = NO_NAMES
    ) -> None:
        if unknown := next((column for column in columns if column not in COLUMNS[task]), None):
            raise DataError(f"--column {unknown}={columns[unknown]}: {task} has {', '.join(COLUMNS[task])}")
        self._task = task
        self._names = names
        self._columns = {
            column: (columns[column],) if column in columns else known for column, known in COLUMNS[task].items()
        }

    def example(self, row: Row) -> Example | Problem:
        """Return the row as an example, or what is wrong with it."""
        try:
            found = self._canonical(row.columns or {})
            labelled = LABELLED[self._task].model_validate(found)
            expected = _expected(labelled)
        except WrongError as wrong:
            return Problem(wrong.kind, row.place, wrong.told)
        except ValidationError as error:
            return _problem(row.place, error)
        return Example(row.place, labelled.id or row.id or content_id(found["inputs"]), found["inputs"], expected)

    def _canonical(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row as nlp_schemas.labels has it."""
        values = {column: self._value(row, names) for column, names in self._columns.items()}
        inputs = row["inputs"] if row.get("inputs") is not None else self._inputs(values)
        if inputs is None:
            raise self._without_inputs(row)
        if row.get("inputs") is None:
            self._check_choice(row)
        if any(not text.strip() for text in _texts(inputs)):
            raise WrongError(Kind.EMPTY)
        label = self._label(values, self.names_in(row))
        if label is None or (isinstance(label, str) and not label.strip()):
            there_is = any(name in row for name in self._columns["label"])
            raise WrongError(Kind.NO_LABEL, "" if there_is else self._columns_told(row, ["label"]))
        found = {"inputs": inputs, "label": label}
        return found if row.get("id") in (None, "") else {**found, "id": _id(row["id"])}

    def _without_inputs(self, row: Mapping[str, Any]) -> WrongError:
        needed = [column for column in self._columns if column not in OPTIONAL]
        lacking = [column for column in needed if not any(name in row for name in self._columns[column])]
        return WrongError(Kind.COLUMNS, self._columns_told(row, lacking)) if lacking else WrongError(Kind.EMPTY)

    def _columns_told(self, row: Mapping[str, Any], needed: Sequence[str]) -> str:
        there = ", ".join(map(repr, row)) or "none"
        wanted = " and no ".join(_or(self._columns[name]) for name in needed)
        return f"there is {there}, and no {wanted}: say which is which with --column"

    def _check_choice(self, row: Mapping[str, Any]) -> None:
        for column in ("text", "text_pair"):
            given = [name for name in self._columns.get(column, ()) if row.get(name) is not None]
            if len(given) > 1:
                told = f"{given[0]!r} and {given[1]!r} could both be the {column}: choose with --column {column}=..."
                raise WrongError(Kind.COLUMNS, told)

    def _value(self, row: Mapping[str, Any], names: Sequence[str]) -> Any:
        for name in names:
            value: Any = row
            for part in [name] if name in row else name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                return value
        return None

    def names_in(self, row: Mapping[str, Any]) -> Sequence[str]:
        """Return the names of labels that are numbers, of the column that a row has its label in."""
        column = next((name for name in self._columns["label"] if row.get(name) is not None), "")
        return self._names.get("") or self._names.get(column) or ()

    def _inputs(self, values: Mapping[str, Any]) -> Any:
        if (tokens := values.get("tokens")) is not None:
            return " ".join(tokens_of(tokens))
        if self._task == TaskName.QUESTION_ANSWERING:
            question = {name: values[name] for name in ("question", "context") if values[name] is not None}
            return question if len(question) == 2 else None  # noqa: PLR2004 - both
        if values.get("text_pair") is not None and values["text"] is not None:
            return {"text": values["text"], "text_pair": values["text_pair"]}
        return values["text"]

    def _label(self, values: Mapping[str, Any], names: Sequence[str]) -> Any:
        label = values["label"]
        if self._task == TaskName.TEXT_CLASSIFICATION:
            return named(label, names)
        if self._task == TaskName.QUESTION_ANSWERING:
            return spans(label, values["answer_start"], values["context"])
        if self._task == TaskName.TOKEN_CLASSIFICATION and isinstance(label, list):
            if values["tokens"] is not None:
                return tagged(tokens_of(values["tokens"]), [named(tag, names) for tag in label])
            # What else an answer says of each does not matter: a corrected answer is a label.
            return [only(place, ("entity", "entity_group", "start", "end")) for place in label]
        return label


def _or(names: Sequence[str]) -> str:
    first, *others = names
    return f"{first} (or {', '.join(others)})" if others else first


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise WrongError(Kind.INVALID, "id is neither a text nor an integer")
    return str(value)


def content_id(inputs: Any) -> str:
    """Return an id for what is asked that is the same wherever and whenever it is asked."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:ID_LENGTH]


def _texts(inputs: Any) -> list[str]:
    values = inputs.values() if isinstance(inputs, dict) else [inputs]
    return [value for value in values if isinstance(value, str)]


def _expected(labelled: Labelled) -> Any:
    if isinstance(labelled, LabelledWords):
        return _words(labelled)
    if isinstance(labelled, LabelledQuestion):
        return tuple(Answer(span.answer, span.start) for span in labelled.label)
    label: str = labelled.label  # type: ignore[attr-defined]  # of the two others
    return label


def _words(labelled: LabelledWords) -> Words:
    given = sorted(labelled.label, key=lambda place: place.start)
    if words := [word for word in given if isinstance(word, LabelledWord)]:
        return Words(tuple((word.start, word.end) for word in words), tuple(word.entity for word in words))
    places = [match.span() for match in WORD.finditer(labelled.inputs)]
    tags = ["O"] * len(places)
    for entity in given:
        inside = [index for index, (start, end) in enumerate(places) if start < entity.end and entity.start < end]
        if not inside or places[inside[0]][0] != entity.start or places[inside[-1]][1] != entity.end:
            raise WrongError(Kind.INVALID, f"from {entity.start} to {entity.end} are no whole words")
        group = getattr(entity, "entity_group", "")
        tags[inside[0] : inside[-1] + 1] = [f"B-{group}", *[f"I-{group}"] * (len(inside) - 1)]
    return Words(tuple(places), tuple(tags))


def _problem(place: str, error: ValidationError) -> Problem:
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"] if " " not in str(part)]
    message = first["msg"].removeprefix("Value error, ")
    return Problem(Kind.INVALID, place, message if not where else f"{'.'.join(where)}: {message}")
