"""From outputs to messages: the one terminal answer of each entry, and the dead letter of one that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog

from nlp_schemas import (
    MAX_MESSAGE_CHARACTERS,
    AnswerHeaders,
    DeadLetter,
    Error,
    ErrorCode,
    ErrorResult,
    OkResult,
    Source,
    Stage,
    Traced,
    ValueOmitted,
    dead_letter_topic,
    results_topic,
)
from nlp_worker import codec
from nlp_worker.errors import InferenceFailedError, RequestError, ResultTooLargeError
from nlp_worker.poll import Entry, Message
from nlp_worker.tracing import TRACE_HEADERS, span_headers, trace_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = structlog.get_logger()

ANSWER_HEADERS: Final = AnswerHeaders().to_headers()

#: Headers of a request that its answer carries too, so that requests and traces find their answers.
ECHOED_HEADERS: Final = frozenset(field.alias or name for name, field in Traced.model_fields.items())


class Answering:
    """Makes the messages of an entry.

    Args:
        prefix: Of the topics' names.
        worker_id: Goes into dead letters.
        fits: Whether the message's topic accepts a message of its size.
    """

    def __init__(self, prefix: str, worker_id: str, fits: Callable[[Message], bool]) -> None:
        self._prefix = prefix
        self._worker_id = worker_id
        self._fits = fits

    def messages(self, entry: Entry) -> list[Message]:
        """Return what is published for the entry: its answer, behind its dead letter where it has one.

        The dead letter goes first: whoever reads the error answer may look for it.
        """
        if entry.error is None:
            message = self._ok_message(entry)
            if message is not None:
                return [message]
        dead_letter = [] if _is_expired(entry) else [self._dead_letter(entry)]
        return [*dead_letter, self._error_message(entry)]

    def _ok_message(self, entry: Entry) -> Message | None:
        try:
            value = codec.encode(_ok_result(entry))
        except RequestError as error:
            entry.fail(error, Stage.FORWARD)
            return None
        except Exception as error:  # noqa: BLE001 - whatever postprocess raised, it costs this request alone
            entry.fail(InferenceFailedError.caused_by(error, "postprocess"), Stage.POSTPROCESS)
            return None
        message = self._answer(entry, value)
        if not self._fits(message):
            topic = message.topic
            problem = f"the answer has {len(value)} bytes, more than topic {topic} accepts: ask for less, or raise its"
            entry.fail(ResultTooLargeError(f"{problem} max.message.bytes"), Stage.PUBLISH)
            return None
        return message

    def _error_message(self, entry: Entry) -> Message:
        message = self._answer(entry, codec.encode(_error_result(entry)))
        # Only a key that fills the topic's limit by itself makes an error answer too large.
        return message if self._fits(message) else message._replace(key=None)

    def _answer(self, entry: Entry, value: bytes) -> Message:
        echoed = [(name, content or b"") for name, content in entry.record.headers if name in ECHOED_HEADERS]
        if entry.span is not None:
            echoed = [header for header in echoed if header[0] not in TRACE_HEADERS] + span_headers(entry.span)
        own = self._event_headers(entry) if entry.event else ANSWER_HEADERS
        topic, partition = entry.reply or (results_topic(entry.task_name, self._prefix), None)
        return Message(topic, entry.record.key, value, own + echoed, partition)

    def _event_headers(self, entry: Entry) -> list[tuple[str, bytes]]:
        """Return what makes an answer a CloudEvent: the same attributes whenever the request is answered again."""
        return AnswerHeaders(
            ce_specversion="1.0",
            ce_id=entry.origin,
            ce_source=f"/{self._prefix}/{entry.task_name}",
            ce_type=f"nlp.{entry.task_name}.{'ok' if entry.error is None else 'error'}",
            ce_subject=entry.request_id,
        ).to_headers()

    def _dead_letter(self, entry: Entry) -> Message:
        record, topic = entry.record, dead_letter_topic(entry.task_name, self._prefix)
        original = [(name, content or b"") for name, content in record.headers]
        reason = _dead_letter_reason(entry, self._worker_id)
        if record.value is None and record.key is None:
            added = reason.model_copy(update={"value_omitted": ValueOmitted.NULL}).to_headers()
            return Message(topic, None, b"", original + added)
        message = Message(topic, record.key, record.value, original + reason.to_headers())
        if self._fits(message):
            return message
        added = reason.model_copy(update={"value_omitted": ValueOmitted.TOO_LARGE}).to_headers()
        # kafka-python refuses a record with neither key nor value, so without a key the value is empty, not null.
        message = Message(topic, record.key, None if record.key is not None else b"", original + added)
        # Headers or a key that fill the limit by themselves: the reason and the source are worth more than they are.
        return message if self._fits(message) else Message(topic, None, b"", added)


def log_failures(entries: Iterable[Entry]) -> None:
    """Name in the log the requests that were answered with an error, and none of their texts."""
    for entry in entries:
        if entry.error is not None:
            trace = {} if entry.span is None else {"trace_id": trace_id(entry.span)}
            log.warning(
                "request_failed",
                task=entry.task_name,
                code=entry.error.code,
                stage=entry.stage,
                exception=type(entry.error.__cause__ or entry.error).__name__,
                topic=entry.record.topic,
                partition=entry.record.partition,
                offset=entry.record.offset,
                **trace,
            )


def _ok_result(entry: Entry) -> OkResult:
    if entry.task is None or entry.request is None:
        raise ValueError("an entry without an error has a request and a task. This is a bug.")
    for row in entry.rows:
        if isinstance(row.output, RequestError):
            raise row.output
    finished = entry.task.postprocess(entry.request, entry.rows)
    usage: dict[str, Any] = {"input_tokens": entry.tokens}
    # Parts as they are, not as models: each would be validated once more.
    answer: dict[str, Any] = {
        "id": entry.request_id,
        "model": entry.task.model,
        "source": _source(entry),
        "truncated": entry.truncated,
        "usage": usage,
        "timing_ms": _timing(entry),
        "outputs": finished.outputs,
    }
    if finished.finish_reasons is not None:
        usage["output_tokens"] = finished.output_tokens
        answer["finish_reasons"] = finished.finish_reasons
    return entry.task.result.model_validate(answer)


def _timing(entry: Entry) -> dict[str, float]:
    runs = entry.runs
    queue = 0.0
    if runs and entry.record.timestamp >= 0:
        # A producer's clock may be ahead of ours.
        queue = max(min(run.started for run in runs) * 1000 - entry.record.timestamp, 0.0)
    return {"queue": round(queue, 1), "device": round(sum(run.seconds for run in runs) * 1000, 1)}


def _error_result(entry: Entry) -> ErrorResult:
    error = _error_of(entry)
    return ErrorResult(
        id=entry.request_id,
        task=entry.task_name,
        error=Error(code=error.code, message=_printable(str(error))),
        model=entry.task.model if entry.task is not None else None,
        source=Source(**_source(entry)),
    )


def _dead_letter_reason(entry: Entry, worker_id: str) -> DeadLetter:
    error, record = _error_of(entry), entry.record
    model = entry.task.model if entry.task is not None else None
    return DeadLetter(
        code=error.code,
        message=_printable(str(error)),
        exception=type(error.__cause__ or error).__name__,
        stage=entry.stage or Stage.DECODE,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        attempt=entry.attempt,
        worker=worker_id,
        model=model.name if model is not None else "",
        revision=model.revision if model is not None else "",
    )


def _error_of(entry: Entry) -> RequestError:
    if entry.error is None:
        raise ValueError("only an entry that failed has an error answer. This is a bug.")
    return entry.error


def _is_expired(entry: Entry) -> bool:
    return _error_of(entry).code is ErrorCode.DEADLINE_EXCEEDED


def _source(entry: Entry) -> dict[str, Any]:
    return {"topic": entry.record.topic, "partition": entry.record.partition, "offset": entry.record.offset}


def _printable(message: str) -> str:
    """Cut to the limit; what UTF-8 cannot say (a lone surrogate that an exception quotes) becomes a question mark."""
    return message[:MAX_MESSAGE_CHARACTERS].encode(errors="replace").decode()
