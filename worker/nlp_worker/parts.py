"""What the loop needs of its parts, and what bounds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from nlp_worker.quarantine import MarkKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future

    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun, Commit, Committed, Membership, Message, Partition, Poll, Record


class Consumer(MarkKeeper, Protocol):
    """Where records come from. Only ever called from the control thread."""

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]: ...
    def take_revoked(self) -> Collection[Partition]:
        """Return what was revoked or lost since the last call, even if it has come back."""
        ...

    @property
    def assigned(self) -> bool: ...
    @property
    def membership(self) -> Membership | None:
        """None while this is no member of the group; from any thread."""
        ...

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def behind(self) -> Mapping[Partition, int]:
        """Return how many records of each partition were not polled yet, as far as the broker has told."""
        ...

    def restore(self) -> None:
        """Undo the marks of what was begun and not finished."""
        ...


class Delivery(Protocol):
    """How answers and offsets get to Kafka."""

    def deliver(
        self, poll: Poll, answers: Callable[[], Sequence[Message]], offsets: Mapping[Partition, Commit], seconds: float
    ) -> Committed:
        """Publish the answers of a poll and commit its offsets.

        Raises:
            PublishError: not within that time.
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

    def stop(self) -> None:
        """Give up what runs, and what has not begun."""
        ...


class Limits(NamedTuple):
    """What bounds a poll and its batches."""

    records: int = 1024
    """Also the most that wait in memory."""
    device_seconds: float = 5.0
    failures_in_a_row: int = 100
    """So many end the worker; 0 is never."""
    publish_seconds: float = 240.0
    """Below max.poll.interval.ms (300 s): while answers are published nothing is polled."""
