"""What a producer sends: one model for each task; the topic picks it.

Models are strict and closed: a wrong type, an unknown field or an unknown parameter is an error that names it, for
silence would hide a typo.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from nlp_schemas.task import TaskName

#: Characters. The tokenizer reads a whole text before it truncates, up to 4 s for 1 MB: longer ones would hold up
#: every request behind them.
MAX_TEXT_CHARACTERS: Final = 100_000

#: Characters. Fits a UUID, a URN or a path, and stays small beside the answer that echoes it.
MAX_ID_CHARACTERS: Final = 200

#: Milliseconds, seven days: Kafka's default retention, after which the request would be gone anyway.
MAX_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000

#: Answers. Above the label sets in use (ImageNet-style 1,000, extreme classification apart), so an answer stays
#: below a broker's 1 MiB.
MAX_TOP_K: Final = 10_000

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class Closed(BaseModel):
    """Strict types, no unknown fields, never changed once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Request(Closed):
    """What every request has, whatever its task."""

    id: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_ID_CHARACTERS,
            description="The producer's name for the request; `<topic>-<partition>-<offset>` where it has none.",
        ),
    ] = None
    model: Annotated[
        str | None,
        Field(min_length=1, max_length=200, description="The checkpoint to ask, by its served name; else the first."),
    ] = None
    timeout_ms: Annotated[
        int | None,
        Field(gt=0, le=MAX_TIMEOUT_MS, description="Counts from the record's timestamp; later it is not computed."),
    ] = None


class TextPair(Closed):
    """Two texts that are classified together, such as a premise and a hypothesis."""

    text: Text
    text_pair: Text


# A tag with a space in it is no field's name, so a reader of validation errors can tell the two apart.
_ONE_TEXT: Final = "one text"
_TEXT_PAIR: Final = "text pair"


def _text_or_pair(inputs: Any) -> str:
    return _TEXT_PAIR if isinstance(inputs, (dict, TextPair)) else _ONE_TEXT


TextOrPair = Annotated[
    Annotated[Text, Tag(_ONE_TEXT)] | Annotated[TextPair, Tag(_TEXT_PAIR)], Discriminator(_text_or_pair)
]


class TextClassificationParameters(Closed):
    """The call parameters of ``transformers.TextClassificationPipeline``."""

    top_k: Annotated[
        int | None, Field(ge=1, le=MAX_TOP_K, description="The best answers to give; null gives one for every label.")
    ] = 1
    function_to_apply: Annotated[
        Literal["softmax", "sigmoid", "none"] | None,
        Field(description="What makes scores of logits; null leaves it to the checkpoint's configuration."),
    ] = None
    truncation: Annotated[
        bool,
        Field(description="True cuts a text that is too long and the answer says so; false refuses it."),
    ] = True


class TextClassificationRequest(Request):
    """A text, or a pair of texts, to be given labels with scores."""

    task: Literal[TaskName.TEXT_CLASSIFICATION] = TaskName.TEXT_CLASSIFICATION
    inputs: TextOrPair
    parameters: TextClassificationParameters = TextClassificationParameters()

    @field_validator("inputs", mode="before")
    @classmethod
    def _refuse_lists(cls, inputs: Any) -> Any:
        if isinstance(inputs, list):
            # Batches are the worker's business: a list in one record could only fail or succeed as a whole.
            raise ValueError("a list is not accepted: send one record for each text")  # noqa: TRY004 - pydantic's way
        return inputs


#: The request model of each task that is served so far.
REQUESTS: Final[dict[TaskName, type[TextClassificationRequest]]] = {
    TaskName.TEXT_CLASSIFICATION: TextClassificationRequest,
}
