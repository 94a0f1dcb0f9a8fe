"""Sends many messages at once with kafka-python's producer: what its `send` does for each is done once for all.

`send` takes 40 us for a message, and the future that it returns 15 more on the producer's own thread: half of what a
request costs the worker beside its model. Here batches are filled first and handed to the producer whole; from there on
(sequence numbers, retries, time-outs, transactions) they are as any of its own.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.partitioner import murmur2
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kafka import KafkaProducer

    from nlp_worker.poll import Message

#: All of Kafka's clients drop the sign of a key's hash, so that a key has the same partition whoever sends it.
WITHOUT_SIGN: Final = 0x7FFF_FFFF


class Acknowledgement:
    """What the broker will say of one message: of kafka-python's future what is needed here."""

    __slots__ = ("_index", "_result")

    def __init__(self, result: Any, index: int) -> None:
        self._result = result
        self._index = index

    def rebind(self, result: Any, index: int) -> None:
        """Belong to another batch from now on: the producer calls this where it splits one that was too large."""
        before, self._result, self._index = self._result, result, index
        # The batch before never gets a result: who waits for it shall look again.
        before._latch.set()  # noqa: SLF001 - as kafka-python's own future does

    def get(self, timeout: float) -> None:
        """Return when the message is acknowledged.

        Raises:
            KafkaError: it was refused, or not acknowledged within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (result := self._result).is_done:
            if not result.wait(max(deadline - time.monotonic(), 0)):
                raise kafka_errors.KafkaTimeoutError(f"not acknowledged within {timeout:.1f} s")
        _offset, _timestamp, error_of = result.value
        if error_of is not None:
            raise error_of(self._index)


class _Batch(ProducerBatch):  # type: ignore[misc]  # kafka-python is untyped
    """One whose messages have an `Acknowledgement` each."""

    max_record_size: int

    def try_append(self, *content: Any, now: float | None = None) -> Any:
        """Take a message's timestamp, key, value and headers; return its acknowledgement, None where it is full."""
        del now
        record = self.records.append(*content)
        if record is None:
            return None
        self.max_record_size = max(self.max_record_size, record.size)
        acknowledgement = Acknowledgement(self.produce_future, record.offset)
        # Here the producer looks for them when it splits the batch.
        self._record_futures.append(acknowledgement)
        return acknowledgement


class _Topic:
    """A topic's partitions: that which a message names, that of its key, and one for all that have neither."""

    def __init__(self, client: KafkaProducer, name: str) -> None:
        numbers = client.partitions_for(name)
        self._partitions = [TopicPartition(name, number) for number in sorted(numbers)]
        with_leader = client._metadata.available_partitions_for_topic(name) or numbers  # noqa: SLF001
        self._any = TopicPartition(name, random.choice(sorted(with_leader)))  # noqa: S311 - no secret

    def partition(self, message: Message) -> TopicPartition:
        if message.partition is not None:
            return TopicPartition(message.topic, message.partition)
        if message.key is None:
            return self._any
        return self._partitions[(murmur2(message.key) & WITHOUT_SIGN) % len(self._partitions)]


def send_all(client: KafkaProducer, messages: Sequence[Message]) -> list[Acknowledgement]:
    """Send messages, those of a partition in their order; return the acknowledgement of each.

    Raises:
        KafkaError: the producer is closed, or a topic is unknown or may not be written to; nothing was sent.
    """
    if client._closed:  # noqa: SLF001 - as `send` does
        raise kafka_errors.IllegalStateError("the producer is closed")
    topics = {name: _Topic(client, name) for name in {message.topic for message in messages}}
    config = client._accumulator.config  # noqa: SLF001
    form = config["message_version"], config["compression_attrs"], config["batch_size"]
    filled: dict[TopicPartition, list[_Batch]] = {}
    acknowledgements = []
    for message in messages:
        partition = topics[message.topic].partition(message)
        batches = filled.setdefault(partition, [])
        content = None, message.key, message.value, message.headers
        acknowledgement = batches[-1].try_append(*content) if batches else None
        if acknowledgement is None:
            batches.append(_Batch(partition, MemoryRecordsBuilder(*form)))
            acknowledgement = batches[-1].try_append(*content)
        acknowledgements.append(acknowledgement)
    _hand_over(client, filled)
    return acknowledgements


def _hand_over(client: KafkaProducer, filled: Mapping[TopicPartition, Sequence[_Batch]]) -> None:
    """Do what `send` does with a batch that it has begun: nothing public takes one."""
    accumulator, transaction = client._accumulator, client._transaction_manager  # noqa: SLF001
    if transaction is not None and transaction.is_transactional():
        for partition in filled:
            transaction.maybe_add_partition_to_transaction(partition)
    for partition, batches in filled.items():
        with accumulator._tp_lock(partition):  # noqa: SLF001
            accumulator._batches[partition].extend(batches)  # noqa: SLF001
            for batch in batches:
                accumulator._incomplete.add(batch)  # noqa: SLF001
    client._sender.wakeup()  # noqa: SLF001
