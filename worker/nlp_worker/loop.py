"""The control loop: settle, poll, disown, start. It knows its parts as Protocols, and neither Kafka nor torch.

One control thread and one device thread. The device thread is first-in first-out, so polls finish in the order in
which they were started, and committing the oldest finished one is always right: no offset tracker, no locks.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from nlp_worker.batching import Batch, Rate, plan
from nlp_worker.errors import PublishError
from nlp_worker.parts import Limits
from nlp_worker.poll import Committed, Entry, LimitChanged, Poll, Record, Row, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.answering import Answering
    from nlp_worker.clock import Clock
    from nlp_worker.intake import Intake
    from nlp_worker.parts import Consumer, Executor, Publisher
    from nlp_worker.tasks.base import Task

log = structlog.get_logger()

#: One on the device and one behind it, so that the device never waits for Kafka; more would only wait here.
POLLS_IN_FLIGHT: Final = 2

#: Milliseconds. Short enough for signals and for the device, long enough to join a group: a member that polls for 10 ms
#: or less never joins.
LONG_POLL_MS: Final = 200

#: Seconds between long polls while the device is busy: how late a rebalance may be noticed.
LONG_POLL_INTERVAL: Final = 1.0

#: Bytes of requests that are decoded, and of answers that are built, for one poll: what it holds in memory.
POLL_REQUEST_BYTES: Final = 8 * 2**20
POLL_ANSWER_BYTES: Final = 64 * 2**20

#: How often a poll's answers are built again because a topic's limit shrank meanwhile. Each time the limit is read
#: anew or lowered, so this is only reached when the broker contradicts itself.
LIMIT_CHANGES: Final = 10


class Worker:
    """Answers what the consumer gives, publishes, and commits."""

    def __init__(
        self,
        consumer: Consumer,
        publisher: Publisher,
        executor: Executor,
        intake: Intake,
        answering: Answering,
        *,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        clock: Clock = time,
    ) -> None:
        self._consumer = consumer
        self._publisher = publisher
        self._executor = executor
        self._intake = intake
        self._answering = answering
        self._limits = limits
        self._clock = clock
        self._waiting: deque[Entry] = deque()
        self._polls: deque[Poll] = deque()
        self._rates: dict[Task, Rate] = {}
        self._stopping = False
        self._last_long_poll = clock.monotonic()

    def stop(self) -> None:
        """Make ``run`` return after its current step; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            self.run_once()

    def run_once(self) -> None:
        """Do one step; blocks for about LONG_POLL_MS at most, publishing apart."""
        self._settle(self._limits.publish_seconds)
        records = self._poll()
        # Before the records are taken: those of a partition that was lost and has come back are new.
        self._disown()
        self._waiting.extend(map(self._intake.entry, records))
        self._start()

    def drain(self, seconds: float) -> None:
        """Finish, publish and commit the polls in flight; what is not done in time is given up uncommitted."""
        deadline = self._clock.monotonic() + seconds
        self._waiting.clear()
        self._consumer.pause()
        while self._polls and (left := deadline - self._clock.monotonic()) > 0:
            self._wait_for_device(min(left, LONG_POLL_MS / 1000))
            try:
                self._settle(left)
            except PublishError as error:
                log.exception("drain_failed", reason=str(error))
                break
            if self._rebalancing:
                # The group waits for this member to rejoin, and accepts its commit only then.
                self._long_poll(max_records=1)
                self._disown()
                self._consumer.pause()
        self._give_up()

    def _give_up(self) -> None:
        for poll in self._polls:
            log.warning("given_up", records=len(poll.entries), published=poll.published)
            poll.cancel()
        self._polls.clear()

    def _settle(self, publish_seconds: float) -> None:
        """Publish and commit what is finished, oldest first."""
        while self._polls and self._polls[0].done and self._settle_oldest(self._polls[0], publish_seconds):
            self._polls.popleft()

    def _settle_oldest(self, poll: Poll, publish_seconds: float) -> bool:
        if not poll.published:
            for work in poll.work:
                self._land(work)
            self._publish(poll, publish_seconds)
        committed = self._consumer.commit(poll.offsets)
        if committed is Committed.LOST:
            log.warning("commit_lost", records=len(poll.entries))
        elif committed is Committed.DONE:
            log.info("commit", records=len(poll.entries), partitions=len(poll.offsets))
        return committed is not Committed.LATER

    def _land(self, work: Work) -> None:
        """Give each row its output. Reading every future is what makes a dead device thread a dead process."""
        run = work.future.result()
        for row, output in zip(work.rows, run.outputs, strict=True):
            row.output, row.run = output, run
        batch = Batch(work.task, work.rows)
        self._rate(work.task).learn(batch.size, run.seconds)
        log.info(
            "batch",
            task=work.task.name,
            model=work.task.model.name,
            rows=len(batch.rows),
            tokens=batch.tokens,
            padded_tokens=batch.padded_tokens,
            device_ms=round(run.seconds * 1000, 1),
        )

    def _publish(self, poll: Poll, seconds: float) -> None:
        deadline = self._clock.monotonic() + seconds
        for _ in range(LIMIT_CHANGES):
            messages = [message for entry in poll.entries for message in self._answering.messages(entry)]
            try:
                self._publisher.publish(messages, deadline - self._clock.monotonic())
            except LimitChanged as change:
                log.warning("limit_changed", reason=str(change))
                continue
            poll.published = True
            self._log_failures(poll)
            return
        raise PublishError("the broker refuses answers as too large that are within the limit it states")

    def _log_failures(self, poll: Poll) -> None:
        for entry in poll.entries:
            if entry.error is not None:
                cause = type(entry.error.__cause__ or entry.error).__name__
                log.warning(
                    "request_failed",
                    task=entry.task_name,
                    code=entry.error.code,
                    stage=entry.stage,
                    exception=cause,
                    topic=entry.record.topic,
                    partition=entry.record.partition,
                    offset=entry.record.offset,
                )

    @property
    def _rebalancing(self) -> bool:
        """Whether a commit was put off: the group waits for this member to poll, and no new work is taken."""
        return bool(self._polls and self._polls[0].published)

    @property
    def _full(self) -> bool:
        return len(self._polls) >= POLLS_IN_FLIGHT or self._rebalancing

    def _poll(self) -> Sequence[Record]:
        room = self._limits.records - len(self._waiting)
        if self._full or room <= 0:
            self._consumer.pause()
            finished = self._wait_for_device(LONG_POLL_MS / 1000)
            if self._must_poll_long(busy=not finished):
                return self._long_poll(max_records=max(room, 1))
            return self._consumer.poll(0, max(room, 1))
        self._consumer.resume()
        if not self._polls or self._must_poll_long(busy=True):
            return self._long_poll(max_records=room)
        records = self._consumer.poll(0, room)
        if not records and not self._waiting:
            self._wait_for_device(LONG_POLL_MS / 1000)
        return records

    def _must_poll_long(self, *, busy: bool) -> bool:
        # While polls finish within milliseconds a long poll would leave the device idle: one step later is soon enough.
        overdue = self._clock.monotonic() - self._last_long_poll > LONG_POLL_INTERVAL
        return self._rebalancing or not self._consumer.assigned or (busy and overdue)

    def _long_poll(self, max_records: int) -> Sequence[Record]:
        records = self._consumer.poll(LONG_POLL_MS, max_records)
        self._last_long_poll = self._clock.monotonic()
        return records

    def _wait_for_device(self, seconds: float) -> bool:
        """Wait for the oldest poll; return whether it is finished."""
        if not self._polls:
            return False
        self._executor.wait([work.future for work in self._polls[0].work], seconds)
        return self._polls[0].done

    def _disown(self) -> None:
        """Take what was revoked out of every poll and of the deque.

        Without this the offsets of a partition that another member owns by now would be committed: the broker checks
        a commit's member and generation, not who owns the partition.
        """
        revoked = frozenset(self._consumer.take_revoked())
        if not revoked:
            return
        for poll in self._polls:
            poll.disown(revoked)
        self._polls = deque(poll for poll in self._polls if not poll.empty)
        self._waiting = deque(entry for entry in self._waiting if entry.partition not in revoked)

    def _start(self) -> None:
        while self._waiting and not self._full:
            poll = Poll.of(self._cut())
            for task, rows in _rows_by_task(poll.entries).items():
                for batch in plan(task, rows, budget=self._limits.padded_tokens):
                    poll.work.append(Work(self._executor.submit(batch), task, batch.rows))
            self._polls.append(poll)

    def _cut(self) -> list[Entry]:
        """Take entries in offset order until a bound of a poll is reached; one entry may exceed a bound alone."""
        self._read_ahead()
        taken: list[Entry] = []
        seconds, answer_bytes = 0.0, 0
        while self._waiting and self._waiting[0].read:
            entry = self._waiting[0]
            seconds += self._device_seconds(entry)
            answer_bytes += entry.output_bytes
            if taken and (seconds > self._limits.device_seconds or answer_bytes > POLL_ANSWER_BYTES):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _read_ahead(self) -> None:
        """Decode and preprocess the next entries, as many as a poll could take."""
        unread: list[Entry] = []
        request_bytes = 0
        for entry in self._waiting:
            request_bytes += entry.request_bytes
            if unread and request_bytes > POLL_REQUEST_BYTES:
                break
            if not entry.read:
                unread.append(entry)
        self._intake.read(unread)

    def _device_seconds(self, entry: Entry) -> float:
        return entry.size * self._rate(entry.task).seconds_per_token if entry.task is not None else 0.0

    def _rate(self, task: Task) -> Rate:
        return self._rates.setdefault(task, Rate())


def _rows_by_task(entries: Sequence[Entry]) -> dict[Task, list[Row]]:
    rows: dict[Task, list[Row]] = {}
    for entry in entries:
        if entry.task is not None and entry.rows:
            rows.setdefault(entry.task, []).extend(entry.rows)
    return rows
