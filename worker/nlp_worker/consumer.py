"""Where records come from: kafka-python's consumer, with the defences that its traps call for."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, Final

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from nlp_worker.connection import BOOTSTRAP_TIMEOUT_MS, client_settings, open_client
from nlp_worker.errors import FencedError, SettingsError, TopicError
from nlp_worker.poll import Committed, Partition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from nlp_worker.poll import Record
    from nlp_worker.settings import Settings

log = structlog.get_logger()

#: Milliseconds. A leader that fails over takes 12 s; until then the poll stays at the head and is committed again.
COMMIT_TIMEOUT_MS: Final = 30_000

#: Milliseconds to leave the group; past that the session times out by itself.
CLOSE_TIMEOUT_MS: Final = 5_000

#: Bytes of records that wait in the client, compressed as they came: what a backlog may cost in memory.
FETCH_MAX_BYTES: Final = 16 * 2**20

#: What every consumer of ours is; kafka-python's own defaults would lose requests (docs/design.md).
OWN_SETTINGS: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "allow_auto_create_topics": False,
    # Eager assignors keep the position of a partition they take away and give back, so work that was given up in
    # between would never be fetched again.
    "partition_assignment_strategy": [CooperativeStickyAssignor],
    "isolation_level": "read_committed",
    "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
    "fetch_max_bytes": FETCH_MAX_BYTES,
    # How long an idle broker holds a fetch; it answers at once when there is a record.
    "fetch_max_wait_ms": 500,
}

FENCED: Final = "another member has this instance id: give each worker its own"

#: The group moved on: whoever has the partitions now will answer.
_LOST: Final = (
    kafka_errors.CommitFailedError,
    kafka_errors.UnknownMemberIdError,
    kafka_errors.IllegalGenerationError,
)

_NOT_ALLOWED: Final = (kafka_errors.TopicAuthorizationFailedError, kafka_errors.GroupAuthorizationFailedError)


class _Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """Adds to a set, and nothing else.

    It is called on the client's I/O thread: a blocking call would raise, and waiting would count as not polling.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revoked: set[Partition] = set()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        with self._lock:
            self._revoked.update(Partition(*partition) for partition in revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Records of what was assigned say so by themselves."""

    def take(self) -> frozenset[Partition]:
        with self._lock:
            taken = frozenset(self._revoked)
            self._revoked.clear()
        return taken


class Consumer:
    """A member of the group; only the control thread may use it.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting under [kafka] or [kafka.consumer] cannot be used.
    """

    def __init__(self, settings: Settings, topics: Collection[str]) -> None:
        own = {**OWN_SETTINGS, "group_id": settings.group, "group_instance_id": settings.instance_id}
        arguments = client_settings(settings, KafkaConsumer, own, settings.kafka.consumer)
        self._client = open_client(KafkaConsumer, arguments, "kafka.consumer")
        self._revocations = _Revocations()
        self._assignment: frozenset[Partition] = frozenset()
        self._client.subscribe(topics=sorted(topics), listener=self._revocations)

    @property
    def assigned(self) -> bool:
        return bool(self._assignment)

    def poll(self, timeout_ms: int, max_records: int) -> Sequence[Record]:
        """Return records, each partition's in offset order.

        Raises:
            TopicError: a topic or the group may not be read.
            FencedError: another instance has this one's instance id.
        """
        self._finish_joining()
        try:
            records = self._client.poll(timeout_ms=timeout_ms, max_records=max_records)
        except _NOT_ALLOWED as error:
            raise _refusal(error) from None
        except kafka_errors.FencedInstanceIdError:
            raise FencedError(FENCED) from None
        except kafka_errors.InvalidSessionTimeoutError as error:
            raise SettingsError(f"kafka.consumer.session_timeout_ms: {error}") from None
        except kafka_errors.InconsistentGroupProtocolError:
            raise SettingsError("group: its members have another assignor or another client's protocol") from None
        self._note_assignment()
        return list(itertools.chain.from_iterable(records.values()))

    def _finish_joining(self) -> None:
        """Make the client wait for the join that its last poll left under way.

        A group's leader that joins because topics became known takes itself for joined as soon as it has made the
        assignment. If its poll times out before the broker has answered that, the answer is never read: no partitions,
        no heartbeats, and no error, for ever.
        """
        coordinator = self._client._coordinator  # noqa: SLF001 - nothing public tells, or mends it
        if coordinator._join_task is not None:  # noqa: SLF001
            coordinator.request_rejoin()

    def _note_assignment(self) -> None:
        assignment = frozenset(Partition(*partition) for partition in self._client.assignment())
        if assignment == self._assignment:
            return
        gained, lost = assignment - self._assignment, self._assignment - assignment
        self._assignment = assignment
        log.info("rebalance", partitions=_names(assignment), gained=_names(gained), lost=_names(lost))

    def take_revoked(self) -> frozenset[Partition]:
        return self._revocations.take()

    def pause(self) -> None:
        self._client.pause(*(self._client.assignment() - self._client.paused()))

    def resume(self) -> None:
        self._client.resume(*self._client.paused())

    def commit(self, offsets: Mapping[Partition, int]) -> Committed:
        """Commit the next offset to read of each partition.

        Raises:
            FencedError: another instance has this one's instance id.
            TopicError: the group or a topic may not be committed to.
        """
        # Without offsets the client would commit positions, records in flight included.
        commits = {TopicPartition(*partition): OffsetAndMetadata(offset) for partition, offset in offsets.items()}
        try:
            self._client.commit(commits, timeout_ms=COMMIT_TIMEOUT_MS)
        except _LOST:
            return Committed.LOST
        except kafka_errors.FencedInstanceIdError:
            raise FencedError(FENCED) from None
        except _NOT_ALLOWED as error:
            raise _refusal(error) from None
        except (
            kafka_errors.RebalanceInProgressError,
            kafka_errors.RetriableError,
            kafka_errors.KafkaTimeoutError,
        ) as error:
            log.warning("commit_later", reason=type(error).__name__)
            return Committed.LATER
        return Committed.DONE

    def close(self) -> None:
        """Leave the group, so that its other members take over at once."""
        self._client.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)


def _refusal(error: Exception) -> TopicError:
    kind = "group" if isinstance(error, kafka_errors.GroupAuthorizationFailedError) else "requests topic"
    return TopicError(f"READ on the {kind} is not allowed: allow it ({error})")


def _names(partitions: Iterable[Partition]) -> list[str]:
    return sorted(f"{topic}-{partition}" for topic, partition in partitions)
