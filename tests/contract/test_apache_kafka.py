"""The Apache Kafka of the tests does what the tests of faults need of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from kafka.admin import KafkaAdminClient
from kafka.consumer import KafkaConsumer
from kafka.producer import KafkaProducer

import apache_kafka
from apache_kafka import ROOT, ApacheKafka
from orphans import remove_orphans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.kafka

#: Seconds. An acknowledgement takes milliseconds; the limit only ends a test that would never end.
PATIENCE = 30.0


@pytest.fixture
def startable(real_kafka: RunningKafka) -> None:
    """Skip, or fail, where there can be no broker of our own."""
    del real_kafka  # which tells
    if "KAFKA_BOOTSTRAP" in os.environ:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to kill")


@pytest.fixture
def own_kafka(startable: None) -> Iterator[ApacheKafka]:
    """A broker that a test may hurt."""
    del startable
    with ApacheKafka() as broker:
        yield broker


def send(broker: RunningKafka, topic: str, *values: bytes) -> None:
    with closing(KafkaProducer(bootstrap_servers=broker.bootstrap_servers)) as producer:
        for future in [producer.send(topic, value) for value in values]:
            future.get(timeout=PATIENCE)


def read(broker: RunningKafka, topic: str, count: int) -> list[bytes]:
    settings: dict[str, Any] = {"auto_offset_reset": "earliest", "consumer_timeout_ms": PATIENCE * 1000}
    with closing(KafkaConsumer(topic, bootstrap_servers=broker.bootstrap_servers, **settings)) as consumer:
        return [record.value for _, record in zip(range(count), consumer, strict=False)]


def test_records_outlive_a_kill_and_a_stop(own_kafka: ApacheKafka) -> None:
    """What was acknowledged is there after SIGKILL and after SIGTERM, at the same address."""
    own_kafka.create_topic("kept", max_message_bytes=2_000)
    address = own_kafka.bootstrap_servers
    send(own_kafka, "kept", b"before")
    own_kafka.kill()
    own_kafka.start()
    send(own_kafka, "kept", b"after a kill")
    own_kafka.stop()
    own_kafka.start()
    send(own_kafka, "kept", b"after a stop")
    assert read(own_kafka, "kept", 3) == [b"before", b"after a kill", b"after a stop"]
    assert own_kafka.bootstrap_servers == address


def test_the_cluster_has_todays_transactions(real_kafka: RunningKafka) -> None:
    """transaction.version 2 (KIP-890): a cluster that is formatted by hand would be at 0."""
    with closing(KafkaAdminClient(bootstrap_servers=real_kafka.bootstrap_servers)) as admin:
        assert admin.describe_features()["transaction.version"]["finalized"] == (2, 2)


def test_a_broker_that_cannot_start_says_why(own_kafka: ApacheKafka) -> None:
    """The error has the end of the broker's log, here that a port is taken; with the port free again it starts."""
    own_kafka.stop()
    with (
        socket.create_server(("127.0.0.1", own_kafka._controller_port)),
        pytest.raises(RuntimeError, match="already in use"),
    ):
        own_kafka.start()
    own_kafka.start()


#: A test process that dies without a word; its argument is the folder of brokers.
DIES = """
import os, pathlib, sys
import apache_kafka

apache_kafka.RUNS = pathlib.Path(sys.argv[1])
print(apache_kafka.ApacheKafka().__enter__().pid, flush=True)
os._exit(1)
"""


@pytest.mark.usefixtures("startable")
def test_the_broker_of_a_dead_test_process_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next session ends it and removes its records, and leaves those alone whose process lives.

    In a folder of their own: a session beside this one that starts a broker would be the next.
    """
    monkeypatch.setattr(apache_kafka, "RUNS", tmp_path)
    with ApacheKafka() as living:
        command = [sys.executable, "-c", DIES, str(tmp_path)]
        died = subprocess.run(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, check=False)
        assert runs(int(died.stdout))
        remove_orphans(tmp_path)
        assert not runs(int(died.stdout))
        assert runs(living.pid)


def runs(pid: int) -> bool:
    """Tell whether it runs; the dead child of a dead parent stays in the list where nobody reaps it."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
