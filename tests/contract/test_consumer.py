"""The consumer's defences against its client, where a whole worker would show them by luck only."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from clients import unique, wait_for
from nlp_worker.broker import api
from nlp_worker.consumer import Consumer
from nlp_worker.loop import LONG_POLL_MS
from nlp_worker.poll import Commit, Committed, Partition
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    import pytest

    from apache_kafka import RunningKafka

#: Seconds. Shorter than Apache Kafka allows, and so the embedded broker's alone.
SESSION = 1.0


def test_a_leader_whose_poll_ends_while_it_joins_is_a_member_all_the_same(
    embedded_kafka: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broker that takes longer for the assignment than a poll, its session goes on, and so do its commits."""
    topic = unique("topic")
    embedded_kafka.create_topic(topic, 1)
    timeouts = {"session_timeout_ms": int(SESSION * 1000), "heartbeat_interval_ms": int(SESSION * 200)}
    options = {"bootstrap_servers": embedded_kafka.bootstrap_servers, "group": topic, "kafka": {"consumer": timeouts}}
    with closing(Consumer(load_settings(options), [topic])) as consumer:
        wait_for(lambda: consumer.poll(LONG_POLL_MS, 1) is not None and consumer.assigned)
        slow_down_sync(monkeypatch)
        # As when a topic, or more partitions of one, became known.
        consumer._client._coordinator._assignment_snapshot = {}
        until = time.monotonic() + 3 * SESSION
        while time.monotonic() < until:
            consumer.poll(LONG_POLL_MS, 1)
        assert consumer.commit({Partition(topic, 0): Commit(0)}) is Committed.DONE


def slow_down_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the embedded broker answer SyncGroup later than a poll lasts."""
    key, quick = next((key, one) for key, one in api.APIS.items() if one.handle.__name__ == "sync_group")

    async def slow(*arguments: Any) -> Any:
        await asyncio.sleep(2 * LONG_POLL_MS / 1000)
        return await quick.handle(*arguments)

    monkeypatch.setitem(api.APIS, key, quick._replace(handle=slow))
