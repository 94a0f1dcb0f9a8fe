"""Poll: the unit of commit. A bounded run of polled records that is answered and committed together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence
    from concurrent.futures import Future

    from opentelemetry.trace import Span

    from nlp_schemas import Request, Stage
    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.tasks.base import Task


class Partition(NamedTuple):
    """A topic's partition; equal to kafka-python's ``TopicPartition`` of the same values."""

    topic: str
    partition: int


class Record(Protocol):
    """What is read of a record; kafka-python's ``ConsumerRecord`` has it."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...  # milliseconds since 1970, -1 where there is none
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class Message(NamedTuple):
    """A record to be published."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None = None
    """None is what follows from its key."""


class Reply(NamedTuple):
    """Where a request wants its answer."""

    topic: str
    partition: int | None
    """None is what follows from the request's key."""


class Commit(NamedTuple):
    """What is committed for a partition."""

    offset: int
    """The next one to read."""
    metadata: str = ""
    """What the worker that reads on needs to know (quarantine.Mark)."""


#: Who the consumer is in its group, with the generation: kafka-python's ``ConsumerGroupMetadata``, passed on unseen.
Membership = Any


class Committed(Enum):
    """What became of a commit."""

    DONE = auto()
    LATER = auto()
    """A rebalance is under way, or the coordinator cannot be reached: poll, then commit again."""
    LOST = auto()
    """The group moved on without this member: another one answers, and commits."""


class LimitChanged(Exception):  # noqa: N818 - a signal to build the answers again, not an error
    """A topic accepts less than it did: what is above its new limit must become an error answer."""


class TransactionFailed(Exception):  # noqa: N818 - a signal to find out whether it was committed
    """A transaction did not end as it should: it may have been committed or not."""


class BatchRun(NamedTuple):
    """What the device made of a batch."""

    outputs: Sequence[Any]
    """One for each row; the RequestError of a row that failed."""
    started: float
    """Seconds since 1970."""
    seconds: float
    fitted: int | None = None
    """Where the device's memory was short: tokens of the largest part of the batch that it was enough for, or 0."""
    idle: float = 0.0
    """Seconds that the device had nothing to do before it."""


@dataclass(slots=True, eq=False)
class Row:
    """What is batched: one line of a padded batch. A request becomes one or more."""

    features: dict[str, list[int]]
    """Token ids and what goes with them, all of one length, as the tokenizer gave them."""
    group: Hashable = None
    """Rows of one batch have the same: what the model takes once for all of its rows, or counts in each alike."""
    parameters: Any = None
    """What the forward does for this row and not for its neighbours; the task's own."""
    context: Any = None
    """What postprocess needs to know of the text that the row was made of; the task's own."""
    new_tokens: int = 0
    """The most tokens that the device adds to it."""
    beams: int = 1
    """Copies of it that the device keeps."""
    refills: bool = False
    """Whether another row of its batch may take its place when it has ended, before the others have."""
    origin: str = ""
    """The record that it came from, the same after a redelivery: what is random starts from it."""
    output: Any = None
    """What the forward returned for this row, or the RequestError that it ran into."""
    run: BatchRun | None = None
    """Of the batch that it was in, once that is back."""

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.features["input_ids"])

    @property
    def size(self) -> int:
        """Tokens that it takes on the device, with those that are added to it."""
        return (self.length + self.new_tokens) * self.beams


@dataclass(slots=True, eq=False)
class Entry:
    """One record of a poll, on its way from bytes to answer."""

    record: Record
    task_name: str
    request: Request | None = None
    task: Task | None = None
    rows: list[Row] = field(default_factory=list)
    truncated: bool = False
    output_bytes: int = 0
    """Estimated size of the answer."""
    error: RequestError | None = None
    stage: Stage | None = None
    """Where the error happened."""
    request_id: str = ""
    reply: Reply | None = None
    """Where the answer goes; None is the results topic."""
    event: bool = False
    """Whether the request is a CloudEvent, and so its answer."""
    read: bool = False
    """Whether it was decoded and preprocessed, with rows or an error as the outcome."""
    attempt: int = 1
    """How often it was tried; above one only where a process ended over it."""
    deadline: float = math.inf
    """Seconds since 1970 after which it is not computed any more."""
    polled: float = 0.0
    """When it was polled, in seconds since 1970."""
    span: Span | None = None
    """Where it is traced; from then on its answer names it."""

    @property
    def partition(self) -> Partition:
        return Partition(self.record.topic, self.record.partition)

    @property
    def request_bytes(self) -> int:
        return len(self.record.value or b"")

    @property
    def tokens(self) -> int:
        return sum(row.length for row in self.rows)

    @property
    def size(self) -> int:
        """Tokens that its rows take on the device."""
        return sum(row.size for row in self.rows)

    @property
    def origin(self) -> str:
        """What identifies the record, today and when it is delivered again."""
        return f"{self.record.topic}-{self.record.partition}-{self.record.offset}"

    @property
    def runs(self) -> list[BatchRun]:
        """The batches that its rows were in, each once."""
        return list({id(row.run): row.run for row in self.rows if row.run is not None}.values())

    def fail(self, error: RequestError, stage: Stage) -> None:
        """Keep the first error and where it happened: later stages skip the entry."""
        if self.error is None:
            self.error, self.stage = error, stage
            self.rows = []


class Work(NamedTuple):
    """A batch on the device."""

    future: Future[BatchRun]
    batch: Batch


@dataclass(slots=True, eq=False)
class Poll:
    """Entries in offset order, the device's work on them, and the offsets that answering them allows to commit."""

    entries: list[Entry]
    offsets: dict[Partition, int]
    """The *next* offset to read of each partition, which is what Kafka commits."""
    work: list[Work] = field(default_factory=list)
    published: bool = False
    """Its answers are acknowledged, and only their commit is missing."""
    alone: bool = False
    """Nothing may be in flight beside it."""
    device_seconds: float = 0.0
    """What it was said to take when it was planned."""
    began: float = 0.0
    """When it was the device's turn, in seconds of the monotonic clock."""

    @classmethod
    def of(cls, entries: list[Entry], *, alone: bool = False) -> Poll:
        # Entries of a partition are in offset order, so its last one counts.
        return cls(entries, {entry.partition: entry.record.offset + 1 for entry in entries}, alone=alone)

    @property
    def done(self) -> bool:
        return all(work.future.done() for work in self.work)

    @property
    def empty(self) -> bool:
        return not self.offsets

    def rows_by_task(self) -> dict[Task, list[Row]]:
        """Return what the device has to do."""
        rows: dict[Task, list[Row]] = {}
        for entry in self.entries:
            if entry.task is not None and entry.rows:
                rows.setdefault(entry.task, []).extend(entry.rows)
        return rows

    def disown(self, partitions: Collection[Partition]) -> None:
        """Give up what belongs to these partitions: another member answers it, and commits it.

        For good: when a partition comes back its records are fetched again and arrive in a new poll. Work of a poll
        that is given up whole is cancelled where the device has not begun it.
        """
        self.offsets = {partition: offset for partition, offset in self.offsets.items() if partition not in partitions}
        self.entries = [entry for entry in self.entries if entry.partition not in partitions]
        if self.empty:
            self.cancel()

    def cancel(self) -> None:
        for work in self.work:
            work.future.cancel()
