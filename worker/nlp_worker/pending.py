"""A client's requests that are not answered yet, and what may become of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from nlp_schemas import RESULT, ErrorCode, ErrorResult, OkResult, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from opentelemetry.trace import Span

    from nlp_worker.poll import Record

    Answer = OkResult | ErrorResult

log = logging.getLogger(__name__)

#: A task's result.
Outcome = TypeVar("Outcome")

#: Identifies a request among all of all producers, for the answer has the same. A value is read where it is ours alone.
CORRELATION_HEADER: Final = "kafka_correlationId"

REPLY_HEADER: Final = "kafka_replyTopic"

#: Seconds between two looks for requests whose time is over: each goes through all.
LOOK_INTERVAL: Final = 0.1


class RequestFailedError(Exception):
    """The request was answered with an error.

    Attributes:
        code: Why, one of a closed set.
        answer: As the worker gave it; None where the request could not even be sent.
    """

    def __init__(self, code: ErrorCode, message: str, answer: ErrorResult | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.answer = answer


class AnswerTimeoutError(TimeoutError):
    """No answer came in time."""


class ClientClosedError(Exception):
    """The client was closed before the answer came."""


class AnswerFuture(Future[Outcome]):
    """What a request's answer will be; also awaitable.

    Raises from ``result()``:
        RequestFailedError: the worker answered with an error.
        AnswerTimeoutError: no answer came in time.
        PublishError: the broker did not acknowledge the request; it may be there all the same.
        ClientClosedError: the client was closed first.
    """

    def __await__(self) -> Generator[Any, None, Outcome]:
        return asyncio.wrap_future(self).__await__()


@dataclass(slots=True, eq=False)
class Pending:
    """A request."""

    correlation: bytes
    request_id: str
    timeout: float
    """Seconds."""
    deadline: float
    """Of the monotonic clock, for the answer."""
    send_deadline: float = math.inf
    """Likewise, for the broker to tell that it has the request."""
    future: AnswerFuture[Any] = field(default_factory=AnswerFuture)
    span: Span | None = None
    """Of its sending, where that is traced."""
    source: Source | None = None
    """Where the request is; None until the broker has told."""
    early: list[Answer] = field(default_factory=list)
    """Answers that came before the broker had told."""

    def settle(self, answer: Answer) -> None:
        """Keep the answer to this very record; there are others of the same id where one was redriven."""
        if not self._is_from(answer.source):
            return
        if not isinstance(answer, OkResult):
            # Of any id: one that is none by the contract is an error, and cannot be echoed.
            self.fail(RequestFailedError(answer.error.code, answer.error.message, answer))
        elif answer.id == self.request_id:
            self._end(lambda: self.future.set_result(answer))

    def _is_from(self, source: Source) -> bool:
        # Of a record that was sent twice and kept once, a broker may not tell the offset: -1.
        own = self.source
        return own is not None and source in (
            own,
            own.model_copy(update={"offset": source.offset} if own.offset < 0 else {}),
        )

    def fail(self, error: Exception) -> None:
        self._end(lambda: self.future.set_exception(error))

    def _end(self, end: Callable[[], None]) -> None:
        # It was cancelled meanwhile, or ended by another thread.
        with contextlib.suppress(InvalidStateError):
            end()


class Waiting:
    """The requests of a client that wait for their answers; from whatever thread.

    Args:
        not_sent: Is given a request of which the broker told nothing in time, and fails it.
    """

    def __init__(self, not_sent: Callable[[Pending], None]) -> None:
        self._not_sent = not_sent
        self._lock = threading.Lock()
        self._pending: dict[bytes, Pending] = {}
        self._over: Exception | None = None
        self._looked = -math.inf

    def add(self, pending: Pending) -> None:
        """Wait for an answer.

        Raises:
            ClientClosedError: it is over.
        """
        with self._lock:
            if self._over is not None:
                raise ClientClosedError(f"the client is closed: {self._over}") from self._over
            self._pending[pending.correlation] = pending

    def discard(self, pending: Pending) -> None:
        with self._lock:
            self._pending.pop(pending.correlation, None)

    def sent(self, pending: Pending, source: Source) -> None:
        """Take in where the request is."""
        with self._lock:
            pending.source = source
            early, pending.early = pending.early, []
        for answer in early:
            pending.settle(answer)

    def take(self, record: Record) -> None:
        """Settle the request that the record answers, if it is one of ours."""
        correlation = next((value for name, value in record.headers if name == CORRELATION_HEADER), None)
        pending = None if correlation is None else self._pending.get(correlation)
        if pending is None:
            return
        try:
            answer = RESULT.validate_json(record.value or b"")
        except ValidationError as error:
            log.warning("%s-%d-%d is no answer: %s", record.topic, record.partition, record.offset, error)
            return
        with self._lock:
            if pending.source is None:
                pending.early.append(answer)
                return
        pending.settle(answer)

    def expire(self) -> None:
        """Fail the requests whose time is over, if it is time to look."""
        now = time.monotonic()
        if now - self._looked < LOOK_INTERVAL:
            return
        self._looked = now
        with self._lock:
            late = [pending for pending in self._pending.values() if pending.deadline <= now]
            lost = [each for each in self._pending.values() if each.source is None and each.send_deadline <= now]
        for pending in lost:
            self._not_sent(pending)
        for pending in late:
            problem = f"no answer to request {pending.request_id} within {pending.timeout:g} s"
            pending.fail(AnswerTimeoutError(f"{problem}: is a worker running that serves the task, and keeps up?"))

    def end(self, error: Exception) -> None:
        """Fail all that wait, and all that will be added."""
        with self._lock:
            self._over = self._over or error
            waiting = list(self._pending.values())
        for pending in waiting:
            pending.fail(error)
