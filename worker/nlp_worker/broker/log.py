"""One partition's log: record batches as the raw bytes they came in, never decoded to be stored or fetched."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka.errors import UnsupportedCodecError
from kafka.record.default_records import DefaultRecordBatch

from nlp_worker.broker.errors import ErrorCode, RefusedError

if TYPE_CHECKING:
    import asyncio

#: The one broker never loses its leadership.
LEADER_EPOCH: Final = 0

#: As in Apache Kafka: an idempotent producer has at most five batches in flight per partition.
REMEMBERED_BATCHES: Final = 5

#: Sequence numbers are 31 bits wide and wrap to 0.
SEQUENCES: Final = 2**31

#: The record format since Kafka 0.11, the only one today's clients write.
MAGIC: Final = 2

#: What precedes the checksum and is the broker's to write: base offset, length of the rest, leader epoch.
PREFIX: Final = struct.Struct(">qii")

#: Bytes before the length's own count starts.
LENGTH_END: Final = 12

#: ListOffsets asks for these with a negative timestamp.
LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3


class StoredBatch(NamedTuple):
    """A record batch with its place in the log."""

    base_offset: int
    last_offset: int
    max_timestamp: int
    data: bytes


class Appended(NamedTuple):
    """The sequence numbers of a producer's batch, and where it went."""

    first: int
    last: int
    base_offset: int


class Producer:
    """What a partition remembers of an idempotent producer."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.appended: deque[Appended] = deque(maxlen=REMEMBERED_BATCHES)

    def repeated(self, header: Any) -> int | None:
        """Return the offset at which this very batch was appended before, if it was: its ack got lost."""
        if header.producer_epoch != self.epoch:
            return None
        sequences = (header.base_sequence, header.last_sequence)
        return next((old.base_offset for old in self.appended if (old.first, old.last) == sequences), None)

    def check(self, header: Any) -> None:
        if header.producer_epoch < self.epoch:
            raise RefusedError(ErrorCode.INVALID_PRODUCER_EPOCH)
        if header.producer_epoch > self.epoch:
            expected = 0
        elif self.appended:
            expected = (self.appended[-1].last + 1) % SEQUENCES
        else:
            return
        if header.base_sequence != expected:
            raise RefusedError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, f"expected sequence {expected}, got {header.base_sequence}"
            )

    def remember(self, header: Any, base_offset: int) -> None:
        if header.producer_epoch != self.epoch:
            self.epoch = header.producer_epoch
            self.appended.clear()
        self.appended.append(Appended(header.base_sequence, header.last_sequence, base_offset))


class PartitionLog:
    """An append-only list of batches. Nothing is ever deleted: the broker lives as long as a test or a demo."""

    def __init__(self) -> None:
        self.start_offset = 0
        self.end_offset = 0
        self.waiters: set[asyncio.Event] = set()
        self._batches: list[StoredBatch] = []
        self._base_offsets: list[int] = []
        self._timestamps: list[int] = []  # the highest up to each batch: sorted, where the batches' own need not be
        self._producers: dict[int, Producer] = {}

    def append(self, records: bytes, max_bytes: int) -> int:
        """Store one record batch and return its base offset."""
        header = checked_header(records, max_bytes)
        producer = None
        if header.has_producer_id():
            producer = self._producers.setdefault(header.producer_id, Producer(header.producer_epoch))
            repeated = producer.repeated(header)
            if repeated is not None:
                return repeated
            producer.check(header)
        base_offset = self._store(records, header)
        if producer is not None:
            producer.remember(header, base_offset)
        self.wake()
        return base_offset

    def _store(self, records: bytes, header: Any) -> int:
        base_offset = self.end_offset
        # The checksum starts behind the leader epoch, so both can be written without touching it.
        data = PREFIX.pack(base_offset, len(records) - LENGTH_END, LEADER_EPOCH) + records[PREFIX.size :]
        self.end_offset += header.last_offset_delta + 1
        self._batches.append(StoredBatch(base_offset, self.end_offset - 1, header.max_timestamp, data))
        self._base_offsets.append(base_offset)
        self._timestamps.append(max(header.max_timestamp, self._timestamps[-1] if self._timestamps else -1))
        return base_offset

    def wake(self) -> None:
        """Let every waiting fetch look again."""
        for waiter in self.waiters:
            waiter.set()

    def read(self, offset: int, max_bytes: int, *, at_least_one: bool) -> list[bytes]:
        """Return whole batches from the one that holds `offset` on, at most `max_bytes` of them together."""
        if not self.start_offset <= offset <= self.end_offset:
            raise RefusedError(ErrorCode.OFFSET_OUT_OF_RANGE)
        found: list[bytes] = []
        if offset == self.end_offset:
            return found
        for index in range(bisect_right(self._base_offsets, offset) - 1, len(self._batches)):
            data = self._batches[index].data
            # A record larger than the limit must still get through, or its consumer would be stuck for ever.
            if len(data) > max_bytes and (found or not at_least_one):
                break
            found.append(data)
            max_bytes -= len(data)
        return found

    def find(self, timestamp: int) -> tuple[int, int]:
        """Return offset and timestamp of the first record not older than `timestamp`, or what its code asks for."""
        if timestamp == EARLIEST:
            return self.start_offset, -1
        if timestamp == LATEST:
            return self.end_offset, -1
        if timestamp == MAX_TIMESTAMP:
            timestamp = self._timestamps[-1] if self._timestamps else 0
        index = bisect_left(self._timestamps, timestamp)
        if index == len(self._batches):
            return -1, -1
        return first_record(self._batches[index], timestamp)


def checked_header(records: bytes, max_bytes: int) -> Any:
    """Return the header of the one batch that `records` must be."""
    if len(records) < DefaultRecordBatch.HEADER_STRUCT.size:
        raise RefusedError(ErrorCode.CORRUPT_MESSAGE, "no record batch")
    header = DefaultRecordBatch(records)
    if header.magic != MAGIC:
        raise RefusedError(ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT, "only record format v2 is taken")
    if header.size_in_bytes < len(records):
        raise RefusedError(ErrorCode.INVALID_RECORD, "one batch per partition and request")
    if header.size_in_bytes > len(records) or not header.validate_crc():
        raise RefusedError(ErrorCode.CORRUPT_MESSAGE)
    if len(records) > max_bytes:
        raise RefusedError(ErrorCode.MESSAGE_TOO_LARGE, f"{len(records)} bytes, max.message.bytes is {max_bytes}")
    if header.is_control_batch or header.records_count < 1 or header.last_offset_delta != header.records_count - 1:
        raise RefusedError(ErrorCode.INVALID_RECORD)
    if header.is_transactional:
        raise RefusedError(ErrorCode.INVALID_TXN_STATE, "the embedded broker has no transactions")
    return header


def first_record(batch: StoredBatch, timestamp: int) -> tuple[int, int]:
    """Look inside a batch, the only time one is decoded; one of an absent codec counts as a whole."""
    try:
        for record in DefaultRecordBatch(batch.data):
            if record.timestamp >= timestamp:
                return record.offset, record.timestamp
    except UnsupportedCodecError:
        pass
    return batch.base_offset, batch.max_timestamp
