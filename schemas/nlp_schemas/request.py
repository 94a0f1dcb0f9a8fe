"""What every request has, whatever its task, and what the tasks' own parts are made of.

Models are strict and closed: a wrong type, an unknown field or an unknown parameter is an error that names it, for
silence would hide a typo.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetJsonSchemaHandler, Tag, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from nlp_schemas.task import ALIASES, own_name

#: Characters. The tokenizer reads a whole text before it truncates, up to 4 s for 1 MB: longer ones would hold up
#: every request behind them.
MAX_TEXT_CHARACTERS: Final = 100_000

#: Characters of a request's rows together, where its text is repeated in each (a text with every label, a prompt with
#: every choice): a second or so of tokenizing.
MAX_ROWS_CHARACTERS: Final = 1_000_000

#: Bytes of a request: twice what the most characters of one take in UTF-8. A broker limits what it is sent (to 1 MiB,
#: where nobody says otherwise), but of records that are compressed it counts the compressed bytes.
MAX_REQUEST_BYTES: Final = 8 * 2**20

#: Rows of one request: labels, choices, windows. Enough for a book's chapter or a taxonomy, and some seconds of a CPU.
MAX_ROWS: Final = 1_000

#: Characters. Fits a UUID, a URN or a path, and stays small beside the answer that echoes it.
MAX_ID_CHARACTERS: Final = 200

#: Milliseconds, seven days: Kafka's default retention, after which the request would be gone anyway.
MAX_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000

#: Answers. Above the label sets in use (ImageNet-style 1,000, extreme classification apart), so an answer stays
#: below a broker's 1 MiB.
MAX_TOP_K: Final = 10_000

#: Characters of a label, a word, a language code.
MAX_LABEL_CHARACTERS: Final = 1_000

#: Tokens. Below it the special tokens of some checkpoints would leave no room for any of the text.
MIN_MAX_LENGTH: Final = 8

Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]
NonEmptyText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARACTERS)]
ShortText = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS)]


class Closed(BaseModel):
    """Strict types, no unknown fields, never changed once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Request(Closed):
    """What every request has, whatever its task; a task adds ``task``, ``inputs`` and ``parameters``."""

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

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Name the task's aliases too."""
        reference = handler(schema)
        task = handler.resolve_ref_schema(reference).get("properties", {}).get("task", {})
        if names := [alias for alias, own in ALIASES.items() if own == task.get("const")]:
            task["enum"] = [task.pop("const"), *names]
        return reference

    @field_validator("task", mode="before", check_fields=False)
    @classmethod
    def _accept_aliases(cls, task: Any) -> Any:
        return own_name(task)

    @field_validator("inputs", mode="before", check_fields=False)
    @classmethod
    def _refuse_lists(cls, inputs: Any) -> Any:
        if isinstance(inputs, list):
            # Batches are the worker's business: a list in one record could only fail or succeed as a whole.
            raise ValueError("a list is not accepted: send one record for each text")  # noqa: TRY004 - pydantic's way
        return inputs


class Truncation(Closed):
    """What becomes of a text that is longer than the model reads."""

    truncation: Annotated[
        bool, Field(description="True cuts a text that is too long and the answer says so; false refuses it.")
    ] = True
    max_length: Annotated[
        int | None,
        Field(
            ge=MIN_MAX_LENGTH,
            le=MAX_TEXT_CHARACTERS,
            description="Most tokens of a row, special tokens included; null, or more than the model reads, is that.",
        ),
    ] = None


class TextPair(Closed):
    """Two texts that are classified together, such as a premise and a hypothesis."""

    text: Text
    text_pair: Text


# A tag with a space in it is no field's name, so a reader of validation errors can tell the two apart.
_ONE_TEXT: Final = "one text"
_OBJECT: Final = "text pair"


def _text_or_pair(inputs: Any) -> str:
    return _OBJECT if isinstance(inputs, (dict, TextPair)) else _ONE_TEXT


TextOrPair = Annotated[
    Annotated[Text, Tag(_ONE_TEXT)] | Annotated[TextPair, Tag(_OBJECT)], Discriminator(_text_or_pair)
]

_SEVERAL: Final = "list of texts"


def _one_or_several(value: Any) -> str:
    return _SEVERAL if isinstance(value, list) else _ONE_TEXT


#: One short text, or a list of them.
OneOrSeveral = Annotated[
    Annotated[ShortText, Tag(_ONE_TEXT)]
    | Annotated[list[ShortText], Field(min_length=1, max_length=MAX_ROWS), Tag(_SEVERAL)],
    Discriminator(_one_or_several),
]


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def check_rows_characters(text: str, rows: int, of: str) -> None:
    """Bound what a text costs that is tokenized once for each of a request's rows."""
    if len(text) * rows > MAX_ROWS_CHARACTERS:
        problem = f"the text is read once for each of the {rows} {of}, {len(text) * rows} characters in all"
        raise ValueError(f"{problem}: at most {MAX_ROWS_CHARACTERS}, so shorten it or ask in several requests")
