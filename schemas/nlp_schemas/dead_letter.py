"""What is kept of a request that was answered with an error: its untouched bytes, and why, in headers."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field

from nlp_schemas.result import ErrorCode

#: Every header that the worker adds to the original ones starts with this.
HEADER_PREFIX: Final = "nlp-dead-letter-"

#: The one that the others stand behind.
FIRST_HEADER: Final = f"{HEADER_PREFIX}code"

#: Characters. Headers count towards the broker's limit, and the dead-letter topic has 64 KiB more room than requests.
MAX_MESSAGE_CHARACTERS: Final = 2_000


class Stage(StrEnum):
    """Where on its way a request failed."""

    DECODE = "decode"
    PREPROCESS = "preprocess"
    FORWARD = "forward"
    POSTPROCESS = "postprocess"
    PUBLISH = "publish"


class ValueOmitted(StrEnum):
    """Why a dead letter does not carry the original value."""

    TOO_LARGE = "too_large"
    """The value and the added headers together are above the topic's limit."""
    NULL = "null"
    """It was null, and so was the key: clients refuse to send such a record, so the dead letter's value is empty."""


def header_name(field: str) -> str:
    """Return the header that a field of `DeadLetter` stands in."""
    return HEADER_PREFIX + field.replace("_", "-")


class DeadLetter(BaseModel):
    """The headers that a dead letter adds to the original ones, all of them text."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    code: ErrorCode
    message: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)]
    exception: Annotated[str, Field(description="The class of what was raised.")]
    stage: Stage
    topic: str
    partition: int
    offset: int
    timestamp: Annotated[int, Field(description="Of the original record, in milliseconds since 1970.")]
    attempt: Annotated[int, Field(ge=1)] = 1
    worker: str
    model: str = ""
    revision: str = ""
    value_omitted: ValueOmitted | None = None

    def to_headers(self) -> list[tuple[str, bytes]]:
        return [
            (header_name(name), str(value).encode())
            for name, value in self.model_dump(mode="json", exclude_none=True).items()
        ]

    @classmethod
    def from_headers(cls, headers: Sequence[tuple[str, bytes]]) -> Self:
        """Read a dead letter's headers: the worker's own are the last, and begin with the code.

        Raises:
            pydantic.ValidationError: a header is missing or says what it cannot.
        """
        added: dict[str, bytes] = {}
        for name, value in headers:
            if name == FIRST_HEADER:  # what stood before it was the record's, and may be anything
                added = {}
            if name.startswith(HEADER_PREFIX):
                added[name.removeprefix(HEADER_PREFIX).replace("-", "_")] = value
        return cls.model_validate({name: value.decode(errors="replace") for name, value in added.items()})
