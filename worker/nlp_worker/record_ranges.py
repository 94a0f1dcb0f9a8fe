"""What stands in topics now, read once from one offset to another: without a group, and committing nothing."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from kafka import errors as kafka_errors

from nlp_worker.errors import BrokerError, SettingsError, TopicError
from nlp_worker.kafka_clients import open_consumer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kafka import TopicPartition

    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

#: Milliseconds of one poll: what is asked for is there, so only a broker that is away lets it pass.
POLL_MS: Final = 200

#: Seconds without a record, a transaction's end or an answer, after which the broker counts as away: a leader's
#: failover takes 12.
ANSWER_SECONDS: Final = 30.0


class Position(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"

    @classmethod
    def parse(cls, text: str, topic: str | None = None) -> Self:
        """Read ``topic-partition-offset``, or ``partition:offset`` of the topic that is given.

        Raises:
            SettingsError: it is neither, or `topic` is not given.
        """
        if found := re.fullmatch(r"(.+)-(\d{1,9})-(\d{1,18})", text):
            return cls(found[1], int(found[2]), int(found[3]))
        if (found := re.fullmatch(r"(\d{1,9}):(\d{1,18})", text)) is None:
            raise SettingsError(f"{text!r} is no position: it is TOPIC-PARTITION-OFFSET, or PARTITION:OFFSET")
        if topic is None:
            raise SettingsError(f"{text} is a position in one topic: say of which task with --task")
        return cls(topic, int(found[1]), int(found[2]))


class RangeReader:
    """Reads ranges of records, one partition after the other.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        # What is asked for is there: a fetch that waited would hold up the next partition's.
        self._client = open_consumer(settings, group_id=None, fetch_max_wait_ms=0)

    def offsets(
        self, partitions: Collection[TopicPartition], since: int | None = None
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return where each partition begins and ends now.

        Args:
            partitions: Of any topics.
            since: Milliseconds since 1970: of each, from its first record that is not older.

        Raises:
            BrokerError: the broker stopped answering.
        """
        timeout = {"timeout_ms": int(ANSWER_SECONDS * 1000)}
        try:
            ends: dict[TopicPartition, int] = self._client.end_offsets(partitions, **timeout)
            starts: dict[TopicPartition, int] = self._client.beginning_offsets(partitions, **timeout)
            if since is not None:
                found = self._client.offsets_for_times(dict.fromkeys(partitions, since), **timeout)
                starts = {key: ends[key] if at is None else at.offset for key, at in found.items()}
        except kafka_errors.KafkaTimeoutError as error:
            raise BrokerError(f"the broker stopped answering: {error}") from None
        return starts, ends

    def records(self, partition: TopicPartition, start: int, end: int) -> Iterator[Record]:
        """Read a partition from the offset `start` to before `end`; not every offset has a record.

        Raises:
            BrokerError: the broker stopped answering.
            TopicError: a record cannot be read.
        """
        self._client.assign([partition])
        self._client.seek(partition, start)
        position, moved = start, time.monotonic()
        # The last offset may be a transaction's end, or compacted away: no record says that it is reached.
        while position < end:
            try:
                records = self._client.poll(timeout_ms=POLL_MS).get(partition, [])
            except kafka_errors.KafkaError as error:
                # Not polled again: after such an error kafka-python's poll never returns.
                where = Position(partition.topic, partition.partition, position)
                raise TopicError(f"{where} cannot be read: {type(error).__name__}: {error}") from None
            yield from (record for record in records if record.offset < end)
            reached = self._client.position(partition, timeout_ms=POLL_MS)
            if reached is not None and reached != position:
                position, moved = reached, time.monotonic()
            elif time.monotonic() - moved > ANSWER_SECONDS:
                where = Position(partition.topic, partition.partition, position)
                raise BrokerError(f"the broker did not send {where} for {ANSWER_SECONDS:.0f} s")

    def close(self) -> None:
        self._client.close(autocommit=False)
