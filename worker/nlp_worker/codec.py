"""Bytes to requests, answers to bytes. Pure: no clock, no Kafka, no model."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Final, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from nlp_schemas import (
    MAX_ID_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_REQUEST_BYTES,
    REQUESTS,
    ErrorResult,
    OkResult,
    Request,
    RequestHeaders,
)
from nlp_worker.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

#: Characters of a field's name that are quoted; the longest of ours has 28.
MAX_NAME_CHARACTERS: Final = 100

#: Problems of one request that its answer lists: enough to mend it, too few to fill a topic.
MAX_PROBLEMS: Final = 5

#: Problems of one request that are looked at: a megabyte of unknown fields has 100,000, and each would cost a kilobyte.
MAX_COUNTED_PROBLEMS: Final = 10_000

_MEMBER: Final = re.compile(r"<\w+\.\w+: ('[^']*')>")


def decode(value: bytes | None, task: str) -> Request:
    """Read a request of the task.

    Raises:
        InvalidRequestError: the value is null, too large, no UTF-8, no JSON, or does not fit the task's request model.
    """
    if value is None:
        raise InvalidRequestError("the record's value is null: send a JSON object with at least `inputs`")
    if len(value) > MAX_REQUEST_BYTES:
        raise InvalidRequestError(f"the record's value has {len(value)} bytes: at most {MAX_REQUEST_BYTES} are read")
    model = REQUESTS[task]
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        raise InvalidRequestError(_describe(error, value, model), request_id=valid_id(value)) from None


def decode_headers(headers: Iterable[tuple[str, bytes | None]]) -> RequestHeaders:
    """Read what a request says in its headers.

    Raises:
        InvalidRequestError: one of them says what it cannot.
    """
    try:
        return RequestHeaders.of(headers)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = "".join(f" {part}" for part in problem["loc"])
        raise InvalidRequestError(f"header{name}: {problem['msg'].removeprefix('Value error, ')}") from None


def encode(answer: OkResult | ErrorResult) -> bytes:
    return to_json(answer)


def _describe(error: ValidationError, value: bytes, model: type[BaseModel]) -> str:
    if error.error_count() > MAX_COUNTED_PROBLEMS:
        return f"the record's value has {error.error_count()} problems, such as fields that are unknown"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return _describe_unreadable(value, problems[0]["msg"])
    listed = "; ".join(_describe_problem(problem, model) for problem in problems[:MAX_PROBLEMS])
    more = len(problems) - MAX_PROBLEMS
    message = listed if more <= 0 else f"{listed}; and {more} more"
    return message[:MAX_MESSAGE_CHARACTERS]


def _describe_unreadable(value: bytes, reason: str) -> str:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"the record's value is not UTF-8: {error.reason} at byte {error.start}"
    if value.startswith(codecs.BOM_UTF8):
        return "the record's value is not JSON: it begins with a byte order mark, leave that out"
    # Half of a surrogate pair is what JSON of other languages may have.
    surrogate = ": half of a surrogate pair, such as \\ud800 alone, is no text" if "hex escape" in reason else ""
    return f"the record's value is not JSON: {reason.removeprefix('Invalid JSON: ')}{surrogate}"


def _describe_problem(problem: ErrorDetails, model: type[BaseModel]) -> str:
    # Names with a space are tags of a union (nlp_schemas.request), nothing the producer wrote.
    location = [part for part in problem["loc"] if " " not in str(part)]
    where = ".".join(str(part)[:MAX_NAME_CHARACTERS] for part in location) or "the record's value"
    # Of an enumeration pydantic quotes Python's form of its members.
    message = _MEMBER.sub(r"\1", problem["msg"].removeprefix("Value error, "))
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown field; there is {', '.join(_model_at(model, location[:-1]).model_fields)}"
    if location and (limits := _limits(_model_at(model, location[:-1]).model_fields.get(str(location[-1])))):
        message = f"Input should be {limits}" if "_than" in problem["type"] else f"{message}, {limits}"
    return f"{where}: {message}"


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    """Return the model of the fields at a location, as far as there is one."""
    for part in location:
        if (field := model.model_fields.get(str(part))) is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model among the types that an annotation is made of; a contract's field has one at most."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part)) is not None), None)


def _limits(field: FieldInfo | None) -> str:
    """Say what a number must be, both ends of it; the empty string where the field is no bounded number."""
    words = {Ge: "from {}", Gt: "above {}", Le: "up to {}", Lt: "below {}"}
    names = {Ge: "ge", Gt: "gt", Le: "le", Lt: "lt"}
    bounds = [] if field is None else [bound for bound in field.metadata if type(bound) in words]
    return " ".join(words[type(bound)].format(getattr(bound, names[type(bound)])) for bound in bounds)


def valid_id(value: bytes | None) -> str | None:
    """Return the id of a request that may not fit its schema; None where it has no valid one."""
    try:
        document = json.loads(value or b"")
        candidate = document.get("id") if isinstance(document, dict) else None
        if isinstance(candidate, str) and 1 <= len(candidate) <= MAX_ID_CHARACTERS:
            candidate.encode()
            return candidate
    except (ValueError, RecursionError):  # not JSON, a lone surrogate, or nested a thousand deep
        pass
    return None
