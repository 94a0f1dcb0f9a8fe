"""What every answer has, whatever its task: one for every request, ``ok`` or ``error``."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ErrorCode(StrEnum):
    """Why a request has no outputs; a closed set."""

    INVALID_REQUEST = "invalid_request"
    """It cannot be read, or does not fit the schema or the checkpoint."""
    UNKNOWN_MODEL = "unknown_model"
    """``model`` names no checkpoint that is served for the task."""
    INPUT_TOO_LONG = "input_too_long"
    """More tokens than the model reads, and ``truncation`` is false; or more rows than are computed for one request."""
    RESULT_TOO_LARGE = "result_too_large"
    """The broker would refuse the answer."""
    OUT_OF_MEMORY = "out_of_memory"
    """It does not fit the device, even alone."""
    INFERENCE_FAILED = "inference_failed"
    """Something raised, or a number was not finite, in preprocess, forward or postprocess."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """``timeout_ms`` was over before it was computed."""
    QUARANTINED = "quarantined"
    """It brought the process down more than once."""


class Answer(BaseModel):
    """Lenient to read: a newer worker may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)


#: NaN and infinity are no JSON, and no answer either.
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Model(Answer):
    """Which checkpoint answered."""

    name: str
    checkpoint: str
    revision: Annotated[str, Field(description="The hub's full commit, or `sha256:...` of a folder's weights.")]


class Source(Answer):
    """The record that asked: it identifies a request across redeliveries."""

    topic: str
    partition: int
    offset: int


class Usage(Answer):
    """What the request cost."""

    input_tokens: Annotated[int, Field(description="Of all its rows, special tokens included, after truncation.")]


class Timing(Answer):
    """Milliseconds."""

    queue: Annotated[float, Field(description="From the record's timestamp to the start of its batch.")]
    device: Annotated[float, Field(description="The time its batches, neighbours included, took on the device.")]


class OkResult(Answer):
    """What every answer with outputs has; a task adds ``task`` and ``outputs``."""

    id: str
    status: Literal["ok"] = "ok"
    model: Model
    source: Source
    truncated: bool = False
    usage: Usage
    timing_ms: Timing


class Error(Answer):
    """What was wrong, where, and what would be right."""

    code: ErrorCode
    message: str


class ErrorResult(Answer):
    """The answer to a request that has no outputs."""

    id: str
    task: str
    status: Literal["error"] = "error"
    error: Error
    model: Model | None
    source: Source
