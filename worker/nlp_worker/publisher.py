"""Where answers go: kafka-python's idempotent producer, and a new one whenever it failed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from kafka import errors as kafka_errors
from kafka.record.default_records import DefaultRecordBatchBuilder

from nlp_worker.bulk import send_all
from nlp_worker.errors import BrokerError, PublishError, TopicError
from nlp_worker.kafka_clients import CLOSE_TIMEOUT, FUTURE_GRACE, close_producer, open_producer, producer_arguments
from nlp_worker.poll import LimitChanged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_worker.clock import Clock
    from nlp_worker.poll import Message
    from nlp_worker.settings import Settings

log = structlog.get_logger()

#: Bytes, rounded up: of a batch with one record beside key, value and headers; of a header beside name and content.
BATCH_BYTES: Final = 200
HEADER_BYTES: Final = 20

#: What a broker refuses for good, and the right that is missing.
_NOT_ALLOWED: Final[Mapping[Any, str]] = {
    kafka_errors.TopicAuthorizationFailedError: "WRITE on the results and dead-letter topics",
    kafka_errors.ClusterAuthorizationFailedError: "WRITE on the results and dead-letter topics",
    # Of a transaction: the offsets are the group's.
    kafka_errors.GroupAuthorizationFailedError: "READ on the group",
    kafka_errors.TransactionalIdAuthorizationFailedError: "WRITE on the transactional ids `<group>/*`",
}


class Publisher:
    """Sends messages and waits for their acknowledgements.

    Args:
        settings: For the client.
        read_limits: Returns the `max.message.bytes` of each topic we write to.
        clock: For deadlines.
        own: Settings of the client that are the worker's own, beside those that every producer of ours has.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.producer] cannot be used.
    """

    def __init__(
        self, settings: Settings, read_limits: Callable[[], Mapping[str, int]], clock: Clock = time, **own: Any
    ) -> None:
        self._read_limits = read_limits
        self._limits = dict(read_limits())
        self._clock = clock
        self._arguments = producer_arguments(settings, self._limits.values(), **own)
        self._client = self._open()

    def _open(self) -> Any:
        return open_producer(self._arguments)

    def fits(self, message: Message) -> bool:
        """Whether the message's topic, and the client, accept a message of its size."""
        limit = int(min(self._limits[message.topic], self._arguments["max_request_size"]))
        # The exact size takes a tenth of what the rest of an answer does, and is nearly always far from the limit.
        return _size_at_most(message) <= limit or _size(message) <= limit

    def publish(self, messages: Sequence[Message], seconds: float) -> None:
        """Send, and return when every message is acknowledged.

        An idempotent producer whose send failed refuses or never resolves every later one, so after any failure it is
        replaced, and what is not acknowledged is sent again, in order, from the first such message on.

        Raises:
            LimitChanged: a topic refused a message as too large; `fits` knows its new limit.
            PublishError: not acknowledged within that time.
            TopicError: a topic may not be written to.
        """
        deadline = self._clock.monotonic() + seconds
        done = 0
        while done < len(messages):
            sent, error = self._try(messages[done:], deadline)
            done += sent
            if error is not None:
                self._recover(error, messages[done:], deadline)

    def _try(self, messages: Sequence[Message], deadline: float) -> tuple[int, Exception | None]:
        """Send all; return how many were acknowledged before the first that was not, and why that was not."""
        acknowledged = 0
        # A batch that can never be delivered fails at its delivery timeout; a dead producer leaves it unresolved.
        longest = self._arguments["delivery_timeout_ms"] / 1000 + FUTURE_GRACE
        try:
            for sent in send_all(self._client, messages):
                sent.get(timeout=max(min(longest, deadline - self._clock.monotonic()), 0))
                acknowledged += 1
        except kafka_errors.KafkaError as error:
            return acknowledged, error
        return acknowledged, None

    def _recover(self, error: Exception, unsent: Sequence[Message], deadline: float) -> None:
        log.warning("publish_failed", reason=type(error).__name__, unacknowledged=len(unsent))
        refuse(error)
        if self._clock.monotonic() >= deadline:
            raise PublishError(f"{len(unsent)} answers were not acknowledged in time: {error}")
        # Where the broker is away, the loop goes on until the deadline: one that restarts is back in seconds.
        if self._replace():
            self._learn_limits(error, unsent)

    def _replace(self) -> bool:
        """Take a new client, and drop what the old one holds; whether the broker could be reached."""
        self.close(timeout=0)
        try:
            self._client = self._open()
        except BrokerError as unreachable:
            log.warning("broker_unreachable", reason=str(unreachable))
            return False
        return True

    def _learn_limits(self, error: Exception, messages: Sequence[Message]) -> None:
        """Raise LimitChanged where the error is that a message is too large, and lower what `fits` allows."""
        if not isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            return
        before = dict(self._limits)
        self._limits.update(self._read_limits())
        if self._limits == before:
            # The limits may not be read: below the largest message of each topic is the best guess.
            for topic in {message.topic for message in messages}:
                largest = max(_size(message) for message in messages if message.topic == topic)
                self._limits[topic] = min(self._limits[topic], largest - 1)
        raise LimitChanged(str(error))

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the client; what it still holds after `timeout` seconds is dropped."""
        close_producer(self._client, timeout)


def refuse(error: Exception) -> None:
    """Raise TopicError where the error is that a right is missing: that heals by no retry."""
    if right := _NOT_ALLOWED.get(type(error)):
        raise TopicError(f"{right} is not allowed: allow it ({error})")


def _size(message: Message) -> int:
    """Bytes of a batch that holds this message alone: what a topic's limit applies to."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(message.key, message.value, message.headers))


def _size_at_most(message: Message) -> int:
    """Return a number of bytes that `_size` is not above."""
    # UTF-8 has at most 4 bytes for a character.
    headers = sum(4 * len(name) + len(content) + HEADER_BYTES for name, content in message.headers)
    return len(message.key or b"") + len(message.value or b"") + headers + BATCH_BYTES
