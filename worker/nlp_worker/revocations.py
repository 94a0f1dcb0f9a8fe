"""What the group has taken from this member, as kafka-python's rebalance listener reports it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kafka import ConsumerRebalanceListener

from nlp_worker.poll import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from kafka import TopicPartition


class Revocations(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """Adds to a set, and says of which partitions this was still the owner.

    It is called on the client's I/O thread: a blocking call would raise, and waiting would count as not polling.
    """

    def __init__(self, give_up: Callable[[Collection[Partition]], None]) -> None:
        self._give_up = give_up
        self._lock = threading.Lock()
        self._revoked: set[Partition] = set()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        partitions = [Partition(*partition) for partition in revoked]
        self._give_up(partitions)
        with self._lock:
            self._revoked.update(partitions)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        with self._lock:
            self._revoked.update(Partition(*partition) for partition in lost)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Records of what was assigned say so by themselves."""

    @property
    def untaken(self) -> frozenset[Partition]:
        with self._lock:
            return frozenset(self._revoked)

    def take(self) -> frozenset[Partition]:
        with self._lock:
            taken = frozenset(self._revoked)
            self._revoked.clear()
        return taken
