"""Bytes to requests, answers to bytes. Pure: no clock, no Kafka, no model."""

import json
from typing import Final

from pydantic import ValidationError

from nlp_schemas import (
    MAX_ID_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    REQUESTS,
    ErrorResult,
    OkResult,
    Request,
    TaskName,
)
from nlp_worker.errors import InvalidRequestError

#: Problems of one request that its answer lists: enough to mend it, too few to fill a topic.
MAX_PROBLEMS: Final = 5


def decode(value: bytes | None, task: TaskName) -> Request:
    """Read a request of the task.

    Raises:
        InvalidRequestError: the value is null, not UTF-8, not JSON, or does not fit the task's request model.
    """
    if value is None:
        raise InvalidRequestError("the record's value is null: send a JSON object with at least `inputs`")
    try:
        return REQUESTS[task].model_validate_json(value)
    except ValidationError as error:
        raise InvalidRequestError(_describe(error, value), request_id=_valid_id(value)) from None


def encode(answer: OkResult | ErrorResult) -> bytes:
    return answer.model_dump_json().encode()


def _describe(error: ValidationError, value: bytes) -> str:
    problems = error.errors(include_url=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        return _describe_unreadable(value, problems[0]["msg"])
    listed = "; ".join(
        _describe_problem(problem["loc"], problem["msg"], problem["type"]) for problem in problems[:MAX_PROBLEMS]
    )
    more = len(problems) - MAX_PROBLEMS
    message = listed if more <= 0 else f"{listed}; and {more} more"
    return message[:MAX_MESSAGE_CHARACTERS]


def _describe_unreadable(value: bytes, reason: str) -> str:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"the record's value is not UTF-8: {error.reason} at byte {error.start}"
    return f"the record's value is not JSON: {reason.removeprefix('Invalid JSON: ')}"


def _describe_problem(location: tuple[int | str, ...], message: str, kind: str) -> str:
    # Names with a space are tags of a union (nlp_schemas.request), nothing the producer wrote.
    where = ".".join(str(part) for part in location if " " not in str(part)) or "the record's value"
    if kind == "extra_forbidden":
        message = "unknown field"
    return f"{where}: {message.removeprefix('Value error, ')}"


def _valid_id(value: bytes) -> str | None:
    """Return the id of a request that does not fit its schema; None where it has no valid one."""
    try:
        document = json.loads(value)
        candidate = document.get("id") if isinstance(document, dict) else None
        if isinstance(candidate, str) and 1 <= len(candidate) <= MAX_ID_CHARACTERS:
            candidate.encode()
            return candidate
    except (ValueError, RecursionError):  # not JSON, a lone surrogate, or nested a thousand deep
        pass
    return None
