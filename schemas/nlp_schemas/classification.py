"""The tasks that give labels: for each its parameters, its request and its result.

Parameters are the call parameters of the ``transformers`` pipeline of the task's name, and outputs are what it returns
for one input.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from nlp_schemas.request import (
    MAX_LABEL_CHARACTERS,
    MAX_ROWS,
    MAX_TEXT_CHARACTERS,
    MAX_TOP_K,
    NonEmptyText,
    OneOrSeveral,
    Request,
    Text,
    TextOrPair,
    Truncation,
    as_list,
    check_rows_characters,
)
from nlp_schemas.result import Answer, Finite, OkResult
from nlp_schemas.task import TaskName


class Label(Answer):
    """A label and its score."""

    label: str
    score: Finite


class TextClassificationParameters(Truncation):
    """The call parameters of ``transformers.TextClassificationPipeline``."""

    top_k: Annotated[
        int | None, Field(ge=1, le=MAX_TOP_K, description="The best answers to give; null gives one for every label.")
    ] = 1
    function_to_apply: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        Field(description="What makes scores of logits; null leaves it to the checkpoint's configuration."),
    ] = None


class TextClassificationRequest(Request):
    """A text, or a pair of texts, to be given labels with scores."""

    task: Literal[TaskName.TEXT_CLASSIFICATION] = TaskName.TEXT_CLASSIFICATION
    inputs: TextOrPair
    parameters: TextClassificationParameters = Field(default_factory=TextClassificationParameters)


class TextClassificationResult(OkResult):
    """Labels with scores, best first."""

    task: Literal[TaskName.TEXT_CLASSIFICATION] = TaskName.TEXT_CLASSIFICATION
    outputs: list[Label]


class ZeroShotClassificationParameters(Truncation):
    """The call parameters of ``transformers.ZeroShotClassificationPipeline``."""

    candidate_labels: Annotated[
        OneOrSeveral,
        Field(description=f"A list of 1 to {MAX_ROWS} labels, or one text with commas between them."),
    ]
    hypothesis_template: Annotated[
        str,
        Field(max_length=MAX_LABEL_CHARACTERS, description="What a label is put into, in the place of its one `{}`."),
    ] = "This example is {}."
    multi_label: Annotated[
        bool, Field(description="Whether several labels may be true: each is scored by itself, from 0 to 1.")
    ] = False

    @property
    def labels(self) -> list[str]:
        if isinstance(self.candidate_labels, str):
            return [label.strip() for label in self.candidate_labels.split(",") if label.strip()]
        return as_list(self.candidate_labels)

    @property
    def hypotheses(self) -> list[str]:
        return [self.hypothesis_template.replace("{}", label) for label in self.labels]

    @field_validator("hypothesis_template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if template.count("{}") != 1 or template.count("{") != 1 or template.count("}") != 1:
            raise ValueError("it must have {} once, where the label goes, and no other brace")
        return template

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if not 1 <= len(self.labels) <= MAX_ROWS:
            raise ValueError(f"candidate_labels has {len(self.labels)} labels: give from 1 to {MAX_ROWS}")
        return self


class ZeroShotClassificationRequest(Request):
    """A text, and labels to choose from that the model was never trained on."""

    task: Literal[TaskName.ZERO_SHOT_CLASSIFICATION] = TaskName.ZERO_SHOT_CLASSIFICATION
    inputs: NonEmptyText
    parameters: ZeroShotClassificationParameters

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        check_rows_characters(self.inputs, len(self.parameters.labels), "candidate_labels")
        return self


class ZeroShotClassificationOutput(Answer):
    """Labels with their scores, best first."""

    sequence: str
    labels: list[str]
    scores: list[Finite]


class ZeroShotClassificationResult(OkResult):
    """The labels, ranked."""

    task: Literal[TaskName.ZERO_SHOT_CLASSIFICATION] = TaskName.ZERO_SHOT_CLASSIFICATION
    outputs: ZeroShotClassificationOutput


class TokenClassificationParameters(Truncation):
    """The call parameters of ``transformers.TokenClassificationPipeline``."""

    aggregation_strategy: Annotated[
        Literal["none", "simple", "first", "average", "max"],
        Field(description="How tokens become entities: none gives tokens, the others groups of them."),
    ] = "none"
    ignore_labels: list[Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS)]] = Field(
        default_factory=lambda: ["O"], max_length=MAX_ROWS, description="Labels that are left out."
    )
    stride: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_TEXT_CHARACTERS,
            description="Tokens that windows of a long text have in common; null cuts the text instead.",
        ),
    ] = None

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        # With none by default the pipeline accepts it.
        asked = "aggregation_strategy" in self.model_fields_set
        if self.stride is not None and asked and self.aggregation_strategy == "none":
            raise ValueError("stride needs an aggregation_strategy: simple, first, average or max")
        return self


class TokenClassificationRequest(Request):
    """A text whose words are to be labelled: named entities, parts of speech."""

    task: Literal[TaskName.TOKEN_CLASSIFICATION] = TaskName.TOKEN_CLASSIFICATION
    inputs: Text
    parameters: TokenClassificationParameters = Field(default_factory=TokenClassificationParameters)


class Token(Answer):
    """A token and its label: ``aggregation_strategy`` none."""

    entity: str
    score: Finite
    index: int
    word: str
    start: int | None
    end: int | None


class EntityGroup(Answer):
    """An entity of one or more tokens; ``start`` and ``end`` count code points of the text that was sent."""

    entity_group: str
    score: Finite
    word: str
    start: int | None
    end: int | None


class TokenClassificationResult(OkResult):
    """Tokens or entities, in the order of the text."""

    task: Literal[TaskName.TOKEN_CLASSIFICATION] = TaskName.TOKEN_CLASSIFICATION
    outputs: list[Token] | list[EntityGroup]
