"""Header keys that are not UTF-8: Kafka's brokers take them, so such a record is read and answered like any other.

kafka-python reads a key as UTF-8, and takes a record with any other for corrupt: `poll()` then raises, at every start
anew, and whatever stands behind the record in its partition is never read.
"""

from __future__ import annotations

from typing import Any

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


class HeaderKey(str):
    """A header's key of any bytes; it encodes to the bytes that it was made of, so a dead letter has it unchanged."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        del errors  # of a client that knows only UTF-8
        return super().encode(encoding, "surrogateescape")


class _Part(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> str:
        del errors  # as above
        return HeaderKey(super().decode(encoding, "surrogateescape"))


class _Buffer(bytearray):
    """A batch whose parts decode whatever they are."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Part(found) if isinstance(index, slice) else found


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python is untyped
    _buffer: bytearray

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            # The batch's place moves only behind a record that was read: this one is read again.
            self._buffer = _Buffer(self._buffer)
            return super()._read_msg()


def accept_any_key() -> None:
    """Make every consumer of this process read header keys that are not UTF-8; they are of `HeaderKey`."""
    memory_records.DefaultRecordBatch = _Batch
