"""How the answers of a poll and its offsets get to Kafka: at least once, or exactly once."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import structlog

from nlp_worker.errors import PublishError
from nlp_worker.poll import Committed, LimitChanged, TransactionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from nlp_worker.clock import Clock
    from nlp_worker.poll import Commit, Membership, Message, Partition, Poll

Outcome = TypeVar("Outcome")

log = structlog.get_logger()

#: How often a poll's answers are built again because a topic's limit shrank meanwhile. Each time the limit is read
#: anew or lowered, so this is only reached when the broker contradicts itself.
LIMIT_CHANGES: Final = 10

#: Seconds between two tries of a transaction: a broker that refuses at once is not asked a thousand times a second.
RETRY_PAUSE: Final = 0.1


class Publisher(Protocol):
    """Where answers go."""

    def publish(self, messages: Sequence[Message], seconds: float) -> None:
        """Send, and return when every message is acknowledged.

        Raises:
            LimitChanged: a topic accepts less than it did.
            PublishError: not acknowledged within that time.
        """
        ...


class TransactionalPublisher(Protocol):
    """Where answers and offsets go together."""

    def transact(
        self, messages: Sequence[Message], offsets: Mapping[Partition, Commit], member: Membership, seconds: float
    ) -> Committed:
        """Publish and commit in one transaction: DONE, or LATER where the group has moved on and nothing was committed.

        Raises:
            LimitChanged: a topic accepts less than it did, and nothing was committed.
            TransactionFailed: it may have been committed or not.
        """
        ...

    def recover(self) -> bool:
        """End a transaction that failed, so that its outcome can be read; whether the broker could be reached."""
        ...


class Member(Protocol):
    """Whose offsets they are, where answers are published first."""

    @property
    def membership(self) -> Membership | None:
        """What fences a transaction when the group moves on; None while this is no member, or rejoins."""
        ...

    def commit(self, offsets: Mapping[Partition, Commit]) -> Committed: ...


class TransactionalMember(Protocol):
    """Whose offsets they are, where a transaction commits them."""

    @property
    def membership(self) -> Membership | None: ...

    def committed(self, partitions: Collection[Partition]) -> Mapping[Partition, Commit] | None:
        """Return what the group has committed; None while the broker does not say."""
        ...

    def note_commit(self, partitions: Iterable[Partition]) -> None:
        """Keep in mind that a transaction has committed offsets of these, or may have."""
        ...


class AtLeastOnce:
    """Publish, then commit: after a failure in between some answers are there twice."""

    def __init__(self, publisher: Publisher, consumer: Member, clock: Clock = time) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._clock = clock

    def deliver(
        self, poll: Poll, answers: Callable[[], Sequence[Message]], offsets: Mapping[Partition, Commit], seconds: float
    ) -> Committed:
        """Publish what was not published yet, and commit.

        Raises:
            PublishError: the answers are not acknowledged within that time.
        """
        if not poll.published:
            # Its commit would be put off, and what the group takes away meanwhile would be answered twice.
            if self._consumer.membership is None:
                return Committed.LATER
            deadline = self._clock.monotonic() + seconds
            publish = self._publisher.publish
            _within_limits(answers, lambda messages: publish(messages, deadline - self._clock.monotonic()))
            poll.published = True
        return self._consumer.commit(offsets)


class ExactlyOnce:
    """Answers, dead letters and offsets in one Kafka transaction (KIP-98, KIP-447).

    A transaction begins and ends within one call, so none ever spans a poll. Whether one that failed was committed is
    read from the group's offsets, once a new producer of the same transactional id has ended it.
    """

    def __init__(
        self,
        publisher: TransactionalPublisher,
        consumer: TransactionalMember,
        clock: Clock = time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._publisher = publisher
        self._consumer = consumer
        self._clock = clock
        self._pause = pause

    def deliver(
        self, poll: Poll, answers: Callable[[], Sequence[Message]], offsets: Mapping[Partition, Commit], seconds: float
    ) -> Committed:
        """Commit answers and offsets together.

        Raises:
            PublishError: no transaction succeeded within that time.
        """
        deadline = self._clock.monotonic() + seconds
        reason: object = "the broker is away"
        while (left := deadline - self._clock.monotonic()) > 0:
            # Without a generation the broker would accept the offsets of a member that the group has given up.
            if (member := self._consumer.membership) is None:
                return Committed.LATER
            transact = functools.partial(self._publisher.transact, offsets=offsets, member=member, seconds=left)
            try:
                committed = _within_limits(answers, transact)
            except TransactionFailed as failure:
                reason = failure
                log.warning("transaction_failed", reason=str(reason), records=len(poll.entries))
                self._consumer.note_commit(offsets)
                if not self._is_committed(offsets, deadline):
                    continue
                return Committed.DONE
            if committed is Committed.DONE:
                self._consumer.note_commit(offsets)
            return committed
        raise PublishError(f"{len(poll.entries)} answers could not be committed in a transaction in time: {reason}")

    def _is_committed(self, offsets: Mapping[Partition, Commit], deadline: float) -> bool:
        """Find out what became of a transaction that failed: all of its offsets were committed, or none."""
        while self._clock.monotonic() < deadline:
            if self._publisher.recover() and (committed := self._consumer.committed(list(offsets))) is not None:
                # Above ours: the transaction was committed, and another member went on from there.
                return all(
                    partition in committed and committed[partition].offset >= commit.offset
                    for partition, commit in offsets.items()
                )
            self._pause(RETRY_PAUSE)
        raise PublishError("whether a transaction was committed could not be found out in time: the broker is away")


def _within_limits(answers: Callable[[], Sequence[Message]], send: Callable[[Sequence[Message]], Outcome]) -> Outcome:
    """Send; where a topic's limit shrank meanwhile, build the answers again: what is too large becomes an error."""
    for _ in range(LIMIT_CHANGES):
        try:
            return send(answers())
        except LimitChanged as change:
            log.warning("limit_changed", reason=str(change))
    raise PublishError("the broker refuses answers as too large that are within the limit it states")
