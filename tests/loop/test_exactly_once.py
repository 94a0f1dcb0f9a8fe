"""Exactly once on fakes: whatever fails in whatever order, each request has one answer, never two."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import REQUESTS, Bench, FakeConsumer, FakeExecutor, FakeKafka, FakeRecord
from nlp_worker.delivery import LIMIT_CHANGES, ExactlyOnce
from nlp_worker.errors import PublishError
from nlp_worker.parts import Limits
from nlp_worker.poll import Commit, Committed, LimitChanged, Message, Partition, Poll, TransactionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: How a transaction fails.
FAILURES = ("before", "after", "limit")
STEPS = st.lists(
    st.sampled_from(["step", "device", "move", "other", *FAILURES, "away", "crash", "send"]),
    max_size=60,
)

P0, P1 = Partition(REQUESTS, 0), Partition(REQUESTS, 1)


class Group(FakeKafka):
    """A group of two: our worker, and another member that has P1 whenever ours has not."""

    def __init__(self) -> None:
        super().__init__(2)
        self.generation = 1
        self.others: set[Partition] = set()
        self.moved: set[Partition] = set()
        self.answers: list[Message] = []

    def move(self, partition: Partition) -> None:
        """Rebalance: our worker hears of it in its next poll only."""
        self.generation += 1
        self.others ^= {partition}
        self.moved.add(partition)

    def other_member_works(self) -> None:
        for partition in self.others:
            if (offset := self.committed[partition]) < len(self.logs[partition]):
                record = self.logs[partition][offset]
                document = {"id": json.loads(record.value or b"")["id"]}
                self.answers.append(Message("results", None, json.dumps(document).encode(), []))
                self.committed[partition] += 1
                self.metadata.pop(partition, None)

    def ids(self) -> Counter[str]:
        return Counter(json.loads(m.value or b"")["id"] for m in self.answers)


class Member(FakeConsumer):
    """Ours."""

    def __init__(self, group: Group) -> None:
        super().__init__(group)
        self.group = group
        self.generation: int | None = group.generation
        self.take([p for p in self.positions if p in group.others])
        self.revoked.clear()

    @property
    def membership(self) -> int | None:
        return self.generation

    def poll(self, timeout_ms: int, max_records: int) -> list[FakeRecord]:
        self.generation = self.group.generation
        # One that came back before this member heard of it was lost all the same.
        self.take([p for p in self.positions if p in self.group.moved])
        self.group.moved.clear()
        self.give([p for p in self.group.logs if p not in self.positions and p not in self.group.others])
        return super().poll(timeout_ms, max_records)

    def begin(self, marks: Mapping[Partition, Commit], before: Mapping[Partition, Commit]) -> Committed:
        return super().begin(marks, before) if self.generation == self.group.generation else Committed.LATER

    def note_commit(self, partitions: object) -> None:
        """Nothing to keep."""


class Transactions:
    """A transactional producer whose next failures are scripted."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.failures: list[str] = []
        self.away = 0

    def transact(
        self, messages: Sequence[Message], offsets: Mapping[Partition, Commit], member: object, seconds: float
    ) -> Committed:
        assert seconds > 0
        failure = self.failures.pop(0) if self.failures else None
        if failure == "limit":
            raise LimitChanged
        # As a broker, which takes the offsets of no generation from anybody.
        if member is not None and member != self.group.generation:
            return Committed.LATER
        if failure == "before":
            raise TransactionFailed(failure)
        self.group.answers += [m for m in messages if m.topic.endswith("results")]
        self.group.committed.update({p: commit.offset for p, commit in offsets.items()})
        self.group.metadata.update({p: commit.metadata for p, commit in offsets.items()})
        if failure == "after":
            raise TransactionFailed(failure)
        return Committed.DONE

    def recover(self) -> bool:
        self.away -= 1
        return self.away < 0


class TransactionalBench(Bench):
    """A worker that delivers exactly once."""

    def __init__(self) -> None:
        super().__init__(2, at_once=False, limits=Limits(records=3))
        self.group = Group()
        self.transactions = Transactions(self.group)
        self.sent = 0
        self.restart()

    def do(self, step: str) -> None:
        if step in FAILURES:
            self.transactions.failures.append(step)
            return
        steps: dict[str, Callable[[], object]] = {
            "send": self.send,
            "step": self.worker.run_once,
            "device": self.compute,
            "move": lambda: self.group.move(P1),
            "other": self.group.other_member_works,
            "away": lambda: setattr(self.transactions, "away", 3),
            "crash": self.restart,
        }
        steps[step]()

    def compute(self) -> None:
        if self.executor.queue:
            self.executor.run_next()

    def send(self) -> None:
        for _ in range(3):
            self.group.send({"id": str(self.sent), "inputs": "x" * (self.sent % 5 + 1)}, partition=self.sent % 2)
            self.sent += 1

    def restart(self) -> None:
        self.member = Member(self.group)
        self.executor = FakeExecutor(at_once=False)
        self.worker = self.start(self.member, self.executor, self.exactly_once())

    def exactly_once(self) -> ExactlyOnce:
        def pause(seconds: float) -> None:
            self.clock.now += seconds

        return ExactlyOnce(self.transactions, self.member, self.clock, pause)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_interleaving_answers_a_request_twice_or_never(steps: list[str]) -> None:
    """Transactions that fail before or after their commit, brokers that are away, rebalances, crashes."""
    bench = TransactionalBench()
    for step in ["send", "send", "send", *steps]:
        bench.do(step)
        assert set(bench.group.ids().values()) <= {1}
    finish(bench)
    assert bench.group.ids() == Counter(map(str, range(bench.sent)))


def finish(bench: TransactionalBench) -> None:
    for _ in range(300):
        while bench.executor.queue:
            bench.executor.run_next()
        bench.worker.run_once()
        bench.group.other_member_works()
        if sum(bench.group.committed.values()) == bench.sent:
            return
    pytest.fail("the worker is stuck")


def deliver(bench: TransactionalBench) -> Committed:
    message = Message("results", None, b'{"id": "a"}', [])
    return bench.exactly_once().deliver(Poll([], {P0: 1}), lambda: [message], {P0: Commit(1)}, 30)


def test_a_transaction_that_was_committed_although_it_failed_is_not_repeated() -> None:
    """The group's committed offset tells."""
    bench = TransactionalBench()
    bench.transactions.failures = ["after"]
    assert deliver(bench) is Committed.DONE
    assert bench.group.ids() == {"a": 1}


def test_a_transaction_that_was_not_committed_is_tried_again() -> None:
    """Also where the broker is away for a while in between."""
    bench = TransactionalBench()
    bench.transactions.failures, bench.transactions.away = ["before", "before"], 5
    assert deliver(bench) is Committed.DONE
    assert bench.group.ids() == {"a": 1}


def test_a_member_without_a_generation_commits_nothing() -> None:
    """A broker takes offsets of no generation from anybody, so a member that was thrown out must not try."""
    bench = TransactionalBench()
    bench.member.generation = None
    assert deliver(bench) is Committed.LATER
    assert bench.group.ids() == {}


def test_a_broker_that_stays_away_ends_the_worker_and_nothing_is_committed() -> None:
    """Within the time that was given."""
    bench = TransactionalBench()
    bench.transactions.failures, bench.transactions.away = ["before"], 10_000
    began = bench.clock.now
    with pytest.raises(PublishError, match="could not be found out in time"):
        deliver(bench)
    assert 30 <= bench.clock.now - began < 31
    assert (bench.group.ids(), bench.group.committed[P0]) == ({}, 0)


def test_a_limit_that_never_holds_ends_the_worker() -> None:
    """A broker that contradicts itself is not asked for ever."""
    bench = TransactionalBench()
    bench.transactions.failures = ["limit"] * LIMIT_CHANGES
    with pytest.raises(PublishError, match="within the limit it states"):
        deliver(bench)
