"""Answers and dead letters as they come, for whoever wants to see them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka import errors as kafka_errors

from nlp_schemas import dead_letter_topic, results_topic
from nlp_worker import connection
from nlp_worker.dead_letters import Letter
from nlp_worker.errors import BrokerError, TopicError
from nlp_worker.kafka_clients import open_consumer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kafka import TopicPartition

    from nlp_schemas import DeadLetter
    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

#: Milliseconds of one poll: so late is Ctrl-C obeyed.
POLL_MS: Final = 200

#: Milliseconds for the broker to say where topics end.
LOOK_UP_TIMEOUT_MS: Final = 30_000


class Seen(NamedTuple):
    """An answer, or a dead letter."""

    record: Record
    task: str
    code: str
    """``ok``, or that of the error; empty where it cannot be read."""
    answer: dict[str, Any] | None
    """None for a dead letter, and for what is no JSON object."""
    letter: DeadLetter | None
    """None for an answer, and for what is no dead letter."""


class Tail:
    """Reads from now on, or from an earlier time on; in no group.

    Args:
        settings: Where.
        tasks: Whose topics.
        dead_letters: Whether dead letters are read too.
        since: Milliseconds since 1970; None is now.

    Raises:
        BrokerError: the broker cannot be reached.
        TopicError: a topic is missing or not allowed.
    """

    def __init__(
        self, settings: Settings, tasks: Collection[str], *, dead_letters: bool, since: int | None = None
    ) -> None:
        self._answers = {results_topic(task, settings.topic_prefix): task for task in tasks}
        letters = {dead_letter_topic(task, settings.topic_prefix): task for task in tasks}
        self._topics = {**self._answers, **(letters if dead_letters else {})}
        with contextlib.closing(connection.connect(settings)) as admin:
            connection.check_topics(admin, read=self._topics, write=[])
            partitions = connection.partitions_of(admin, self._topics)
        self._client = open_consumer(settings, group_id=None)
        try:
            self._client.assign(partitions)
            for partition, offset in self._starts(partitions, since).items():
                self._client.seek(partition, offset)
        except kafka_errors.KafkaError as error:
            self.close()
            raise BrokerError(f"the broker stopped answering: {type(error).__name__}: {error}") from None

    def _starts(self, partitions: list[TopicPartition], since: int | None) -> dict[TopicPartition, int]:
        timeout = {"timeout_ms": LOOK_UP_TIMEOUT_MS}
        ends: dict[TopicPartition, int] = self._client.end_offsets(partitions, **timeout)
        if since is None:
            return ends
        found = self._client.offsets_for_times(dict.fromkeys(partitions, since), **timeout)
        return {partition: ends[partition] if at is None else at.offset for partition, at in found.items()}

    def seen(self) -> Iterator[Seen]:
        """Give what comes, for ever.

        Raises:
            TopicError: a record cannot be read.
        """
        while True:
            try:
                polled = self._client.poll(timeout_ms=POLL_MS)
            except kafka_errors.KafkaError as error:
                raise TopicError(f"a topic cannot be read: {type(error).__name__}: {error}") from None
            for records in polled.values():
                yield from map(self._read, records)

    def _read(self, record: Record) -> Seen:
        task = self._topics[record.topic]
        if record.topic in self._answers:
            answer = _object(record.value)
            error = answer.get("error") if answer is not None else None
            code = error.get("code") if isinstance(error, dict) else answer and answer.get("status")
            return Seen(record, task, str(code or ""), answer, None)
        letter = Letter.of(record, task).reason
        return Seen(record, task, "" if letter is None else letter.code, None, letter)

    def close(self) -> None:
        self._client.close(autocommit=False)


def _object(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
