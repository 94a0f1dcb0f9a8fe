"""What the loop needs of its parts, and what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from concurrent.futures import Future

    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun, Committed, Message, Partition, Record


class Consumer(Protocol):
    """Where records come from. Only ever called from the control thread."""

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]: ...
    def take_revoked(self) -> Collection[Partition]:
        """Return what was revoked or lost since the last call, even if it has come back."""
        ...

    @property
    def assigned(self) -> bool: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def commit(self, offsets: Mapping[Partition, int]) -> Committed: ...


class Publisher(Protocol):
    """Where answers go."""

    def publish(self, messages: Sequence[Message], timeout: float) -> None:
        """Send, and return when every message is acknowledged.

        Raises:
            LimitChanged: a topic accepts less than it did.
            PublishError: not acknowledged within ``timeout`` seconds.
        """
        ...


class Executor(Protocol):
    """The device thread."""

    def submit(self, batch: Batch) -> Future[BatchRun]:
        """Run a batch when those before it are done; never raises for a bad row."""
        ...

    def wait(self, futures: Sequence[Future[BatchRun]], seconds: float) -> None:
        """Return when all are done, or after that many seconds."""
        ...


class Limits(NamedTuple):
    """What bounds a poll and its batches."""

    records: int = 1024
    """Also the most that wait in memory."""
    device_seconds: float = 5.0
    padded_tokens: int = 4096
    """Of one batch."""
    publish_seconds: float = 240.0
    """Below max.poll.interval.ms (300 s): while answers are published nothing is polled."""
