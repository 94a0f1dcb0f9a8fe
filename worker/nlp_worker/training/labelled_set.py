"""What is trained on and what is held out: rows read, the later of an id kept, split by a hash, and looked over."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_schemas import TaskName
from nlp_worker.training import sources
from nlp_worker.training.examples import Example, Reader, Row, Words, content_id
from nlp_worker.training.label_topic import SUFFIX, read_topic
from nlp_worker.training.problems import DataError, Kind, Problem
from nlp_worker.training.sources import TRAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.settings import Settings
    from nlp_worker.training.sources import Rows

#: Bits of a hash that decide where a row goes.
HASH_BITS: Final = 64

#: The tag of a word that is of no entity.
OUTSIDE: Final = "O"


class LabelledSet(NamedTuple):
    """Examples of one source."""

    source: str
    examples: list[Example]
    problems: list[Problem]
    replaced: int
    """Rows that gave way to a later one with the same id, or were taken back."""
    names: Sequence[str]
    """Of labels that are numbers, in their order."""


def read(
    settings: Settings,
    source: str,
    task: str,
    *,
    columns: Mapping[str, str],
    labels: Sequence[str],
    split: str = TRAIN,
) -> LabelledSet | None:
    """Read a labelled set.

    Args:
        settings: Where the broker is.
        source: A file; a topic whose name ends with ``.labels``; a folder or a data set of the hub.
        task: Of its rows.
        columns: As of `Reader`.
        labels: Names of labels that are numbers.
        split: Of a data set that has splits.

    Returns:
        None where a data set has no such split.

    Raises:
        DataError: it cannot be read at all.
        BrokerError: the broker cannot be reached.
        TopicError: the topic is missing or cannot be read.
    """
    rows: Rows | None
    if source.startswith(f"{settings.topic_prefix}.") and has_splits(source):
        raise DataError(f"{source} looks like a topic, and one of labels has a name that ends with {SUFFIX}")
    if has_splits(source):
        rows = sources.read_dataset(source, split)
    else:
        rows = sources.read_file(source) if sources.is_file(source) else read_topic(settings, source)
    return None if rows is None else _gather(rows, Reader(task, columns, {"": labels} if labels else rows.names))


def _gather(rows: Rows, reader: Reader) -> LabelledSet:
    kept: dict[str, Example] = {}
    problems: dict[str, Problem] = {}
    replaced = 0
    names: Sequence[str] | None = None
    for row in rows.rows:
        found = reader.example(row) if isinstance(row, Row) and row.columns is not None else row
        if isinstance(found, Problem):
            problems[_id_or_place(row)] = found
            continue
        # What was wrong with an earlier one of the id is mended: nobody can change a record of a topic.
        gone = [kept.pop(found.id, None), problems.pop(found.id, None)]
        replaced += len(gone) - gone.count(None)
        # Where the earlier stood, no longer: the order is that of the labels that count.
        if isinstance(found, Example):
            kept[found.id] = found
            if names is None and isinstance(row, Row) and row.columns is not None:
                names = reader.names_in(row.columns)
    return LabelledSet(rows.name, list(kept.values()), list(problems.values()), replaced, names or ())


def _id_or_place(row: Row | Problem) -> str:
    given = row.columns.get("id") if isinstance(row, Row) and row.columns else None
    return str(given) if given not in (None, "") else row.place


def is_held_out(example: Example, share: float) -> bool:
    """Whether a row is validated on and not trained on; the same in every run, wherever the row stands.

    What a share holds out a larger one does too.
    """
    digest = hashlib.sha256(example.id.encode()).digest()
    return bool(int.from_bytes(digest[: HASH_BITS // 8]) < share * 2**HASH_BITS)


def labels_of(example: Example) -> Sequence[str]:
    """Return the labels that a row has; none where it is a text that is to be written."""
    if isinstance(example.expected, Words):
        return example.expected.tags
    return [example.expected] if isinstance(example.expected, str) else ()


def label_names(
    task: str, examples: Iterable[Example], given: Sequence[str], *, names: Sequence[str] = (), base: Sequence[str] = ()
) -> list[str]:
    """Return the labels that a model of the task learns, in the order that their numbers have, if it learns labels.

    Those that are given; else those of a base that knows any of the rows' own, for what it does not know beside these
    is a misspelt one; else the names of the data set; else what the rows have.

    Args:
        task: Its name.
        examples: That are trained on.
        given: By whoever trains.
        names: Of labels that are numbers, of the data set.
        base: That the base gives.
    """
    if task not in {TaskName.TEXT_CLASSIFICATION, TaskName.TOKEN_CLASSIFICATION}:
        return []
    seen = {label for example in examples for label in labels_of(example)}
    own = list(base) if seen.intersection(base) - {OUTSIDE} else []
    return list(given) or own or list(names) or sorted(seen, key=_in_order)


def check_classes(examples: Iterable[Example], names: Sequence[str]) -> None:
    """Look whether there is something to learn.

    Args:
        examples: That are trained on.
        names: Of the labels; none where there are none.

    Raises:
        DataError: all have one label.
    """
    if names and len(seen := {label for example in examples for label in labels_of(example)}) == 1:
        raise DataError(f"every row has the label {seen.pop()!r}: with one class only there is nothing to learn")


def _in_order(name: str) -> tuple[bool, float, str]:
    """Order what is no entity first, then numbers by their values, then names."""
    return name != OUTSIDE, float(name) if name.isdecimal() else math.inf, name


def unknown_labels(examples: Iterable[Example], names: Sequence[str]) -> list[Problem]:
    """Return the rows that have a label that is none of these."""
    known, there_is = frozenset(names), ", ".join(names)
    return [
        Problem(Kind.UNKNOWN_LABEL, example.place, f"{unknown[0]!r} is none of {there_is}")
        for example in examples
        if (unknown := [label for label in labels_of(example) if label not in known])
    ]


def leaked(training: Iterable[Example], validation: Iterable[Example]) -> list[Problem]:
    """Return the rows to be trained on that ask what a row of the validation asks."""
    asked = {content_id(example.inputs) for example in validation}
    return [Problem(Kind.LEAKED, example.place) for example in training if content_id(example.inputs) in asked]


def without(examples: Iterable[Example], problems: Iterable[Problem]) -> list[Example]:
    """Return the examples that no problem is about."""
    bad = {problem.place for problem in problems}
    return [example for example in examples if example.place not in bad]


def as_row(example: Example) -> dict[str, Any]:
    """Return an example as nlp_schemas.labels has it."""
    expected = example.expected
    if isinstance(expected, Words):
        words = zip(expected.places, expected.tags, strict=True)
        label: Any = [{"entity": tag, "start": start, "end": end} for (start, end), tag in words]
    elif isinstance(expected, str):
        label = expected
    else:
        label = [{"answer": answer.text, "start": answer.start} for answer in expected]
    return {"id": example.id, "inputs": example.inputs, "label": label}


def fingerprint(examples: Iterable[Example]) -> str:
    """Return a hash of the rows that is the same in whatever order they stand."""
    digest = hashlib.sha256()
    for line in sorted(json.dumps(as_row(example), sort_keys=True) for example in examples):
        digest.update(line.encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def save(examples: Iterable[Example], file: Path) -> None:
    """Keep the rows of a run, which goes on with these when its source has others."""
    with file.open("w", encoding="utf-8") as target:
        for example in examples:
            target.write(json.dumps({"place": example.place, **as_row(example)}) + "\n")


def load(task: str, file: Path) -> list[Example]:
    """Return the rows that `save` kept."""
    reader = Reader(task)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = [reader.example(Row(row.pop("place"), row)) for row in rows]
    return [example for example in found if isinstance(example, Example)]


def has_splits(source: str) -> bool:
    """Whether a source is a data set, which may have a split of its own to validate on."""
    return not sources.is_file(source) and not source.endswith(SUFFIX)
