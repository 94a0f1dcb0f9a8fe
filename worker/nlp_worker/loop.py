"""The control loop: settle, poll, disown, start. It knows its parts as Protocols, and neither Kafka nor torch.

One control thread and one device thread. The device thread is first-in first-out, so polls finish in the order in
which they were started, and committing the oldest finished one is always right: no offset tracker, no locks.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from nlp_worker.answering import log_failures
from nlp_worker.breaker import Breaker
from nlp_worker.errors import PublishError
from nlp_worker.lag import Lag
from nlp_worker.metrics import count_answers
from nlp_worker.parts import Limits
from nlp_worker.poll import Committed, Message, Poll, Record, Work
from nlp_worker.quarantine import Quarantine
from nlp_worker.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.answering import Answering
    from nlp_worker.clock import Clock
    from nlp_worker.intake import Intake
    from nlp_worker.parts import Consumer, Delivery, Executor
    from nlp_worker.planner import Planner
    from nlp_worker.tracing import Tracing

log = structlog.get_logger()

#: One on the device and one behind it, so that the device never waits for Kafka; more would only wait here.
POLLS_IN_FLIGHT: Final = 2

#: Milliseconds. Short enough for signals and for the device, long enough to join a group: a member that polls for 10 ms
#: or less never joins.
LONG_POLL_MS: Final = 200

#: Seconds between long polls while the device is busy: how late a rebalance may be noticed.
LONG_POLL_INTERVAL: Final = 1.0

#: Milliseconds of a long poll beside work that will be done sooner: its answers wait meanwhile.
SHORT_LONG_POLL_MS: Final = 50

#: Seconds before the device runs dry at which the next poll is cut at the latest: what planning it takes, and what this
#: thread may be busy with meanwhile.
LATEST_CUT: Final = 0.1

#: Part of what a poll was said to take that it may be sooner done: so much earlier the next one is cut.
SOONER: Final = 0.25


class Worker:
    """Answers what the consumer gives, publishes, and commits."""

    def __init__(
        self,
        consumer: Consumer,
        delivery: Delivery,
        executor: Executor,
        intake: Intake,
        answering: Answering,
        *,
        planner: Planner,
        limits: Limits = Limits(),  # noqa: B008 - immutable
        clock: Clock = time,
        tracing: Tracing | None = None,
    ) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._executor = executor
        self._intake = intake
        self._answering = answering
        self._limits = limits
        self._clock = clock
        self._polls: deque[Poll] = deque()
        self._lag = Lag(consumer, planner, clock)
        # Two polls, and what waits.
        self._quarantine = Quarantine(consumer, (POLLS_IN_FLIGHT + 1) * limits.records, self._lag.request_seconds)
        self._waiting = Waiting(intake, planner, self._quarantine, limits)
        self._breaker = Breaker(limits.failures_in_a_row)
        self._planner = planner
        self._tracing = tracing
        self._deferred: Poll | None = None
        self._held = False
        self._stopping = False
        #: Counts on while the control thread moves.
        self.steps = 0
        self._last_long_poll = clock.monotonic()

    def stop(self) -> None:
        """Make ``run`` return after its current step; safe in a signal handler."""
        self._stopping = True

    @property
    def joined(self) -> bool:
        """Whether it is a member of its group; from any thread."""
        return self._consumer.membership is not None

    def run(self) -> None:
        while not self._stopping:
            self.run_once()

    def run_once(self) -> None:
        """Do one step; blocks for about LONG_POLL_MS at most, publishing apart."""
        self.steps += 1
        self._settle(self._limits.publish_seconds)
        records = self._poll()
        # Before the records are taken: those of a partition that was lost and has come back are new.
        self._disown()
        self._waiting.add(records)
        self._start()
        self._lag.look(itertools.chain(self._waiting, *(poll.entries for poll in self._polls)))

    def drain(self, seconds: float) -> None:
        """Finish, publish and commit the polls in flight; what is not done in time is given up uncommitted.

        A generation that is still running at the end is stopped at its next token.
        """
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
        self._executor.stop()
        for poll in self._polls:
            log.warning("given_up", records=len(poll.entries), published=poll.published)
            poll.cancel()
        self._polls.clear()
        self._consumer.restore()

    def _settle(self, publish_seconds: float) -> None:
        """Publish and commit what is finished, oldest first."""
        while self._polls and self._polls[0].done and self._settle_oldest(self._polls[0], publish_seconds):
            self._polls.popleft()
            if self._polls:
                self._polls[0].began = self._clock.monotonic()

    def _settle_oldest(self, poll: Poll, publish_seconds: float) -> bool:
        for work in poll.work:
            self._land(work)
        if self._tracing is not None:
            self._tracing.begin(poll)
        poll.work = []
        offsets = self._quarantine.commits(poll.offsets)
        published = poll.published
        committed = self._delivery.deliver(poll, lambda: self._answers(poll), offsets, publish_seconds)
        if not published and (poll.published or committed is Committed.DONE):
            self._breaker.settle(poll.entries)
            count_answers(poll.entries)
            log_failures(poll.entries)
            if self._tracing is not None:
                self._tracing.end(poll.entries)
        self._deferred = poll if committed is Committed.LATER else None
        if committed is Committed.LOST:
            log.warning("commit_lost", records=len(poll.entries))
        elif committed is Committed.DONE:
            self._quarantine.progress(poll.offsets)
            log.info("commit", records=len(poll.entries), partitions=len(poll.offsets))
        return committed is not Committed.LATER

    def _answers(self, poll: Poll) -> list[Message]:
        messages = [message for entry in poll.entries for message in self._answering.messages(entry)]
        # Only now is known what postprocess makes of the outputs.
        self._breaker.judge(poll.entries)
        return messages

    def _land(self, work: Work) -> None:
        """Give each row its output. Reading every future is what makes a dead device thread a dead process."""
        run = work.future.result()
        work.batch.land(run)
        self._planner.learn(work.batch, run)

    @property
    def _rebalancing(self) -> bool:
        """Whether a commit was put off: the group waits for this member to poll."""
        return self._deferred is not None and bool(self._polls) and self._polls[0] is self._deferred

    @property
    def _full(self) -> bool:
        alone = bool(self._polls and self._polls[-1].alone)
        return alone or len(self._polls) >= POLLS_IN_FLIGHT or self._rebalancing

    @property
    def _too_early(self) -> float:
        """Seconds until the next poll is cut: until then records may come that it would be fuller with."""
        if len(self._polls) != 1:
            return 0.0
        return max(self._left - max(LATEST_CUT, SOONER * self._polls[0].device_seconds), 0.0)

    @property
    def _left(self) -> float:
        """Seconds until the oldest poll is done, by what it was said to take."""
        return self._polls[0].began + self._polls[0].device_seconds - self._clock.monotonic()

    def _poll(self) -> Sequence[Record]:
        room = self._limits.records - len(self._waiting)
        too_early = self._too_early
        wait = min(LONG_POLL_MS / 1000, too_early or math.inf)
        if self._full or room <= 0:
            self._consumer.pause()
            finished = self._wait_for_device(wait)
            if self._must_poll_long(busy=not finished and not too_early):
                return self._long_poll(max_records=max(room, 1))
            return self._consumer.poll(0, max(room, 1))
        self._consumer.resume()
        idle = not self._polls and (self._held or not self._waiting)
        if idle or self._must_poll_long(busy=wait >= LONG_POLL_MS / 1000):
            return self._long_poll(max_records=room)
        if too_early:
            self._wait_for_device(wait)
        records = self._consumer.poll(0, room)
        if not records and not self._waiting:
            self._wait_for_device(wait)
        return records

    def _must_poll_long(self, *, busy: bool) -> bool:
        # While polls finish within milliseconds a long poll would leave the device idle: one step later is soon enough.
        overdue = self._clock.monotonic() - self._last_long_poll > LONG_POLL_INTERVAL
        return self._rebalancing or not self._consumer.assigned or (busy and overdue)

    def _long_poll(self, max_records: int) -> Sequence[Record]:
        timeout_ms = LONG_POLL_MS
        if self._polls and self._consumer.assigned and not self._rebalancing:
            timeout_ms = min(max(int(1000 * self._left), SHORT_LONG_POLL_MS), LONG_POLL_MS)
        records = self._consumer.poll(timeout_ms, max_records)
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
        self._quarantine.forget(revoked)
        self._polls = deque(poll for poll in self._polls if not poll.empty)
        self._waiting.disown(revoked)

    def _start(self) -> None:
        # Held back, work starts after a poll: what it waits for is this member's rejoin, or the coordinator.
        self._held = False
        while self._waiting and not self._full and not self._held:
            if not self._quarantine.begin(self._waiting):
                self._held = True
                return
            alone = self._quarantine.is_suspect(self._waiting.first)
            if alone and self._polls:
                return
            if not alone:
                # While the device computes this thread has nothing better to do.
                self._waiting.read_ahead()
                if self._too_early:
                    return
            entries = self._waiting.cut_suspect() if alone else self._waiting.cut()
            self._held = not entries
            if entries:
                self._submit(Poll.of(entries, alone=alone))

    def _submit(self, poll: Poll) -> None:
        self._intake.expire(poll.entries)
        poll.device_seconds = sum(map(self._planner.device_seconds, poll.entries))
        poll.began = self._clock.monotonic()
        poll.work = [Work(self._executor.submit(batch), batch) for batch in self._planner.plan(poll)]
        self._polls.append(poll)
