"""A labelled text, as it stands on a line of a file or in a record of ``nlp.<task>.labels``.

``inputs`` is what a request of the task has; ``label`` is said in the words of the task's answers.
"""

from typing import Annotated, Final, Self

from pydantic import Discriminator, Field, Tag, model_validator

from nlp_schemas.request import (
    MAX_ID_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    Closed,
    NonEmptyText,
    ShortText,
    TextPair,
)
from nlp_schemas.task import DEFAULT_PREFIX, TaskName
from nlp_schemas.understanding import QuestionAnsweringInputs


class Labelled(Closed):
    """What every labelled text has; a task adds ``inputs`` and ``label``."""

    id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_ID_CHARACTERS,
            description="Of the text: a later label with the same id takes the place of an earlier one.",
        ),
    ] = None


class NonEmptyPair(TextPair):
    """Two texts, neither of them empty."""

    text: NonEmptyText
    text_pair: NonEmptyText


_ONE_TEXT: Final = "one text"
_PAIR: Final = "text pair"


def _text_or_pair(inputs: object) -> str:
    return _PAIR if isinstance(inputs, (dict, TextPair)) else _ONE_TEXT


class LabelledText(Labelled):
    """A text, or a pair of texts, and the label that it should get."""

    inputs: Annotated[
        Annotated[NonEmptyText, Tag(_ONE_TEXT)] | Annotated[NonEmptyPair, Tag(_PAIR)], Discriminator(_text_or_pair)
    ]
    label: ShortText


class Place(Closed):
    """From ``start`` to before ``end``, in code points of the text."""

    start: Annotated[int, Field(ge=0, le=MAX_TEXT_CHARACTERS)]
    end: Annotated[int, Field(ge=1, le=MAX_TEXT_CHARACTERS)]

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start is {self.start} and end {self.end}: it must have a character")
        return self


class LabelledWord(Place):
    """A word and its tag: a part of speech, or of an entity with B- or I- before it."""

    entity: ShortText


class LabelledEntity(Place):
    """An entity of one or more words."""

    entity_group: ShortText


_WORDS: Final = "words"
_ENTITIES: Final = "entities"


def _words_or_entities(label: object) -> str:
    first = label[0] if isinstance(label, list) and label else None
    return _WORDS if isinstance(first, LabelledWord) or (isinstance(first, dict) and "entity" in first) else _ENTITIES


class LabelledWords(Labelled):
    """A text, and all of its words with their tags, or its entities alone."""

    inputs: NonEmptyText
    label: Annotated[
        Annotated[list[LabelledWord], Tag(_WORDS)] | Annotated[list[LabelledEntity], Tag(_ENTITIES)],
        Discriminator(_words_or_entities),
    ]

    @model_validator(mode="after")
    def _check_places(self) -> Self:
        end = 0
        for place in sorted(self.label, key=lambda place: place.start):
            if place.start < end:
                raise ValueError(f"label: two places overlap at {place.start}")
            end = place.end
        if end > len(self.inputs):
            raise ValueError(f"label: a place ends at {end}, and the text at {len(self.inputs)}")
        return self


class LabelledSpan(Closed):
    """An answer, and where in the context it begins, in code points."""

    answer: NonEmptyText
    start: Annotated[int, Field(ge=0, le=MAX_TEXT_CHARACTERS)]


class LabelledQuestion(Labelled):
    """A question about a text, and the answers that are right; none where the text has none."""

    inputs: QuestionAnsweringInputs
    label: list[LabelledSpan]

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        for span in self.label:
            found = self.inputs.context[span.start : span.start + len(span.answer)]
            if found != span.answer:
                raise ValueError(f"label: at {span.start} the context has {found!r}, and not {span.answer!r}")
        return self


class LabelledWriting(Labelled):
    """A text, and what should be written of it: its summary, or its translation."""

    inputs: NonEmptyText
    label: NonEmptyText


#: The model of a labelled text of each task that can be trained.
LABELLED: Final[dict[str, type[Labelled]]] = {
    TaskName.TEXT_CLASSIFICATION: LabelledText,
    TaskName.TOKEN_CLASSIFICATION: LabelledWords,
    TaskName.QUESTION_ANSWERING: LabelledQuestion,
    TaskName.SUMMARIZATION: LabelledWriting,
    TaskName.TRANSLATION: LabelledWriting,
}


def labels_topic(task: str, prefix: str = DEFAULT_PREFIX) -> str:
    return f"{prefix}.{task}.labels"
