"""The broker dies under the worker, and comes back."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from apache_kafka import ApacheKafka, RunningKafka
from clients import wait_for
from nlp_worker.broker import EmbeddedBroker
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.kafka
@pytest.mark.timeout(3 * PATIENCE)
@pytest.mark.usefixtures("real_kafka")  # which skips, or fails, where there can be no broker of our own
def test_a_worker_outlives_its_broker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGKILL for the broker in the middle of the stream: the worker waits, goes on, and loses nothing."""
    with (
        ApacheKafka() as broker,
        Topics(broker) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker,
    ):
        topics.send({"id": f"before-{number}", "inputs": "a good day"} for number in range(3000))
        topics.read_until(lambda: len(topics.answers) >= 300, worker)
        broker.kill()
        broker.start()
        topics.send({"id": f"after-{number}", "inputs": "a bad day"} for number in range(1000))
        topics.read_until(lambda: len(topics.answers) == 4000, worker)
        assert topics.dead_letters == []


@pytest.mark.kafka
@pytest.mark.timeout(4 * PATIENCE)
@pytest.mark.usefixtures("real_kafka")
def test_an_idle_worker_tells_that_its_broker_is_away_and_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGKILL for the broker of a worker without requests: one warning, one line when it is back, and answers again."""
    with (
        ApacheKafka() as broker,
        Topics(broker) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker,
    ):
        wait_for(lambda: worker.events("rebalance"))
        broker.kill()
        wait_for(lambda: worker.events("broker_away"))
        broker.start()
        wait_for(lambda: worker.events("broker_back"))
        topics.send([{"id": "a", "inputs": "a good day"}])
        topics.read_until(lambda: len(topics.answers) == 1, worker)
        away, back = worker.events("broker_away")[0], worker.events("broker_back")[0]
        assert away["bootstrap_servers"] == broker.bootstrap_servers
        assert 10 <= away["seconds"] < back["seconds"]
        assert len(worker.events("broker_back")) == 1


@pytest.mark.timeout(3 * PATIENCE)
def test_a_worker_whose_broker_is_gone_stops_all_the_same(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGTERM, exit 0, within the drain and what closing may take: an orchestrator would kill it otherwise."""
    with contextlib.ExitStack() as stack:
        with EmbeddedBroker() as broker, Topics(RunningKafka(broker.bootstrap_servers)) as topics:
            worker = stack.enter_context(WorkerProcess(topics, tiny_checkpoint, tmp_path, "--drain-seconds", "1"))
            topics.send([{"id": "a", "inputs": "a good day"}])
            topics.read_until(lambda: len(topics.answers) == 1, worker)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(timeout=20) == 0
