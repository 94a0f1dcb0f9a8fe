"""Where records come from: kafka-python's consumer, with the defences that its traps call for."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

import structlog
from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.structs import MemberState

from nlp_worker.client_traps import finish_joining, free_parked
from nlp_worker.connection import kafka_offsets
from nlp_worker.errors import BrokerError, FencedError, SettingsError, TopicError
from nlp_worker.jumps import Jumps, TopicIds
from nlp_worker.kafka_clients import open_consumer
from nlp_worker.poll import Commit, Committed, Partition
from nlp_worker.reachability import Reachability, is_connected
from nlp_worker.revocations import Revocations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from nlp_worker.clock import Clock
    from nlp_worker.poll import Membership, Record
    from nlp_worker.settings import Settings

log = structlog.get_logger()

#: Milliseconds. A leader that fails over takes 12 s; until then the poll stays at the head and is committed again.
COMMIT_TIMEOUT_MS: Final = 30_000

#: Milliseconds for what is only looked up: it is asked again after the next poll.
LOOK_UP_TIMEOUT_MS: Final = 5_000

#: Seconds after which a static member that committed nothing commits again what stands there: only a commit's answer
#: tells it that another process has its instance id by now.
MEMBER_CHECK_INTERVAL: Final = 10.0

#: Milliseconds to leave the group; past that the session times out by itself.
CLOSE_TIMEOUT_MS: Final = 5_000

#: The group moved on: whoever has the partitions now will answer.
_LOST: Final = (kafka_errors.CommitFailedError, kafka_errors.UnknownMemberIdError, kafka_errors.IllegalGenerationError)

_NOT_ALLOWED: Final = (kafka_errors.TopicAuthorizationFailedError, kafka_errors.GroupAuthorizationFailedError)


class Consumer:
    """A member of the group; only the control thread may use it.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """

    def __init__(self, settings: Settings, topics: Collection[str], clock: Clock = time) -> None:
        self._client = open_consumer(settings, group_id=settings.group, group_instance_id=settings.instance_id)
        self._clock = clock
        self._revocations = Revocations(self._restore_quietly)
        self._assignment: frozenset[Partition] = frozenset()
        self._before: dict[Partition, Commit] = {}
        self._jumps = Jumps(self._beginnings, clock)
        self._broker = Reachability(lambda: is_connected(self._client), settings.bootstrap_servers, clock)
        self._topics = sorted(topics)
        self._topic_ids = TopicIds(self._client._cluster.topic_id)  # noqa: SLF001 - nothing public tells it
        self._is_static = settings.instance_id is not None
        self._last_commit = clock.monotonic()
        self._client.subscribe(topics=self._topics, listener=self._revocations)

    @property
    def assigned(self) -> bool:
        return bool(self._assignment)

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        """Return records, each partition's in offset order.

        Raises:
            TopicError: a topic or the group may not be read.
            FencedError: another instance has this one's instance id.
            BrokerError: a record is corrupt.
        """
        self._broker.check()
        finish_joining(self._client)
        free_parked(self._client)
        self._check_membership()
        try:
            records = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except _NOT_ALLOWED as error:
            raise _refusal(error) from None
        except kafka_errors.FencedInstanceIdError:
            raise FencedError from None
        except kafka_errors.InvalidSessionTimeoutError as error:
            raise SettingsError(f"kafka.consumer.session_timeout_ms: {error}") from None
        except kafka_errors.CorruptRecordError as error:
            # After it the client's next poll would never return.
            raise BrokerError(f"what the broker gave cannot be read: {error}") from None
        except kafka_errors.InconsistentGroupProtocolError:
            raise SettingsError("group: its members have another assignor or another client's protocol") from None
        self._note_assignment()
        for partition in self._begin_again():
            records.pop(partition, None)
        for partition, batch in records.items():
            self._jumps.note(Partition(*partition), batch[0].offset, batch[-1].offset + 1)
        self._jumps.check()
        return list(itertools.chain.from_iterable(records.values()))

    def _begin_again(self) -> frozenset[Partition]:
        """Seek to the beginning of topics that were made anew; what is in flight of the old ones is nobody's."""
        changed = self._topic_ids.changed(self._topics)
        again = frozenset(partition for partition in self._assignment if partition.topic in changed)
        if again:
            self._client.seek_to_beginning(*(TopicPartition(*partition) for partition in again))
            self._revocations.on_partitions_lost(again)
            self._jumps.forget(again)
            self._before = {partition: commit for partition, commit in self._before.items() if partition not in again}
        return again

    def _beginnings(self, partitions: Collection[Partition]) -> Mapping[Partition, int] | None:
        """Return the offset of each partition's first record; None while the broker does not say."""
        try:
            kafka_partitions = [TopicPartition(*partition) for partition in partitions]
            found = self._client.beginning_offsets(kafka_partitions, timeout_ms=LOOK_UP_TIMEOUT_MS)
        except (kafka_errors.RetriableError, kafka_errors.KafkaTimeoutError):
            return None
        return {Partition(*partition): offset for partition, offset in found.items()}

    def _note_assignment(self) -> None:
        assignment = frozenset(Partition(*partition) for partition in self._client.assignment())
        # What was taken away and came back within one poll was lost all the same: its records come again.
        lost = self._assignment & ((self._assignment - assignment) | self._revocations.untaken)
        gained = assignment - (self._assignment - lost)
        self._assignment = assignment
        if not gained and not lost:
            return
        self._jumps.forget(gained | lost)
        log.info("rebalance", partitions=_names(assignment), gained=_names(gained), lost=_names(lost))

    def behind(self) -> dict[Partition, int]:
        # The client's own `position()` may ask the broker, and wait.
        states = dict(self._client._subscription.assignment)  # noqa: SLF001
        told = {at: state for at, state in states.items() if None not in (state.highwater, state.position)}
        return {Partition(*partition): state.highwater - state.position.offset for partition, state in told.items()}

    def take_revoked(self) -> frozenset[Partition]:
        return self._revocations.take()

    def pause(self) -> None:
        self._client.pause(*(self._client.assignment() - self._client.paused()))

    def resume(self) -> None:
        self._client.resume(*self._client.paused())

    @property
    def membership(self) -> Membership | None:
        """What fences a transaction when the group moves on; None while this is no member, or rejoins.

        Without member id and generation the broker takes offsets from anybody: those of a member that was thrown out
        would be committed too.
        """
        member = self._client.group_metadata()
        joined = member.state == MemberState.STABLE and member.generation_id > 0 and member.member_id
        return member if joined else None

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, Commit] | None:
        """Return what the group has committed, without the partitions of which it has nothing.

        None while the broker does not say: it waits for the end of a transaction that may still change it.

        Raises:
            TopicError: the group may not be read.
        """
        found: dict[Partition, Commit] = {}
        for partition in partitions:
            try:
                commit = self._client.committed(
                    TopicPartition(*partition), metadata=True, timeout_ms=LOOK_UP_TIMEOUT_MS
                )
            except _NOT_ALLOWED as error:
                raise _refusal(error) from None
            except (kafka_errors.RetriableError, kafka_errors.KafkaTimeoutError) as error:
                log.warning("committed_unknown", reason=type(error).__name__)
                return None
            if commit is not None:
                found[partition] = Commit(commit.offset, commit.metadata or "")
        return found

    def begin(self, marks: Mapping[Partition, Commit], before: Mapping[Partition, Commit]) -> Committed:
        """Commit marks at offsets that stay where they are.

        Args:
            marks: What the next owner shall find if this process ends without a word.
            before: What it shall find if the partition is given up in peace before anything else is committed.

        Raises:
            FencedError: another instance has this one's instance id.
            TopicError: the group or a topic may not be committed to.
        """
        for partition, commit in before.items():
            self._jumps.expect(partition, commit.offset)
        committed = self.commit(marks)
        if committed is Committed.DONE:
            self._before.update(before)
        return committed

    def restore(self) -> None:
        """Undo the marks of what was begun and not finished, for the members that will own it."""
        before, self._before = self._before, {}
        own = {partition: commit for partition, commit in before.items() if partition in self._assignment}
        if own and self.commit(own) is not Committed.DONE:
            log.warning("marks_stay", partitions=_names(own))

    def _restore_quietly(self, partitions: Collection[Partition]) -> None:
        # On the I/O thread, while the control thread is inside poll(): before the rejoin that gives them to others.
        own = {partition: self._before.pop(partition) for partition in partitions if partition in self._before}
        if own:
            self._client.commit_async(kafka_offsets(own), callback=_ignore)

    def commit(self, offsets: Mapping[Partition, Commit]) -> Committed:
        """Commit the next offset to read of each partition.

        Raises:
            FencedError: another instance has this one's instance id.
            TopicError: the group or a topic may not be committed to.
        """
        try:
            # Without offsets the client would commit positions, records in flight included.
            self._client.commit(kafka_offsets(offsets), timeout_ms=COMMIT_TIMEOUT_MS)
        except _LOST:
            return Committed.LOST
        except kafka_errors.FencedInstanceIdError:
            raise FencedError from None
        except _NOT_ALLOWED as error:
            raise _refusal(error) from None
        except kafka_errors.RebalanceInProgressError as error:
            log.warning("commit_later", reason=type(error).__name__)
            return Committed.LATER
        except (kafka_errors.RetriableError, kafka_errors.KafkaTimeoutError) as error:
            log.warning("commit_later", reason=type(error).__name__)
            self.note_commit(offsets)
            return Committed.LATER
        self.note_commit(offsets)
        return Committed.DONE

    def note_commit(self, partitions: Iterable[Partition]) -> None:
        """Of offsets that were committed, or may have been: what stood there before must not be put back."""
        self._last_commit = self._clock.monotonic()
        for partition in partitions:
            self._before.pop(partition, None)

    def _check_membership(self) -> None:
        if not self._is_static or self._clock.monotonic() - self._last_commit < MEMBER_CHECK_INTERVAL:
            return
        self._last_commit = self._clock.monotonic()
        for partition in sorted(self._assignment):
            if standing := self.committed([partition]):
                self.commit(standing)
                return

    def close(self) -> None:
        """Leave the group, so that its other members take over at once."""
        # Marks stay: who leaves without `restore` may have been brought down by what they mark.
        self._before.clear()
        self._client.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)


def _refusal(error: Exception) -> TopicError:
    kind = "group" if isinstance(error, kafka_errors.GroupAuthorizationFailedError) else "requests topic"
    return TopicError(f"READ on the {kind} is not allowed: allow it ({error})")


def _ignore(offsets: object, outcome: object) -> None:
    """Not restored, a mark costs the next owner some speed, and no answer."""
    del offsets, outcome


def _names(partitions: Iterable[Partition]) -> list[str]:
    return sorted(f"{topic}-{partition}" for topic, partition in partitions)
