"""The tasks that read a text and say what stands in it, or belongs there: parameters, request and result of each.

Parameters are the call parameters of the ``transformers`` pipeline of the task's name, and outputs are what it returns
for one input.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from nlp_schemas.request import (
    MAX_ROWS,
    MAX_ROWS_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    MAX_TOP_K,
    MIN_MAX_LENGTH,
    Closed,
    NonEmptyText,
    OneOrSeveral,
    Request,
    Text,
    Truncation,
    check_rows_characters,
)
from nlp_schemas.result import Answer, Finite, OkResult
from nlp_schemas.task import TaskName

#: Fillings of all of a text's masks, or answers to a question: each filling comes with the whole text, decoded anew.
MAX_FILLINGS: Final = 1_000


class FillMaskParameters(Truncation):
    """The call parameters of ``transformers.FillMaskPipeline``."""

    top_k: Annotated[
        int,
        Field(ge=1, le=MAX_FILLINGS, description="The best words to give for each mask, 1,000 for all masks together."),
    ] = 5
    targets: Annotated[
        OneOrSeveral | None, Field(description=f"The only words to choose from: one, or a list of 1 to {MAX_ROWS}.")
    ] = None


class FillMaskRequest(Request):
    """A text with one or more mask tokens, as the checkpoint writes them."""

    task: Literal[TaskName.FILL_MASK] = TaskName.FILL_MASK
    inputs: NonEmptyText
    parameters: FillMaskParameters = Field(default_factory=FillMaskParameters)


class Filling(Answer):
    """A token for a mask, and the text with it."""

    score: Finite
    token: int
    token_str: str
    sequence: str


class FillMaskResult(OkResult):
    """Fillings, best first: a list for the one mask, or a list for each of several."""

    task: Literal[TaskName.FILL_MASK] = TaskName.FILL_MASK
    outputs: list[Filling] | list[list[Filling]]


class QuestionAnsweringInputs(Closed):
    """A question, and the text that its answer stands in."""

    question: NonEmptyText
    context: NonEmptyText


class QuestionAnsweringParameters(Closed):
    """The call parameters of transformers 4's ``QuestionAnsweringPipeline``, the last there was."""

    top_k: Annotated[int, Field(ge=1, le=MAX_FILLINGS, description="The best answers to give.")] = 1
    doc_stride: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_TEXT_CHARACTERS,
            description="Tokens that windows of a long context have in common; null is half of max_seq_len, or 128.",
        ),
    ] = None
    max_seq_len: Annotated[
        int | None,
        Field(
            ge=MIN_MAX_LENGTH,
            le=MAX_TEXT_CHARACTERS,
            description="Tokens of a window with its question; null is 384, or what the model reads.",
        ),
    ] = None
    max_answer_len: Annotated[int, Field(ge=1, le=MAX_TOP_K, description="Most tokens of an answer.")] = 15
    handle_impossible_answer: Annotated[bool, Field(description="Whether the empty answer may be the best one.")] = (
        False
    )
    align_to_words: Annotated[bool, Field(description="Whether answers begin and end where words do.")] = True


class QuestionAnsweringRequest(Request):
    """A question about a text."""

    task: Literal[TaskName.QUESTION_ANSWERING] = TaskName.QUESTION_ANSWERING
    inputs: QuestionAnsweringInputs
    parameters: QuestionAnsweringParameters = Field(default_factory=QuestionAnsweringParameters)


class Span(Answer):
    """An answer; ``start`` and ``end`` count code points of the context that was sent."""

    score: Finite
    start: int
    end: int
    answer: str


class QuestionAnsweringResult(OkResult):
    """The best answer, or with ``top_k`` above 1 a list of them, best first."""

    task: Literal[TaskName.QUESTION_ANSWERING] = TaskName.QUESTION_ANSWERING
    outputs: Span | list[Span]


class FeatureExtractionParameters(Truncation):
    """The call parameters of ``transformers.FeatureExtractionPipeline``, and pooling, which it leaves to its caller."""

    pooling: Annotated[
        Literal["cls", "mean"] | None,
        Field(description="One vector of a text: its first token's, or the mean of all; null gives every token's."),
    ] = None
    normalize: Annotated[bool, Field(description="Whether the pooled vector is scaled to length 1.")] = False

    @model_validator(mode="after")
    def _check_normalize(self) -> Self:
        if self.normalize and self.pooling is None:
            raise ValueError("normalize is for one vector: give pooling, cls or mean, too")
        return self


class FeatureExtractionRequest(Request):
    """A text to be made vectors of."""

    task: Literal[TaskName.FEATURE_EXTRACTION] = TaskName.FEATURE_EXTRACTION
    inputs: Text
    parameters: FeatureExtractionParameters = Field(default_factory=FeatureExtractionParameters)


class FeatureExtractionResult(OkResult):
    """``[[[float]]]``, a vector for each token, special tokens included; or with ``pooling`` ``[float]``."""

    task: Literal[TaskName.FEATURE_EXTRACTION] = TaskName.FEATURE_EXTRACTION
    outputs: list[Finite] | list[list[list[Finite]]]


class MultipleChoiceInputs(Closed):
    """A beginning, and the ways that it may go on."""

    prompt: Text
    choices: Annotated[list[Text], Field(min_length=1, max_length=MAX_ROWS)]

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        check_rows_characters(self.prompt, len(self.choices), "choices")
        if sum(map(len, self.choices)) > MAX_ROWS_CHARACTERS:
            raise ValueError(f"choices have more than {MAX_ROWS_CHARACTERS} characters together")
        return self


class MultipleChoiceParameters(Truncation):
    """Truncation alone: transformers has no pipeline of this name."""


class MultipleChoiceRequest(Request):
    """Which of the choices goes with the prompt?"""

    task: Literal[TaskName.MULTIPLE_CHOICE] = TaskName.MULTIPLE_CHOICE
    inputs: MultipleChoiceInputs
    parameters: MultipleChoiceParameters = Field(default_factory=MultipleChoiceParameters)


class Choice(Answer):
    """A choice by its index in ``choices``, and its probability among them."""

    choice: int
    score: Finite


class MultipleChoiceResult(OkResult):
    """The choices, best first."""

    task: Literal[TaskName.MULTIPLE_CHOICE] = TaskName.MULTIPLE_CHOICE
    outputs: list[Choice]
