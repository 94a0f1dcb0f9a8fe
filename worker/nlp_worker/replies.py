"""The answers to a client's requests, as they come: one consumer on a thread of its own, in no group."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple

from kafka import TopicPartition
from kafka import errors as kafka_errors

from nlp_worker.errors import BrokerError
from nlp_worker.kafka_clients import open_consumer

if TYPE_CHECKING:
    from nlp_worker.pending import Waiting
    from nlp_worker.settings import Settings

#: Milliseconds of one poll, which returns at once when there is an answer: so late are time-outs and new topics seen.
POLL_MS: Final = 100

#: Seconds for the broker to say where a topic ends.
LOOK_UP_SECONDS: Final = 30.0

#: Seconds for the thread to end, which is inside a poll.
CLOSE_SECONDS: Final = 5.0


class _Topic(NamedTuple):
    """What is to be read from now on."""

    name: str
    partitions: int
    followed: Future[None]
    """Done when every answer to what is sent from then on will be seen."""


class Replies:
    """Reads topics from their ends on.

    Args:
        settings: For Kafka's client.
        waiting: Takes each record, and hears when no more can be read.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """

    def __init__(self, settings: Settings, waiting: Waiting) -> None:
        self._client = open_consumer(settings, group_id=None)
        self._waiting = waiting
        self._topics: SimpleQueue[_Topic | None] = SimpleQueue()
        self._partitions: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
        self._thread.start()

    def follow(self, topic: str, partitions: int) -> None:
        """Return when every record that is written to the topic from now on will be seen.

        Raises:
            BrokerError: the broker does not say where the topic ends, or nothing can be read any more.
        """
        followed: Future[None] = Future()
        self._topics.put(_Topic(topic, partitions, followed))
        try:
            followed.result(2 * LOOK_UP_SECONDS)
        except (kafka_errors.KafkaError, TimeoutError) as error:
            raise BrokerError(f"topic {topic} cannot be read: {type(error).__name__}: {error}") from None

    def close(self) -> None:
        self._topics.put(None)
        if threading.current_thread() is not self._thread:  # a future's callback may close the client
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        try:
            while self._begin():
                if self._partitions:
                    self._read()
                self._waiting.expire()
        except Exception as error:  # noqa: BLE001 - whatever it is, no answer will ever come: everybody who waits is told
            self._waiting.end(BrokerError(f"answers cannot be read any more: {type(error).__name__}: {error}"))
        finally:
            self._client.close(autocommit=False)

    def _begin(self) -> bool:
        """Begin to read the topics that were asked for; False when it is over."""
        try:
            # Without a topic there is nothing to poll, and so nothing else to wait for.
            topic = self._topics.get(block=not self._partitions)
        except Empty:
            return True
        if topic is None:
            return False
        try:
            if topic.name not in self._partitions:
                partitions = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
                self._assign(self._client.end_offsets(partitions, timeout_ms=int(LOOK_UP_SECONDS * 1000)))
                self._partitions[topic.name] = topic.partitions
            topic.followed.set_result(None)
        except Exception as error:  # noqa: BLE001 - as raised to whoever asked
            topic.followed.set_exception(error)
        return True

    def _assign(self, positions: dict[TopicPartition, int]) -> None:
        self._client.assign([*self._client.assignment(), *positions])
        for partition, offset in positions.items():
            self._client.seek(partition, offset)

    def _read(self) -> None:
        for records in self._client.poll(timeout_ms=POLL_MS).values():
            for record in records:
                self._waiting.take(record)
        for topic, count in self._partitions.items():
            now = len(self._client.partitions_for_topic(topic) or ())
            if now > count:  # what is new has nothing that was not written since we began
                self._assign({TopicPartition(topic, number): 0 for number in range(count, now)})
                self._partitions[topic] = now
