"""What kafka-python's consumer gets stuck in, silently and for good, and how it gets out: nothing public mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kafka import KafkaConsumer


def finish_joining(client: KafkaConsumer) -> None:
    """Make the client wait for the join that its last poll left under way.

    A group's leader that joins because topics became known takes itself for joined as soon as it has made the
    assignment. If its poll times out before the broker has answered that, the answer is never read: no partitions, no
    heartbeats, and no error, for ever.
    """
    coordinator = client._coordinator  # noqa: SLF001
    if coordinator._join_task is not None:  # noqa: SLF001
        coordinator.request_rejoin()


def free_parked(client: KafkaConsumer) -> None:
    """Let the client give out what it set aside of a partition that was paused and is not any more.

    It waits until it holds no other partition's records, and holds on to these when none are left.
    """
    fetcher = client._fetcher  # noqa: SLF001
    fetcher._next_partition_records = fetcher._next_partition_records or None  # noqa: SLF001
