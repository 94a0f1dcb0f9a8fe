"""Sends the requests of dead letters back to the topic they came from."""

from __future__ import annotations

import contextlib
import itertools
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from kafka import errors as kafka_errors
from kafka.record.default_records import DefaultRecordBatchBuilder

from nlp_schemas import HEADER_PREFIX, ErrorCode
from nlp_worker import kafka_clients
from nlp_worker.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from nlp_worker.dead_letters import Letter, Topic
    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

#: The codes that another try may do without; with the others the request itself is wrong, today and tomorrow.
WORTH_REPEATING: Final = frozenset(
    {
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.INFERENCE_FAILED,
        ErrorCode.QUARANTINED,
        ErrorCode.UNKNOWN_MODEL,
        ErrorCode.RESULT_TOO_LARGE,
    }
)

#: How often a request was redriven, in decimal digits. It stays on the request, and so on its next dead letter.
COUNT_HEADER: Final = "nlp-redrive-count"

#: Digits of a count that is believed; a longer one is nobody's count.
COUNT_DIGITS: Final = 9

#: Slices of a second in which a redrive sends: few enough to wait for the acknowledgements of each.
SLICES_PER_SECOND: Final = 10

#: Most dead letters of a slice. They are in memory together, and at worst sent again when a redrive goes on.
MAX_SLICE: Final = 500


class Clock(Protocol):
    """What a redrive needs of the standard library's ``time`` module to keep its rate."""

    def monotonic(self) -> float: ...
    def sleep(self, seconds: float, /) -> None: ...


class Skip(StrEnum):
    """Why a dead letter is not redriven."""

    CODE = "code not chosen"
    FOREIGN = "not a dead letter"
    ELSEWHERE = "not from the requests topic of its task"
    OMITTED = "its value is not in it"
    EMPTY = "neither key nor value, which kafka-python does not send"
    REDRIVEN = "redriven too often"
    TOO_LARGE = "larger than the requests topic accepts"


class Redriven(NamedTuple):
    """A request on its way back."""

    topic: str
    partition: int | None
    """Its own, where the topic still has it: producers choose partitions, and not all alike."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Judge:
    """Says of each dead letter what is sent for it, or why nothing is.

    Args:
        requests: The requests topics.
        codes: Those that are redriven.
        max_redrives: How often one request is redriven at most.
    """

    def __init__(self, requests: Mapping[str, Topic], codes: Collection[ErrorCode], max_redrives: int) -> None:
        self._requests = requests
        self._codes = codes
        self._max_redrives = max_redrives

    def __call__(self, letter: Letter) -> Redriven | Skip:
        record, reason, topic = letter.record, letter.reason, self._requests[letter.task]
        if reason is None:
            return Skip.FOREIGN
        count = _count(record)
        obstacles = {
            Skip.CODE: reason.code not in self._codes,
            Skip.ELSEWHERE: reason.topic != topic.name,
            Skip.OMITTED: reason.value_omitted is not None,
            Skip.EMPTY: record.key is None and record.value is None,
            Skip.REDRIVEN: count is None or count >= self._max_redrives,
        }
        if count is None or any(obstacles.values()):
            return next(skip for skip, holds in obstacles.items() if holds)
        # kafka-python sends no null as a header's value.
        kept = [(name, value or b"") for name, value in record.headers if not _is_ours(name)]
        headers = [*kept, (COUNT_HEADER, str(count + 1).encode())]
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(record.key, record.value, headers)
        if size > min(topic.limit, kafka_clients.MAX_REQUEST_SIZE):
            return Skip.TOO_LARGE
        partition = reason.partition if 0 <= reason.partition < topic.partitions else None
        return Redriven(topic.name, partition, record.key, record.value, headers)


def _count(record: Record) -> int | None:
    """Return how often the request was redriven; None where its count is no number."""
    told = [value or b"" for name, value in record.headers if name == COUNT_HEADER]
    if not told:
        return 0
    return int(told[-1]) if told[-1].isdigit() and len(told[-1]) <= COUNT_DIGITS else None


def _is_ours(name: str) -> bool:
    return name.startswith(HEADER_PREFIX) or name == COUNT_HEADER


class Sender:
    """An idempotent producer that is given up at the first failure.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.producer] cannot be used.
    """

    def __init__(self, settings: Settings, requests: Iterable[Topic]) -> None:
        arguments = kafka_clients.producer_arguments(settings, (topic.limit for topic in requests))
        self._patience = arguments["delivery_timeout_ms"] / 1000 + kafka_clients.FUTURE_GRACE
        self._client = kafka_clients.open_producer(arguments)

    def send(self, message: Redriven) -> Callable[[], Any]:
        """Send, and return what waits for the acknowledgement."""
        future = self._client.send(**message._asdict())
        return lambda: future.get(timeout=self._patience)

    def close(self) -> None:
        """End its threads, where it can: with the broker away they end with the process."""
        with contextlib.suppress(kafka_errors.KafkaError):
            self._client.close(timeout=kafka_clients.CLOSE_TIMEOUT)


def redrive(
    letters: Iterable[Letter],
    judge: Judge,
    send: Callable[[Redriven], Callable[[], Any]],
    rate: int,
    clock: Clock = time,
) -> Iterator[tuple[Letter, Redriven | Skip]]:
    """Send dead letters back, at most `rate` a second; yield each with its verdict once it is acknowledged or skipped.

    Raises:
        PublishError: one was not acknowledged; some of those behind it may have been sent.
    """
    waiting, due = iter(letters), clock.monotonic()
    size = min(max(rate // SLICES_PER_SECOND, 1), MAX_SLICE)
    while part := [(letter, judge(letter)) for letter in itertools.islice(waiting, size)]:
        now = clock.monotonic()
        if due > now:
            clock.sleep(due - now)
        due = max(due, now) + sum(isinstance(verdict, Redriven) for _, verdict in part) / rate
        letter = part[0][0]
        try:
            sent = [send(verdict) if isinstance(verdict, Redriven) else None for _, verdict in part]
            for (letter, verdict), acknowledged in zip(part, sent, strict=True):
                if acknowledged is not None:
                    acknowledged()
                yield letter, verdict
        except kafka_errors.KafkaError as error:
            raise PublishError(f"{letter.position} cannot be sent back: {type(error).__name__}: {error}") from None
