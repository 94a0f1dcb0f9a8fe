"""The forms that data sets give labels in: numbers with names, tags of tokens, SQuAD's answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from nlp_worker.training.problems import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What SQuAD calls an answer's text, and where it starts.
SQUAD: Final = frozenset({"text", "answer_start"})

#: A label's number, as CSV writes it.
NUMBER: Final = re.compile(r"-1|[0-9]{1,9}")

#: The label of a row without one in data sets whose labels are numbers (GLUE's test sets).
UNLABELLED: Final = -1


class WrongError(Exception):
    """A row cannot be used."""

    def __init__(self, kind: Kind, told: str = "") -> None:
        super().__init__(told)
        self.kind = kind
        self.told = told


def tagged(tokens: Sequence[str], tags: Sequence[Any]) -> list[dict[str, Any]]:
    """Return words with their tags, and where they stand in the text that they make with a space between them."""
    if len(tokens) != len(tags):
        raise WrongError(Kind.INVALID, f"{len(tokens)} tokens and {len(tags)} tags")
    words, start = [], 0
    for token, tag in zip(tokens, tags, strict=True):
        if tag is None:
            raise WrongError(Kind.NO_LABEL, "of a token")
        words.append({"entity": tag, "start": start, "end": start + len(token)})
        start += len(token) + 1
    return words


def named(label: Any, names: Sequence[str]) -> Any:
    """Return the name of a label that may be a number, which CSV writes as a text."""
    if isinstance(label, str) and names and label not in names and NUMBER.fullmatch(label):
        label = int(label)
    if isinstance(label, str) and label.strip() and label != label.strip():
        raise WrongError(Kind.INVALID, f"the label {label!r} begins or ends with a space")
    if label is None or label == UNLABELLED:
        return None
    if isinstance(label, str):
        return label
    if isinstance(label, bool) or not isinstance(label, int):
        raise WrongError(Kind.INVALID, f"a label is a text or an integer, and not a {type(label).__name__}")
    if not names:
        return str(label)
    if not 0 <= label < len(names):
        raise WrongError(Kind.UNKNOWN_LABEL, f"{label} has no name: those from 0 to {len(names) - 1} have one")
    return names[label]


def tokens_of(tokens: Any) -> list[str]:
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise WrongError(Kind.INVALID, "tokens is not a list of texts")
    if not tokens:
        raise WrongError(Kind.EMPTY)
    if not all(token.strip() for token in tokens):
        raise WrongError(Kind.EMPTY, "a token")
    return tokens


def only(value: Any, names: Sequence[str]) -> Any:
    """Return what an object has of these; Parquet gives each object of a list the fields of all."""
    return {name: value[name] for name in names if value.get(name) is not None} if isinstance(value, dict) else value


def spans(label: Any, start: Any, context: Any) -> Any:
    """Return answers as nlp_schemas.labels has them: from SQuAD's two lists, from columns, or as they are."""
    if isinstance(label, dict) and label.keys() >= SQUAD:
        texts, starts = label["text"], label["answer_start"]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise WrongError(Kind.INVALID, "text and answer_start are not two lists of one length")
        return [{"answer": text, "start": place} for text, place in zip(texts, starts, strict=True)]
    if isinstance(label, str) and label:
        if isinstance(start, str) and NUMBER.fullmatch(start):
            start = int(start)
        if start is None and isinstance(context, str):
            start = context.find(label)
            if start < 0:
                raise WrongError(Kind.INVALID, "the context has no such answer")
        return [{"answer": label, "start": start}]
    return [_span(span) for span in label] if isinstance(label, list) else label


def _span(span: Any) -> Any:
    if isinstance(span, dict) and span.keys() >= SQUAD:  # as SQuAD's own files have it
        return {"answer": span["text"], "start": span["answer_start"]}
    return only(span, ("answer", "start"))
