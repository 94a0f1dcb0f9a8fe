"""The rate at which one worker process moves requests from Kafka to Kafka.

All requests are there before the worker starts, and the worker has the broker's machine for itself: what is measured
is the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from nlp_schemas import TaskName, dead_letter_topic, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from apache_kafka import RunningKafka

TASK: Final = TaskName.TEXT_CLASSIFICATION
PARTITIONS: Final = 4

#: About 160 bytes of JSON: a sentence.
TEXT: Final = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."
)

#: A worker with a model that answers at once.
NO_MODEL: Final = (sys.executable, __file__)


def run_command(checkpoint: Path) -> list[str]:
    """Return the command of a worker that serves a checkpoint."""
    return [sys.executable, "-m", "nlp_worker", "run", "--threads", "1", "--model", f"small:{TASK}={checkpoint}"]


def rate(broker: RunningKafka, command: Sequence[str], requests: int, **settings: str) -> float:
    """Return requests per second from the first answers to the last: starting the process is not the loop.

    Args:
        broker: Topics of its own are created there.
        command: Starts a worker, which gets its settings from the environment.
        requests: How many.
        settings: Of the worker, beside broker, group and topics.
    """
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    for topic in (requests_topic, results_topic, dead_letter_topic):
        broker.create_topic(topic(TASK, prefix), PARTITIONS)
    _send(broker, prefix, requests)
    settings |= {"bootstrap_servers": broker.bootstrap_servers, "topic_prefix": prefix, "group": prefix}
    environment = {f"NLP_WORKER_{name.upper()}": value for name, value in settings.items()}
    ends = [TopicPartition(results_topic(TASK, prefix), partition) for partition in range(PARTITIONS)]
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers, isolation_level="read_committed")
    worker = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
    with contextlib.closing(reader):
        try:
            return _measure(reader, ends, requests)
        finally:
            worker.kill()
            worker.wait()


def _send(broker: RunningKafka, prefix: str, requests: int) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5, batch_size=128 * 2**10)
    for number in range(requests):
        value = json.dumps({"id": f"r-{number}", "inputs": TEXT}).encode()
        producer.send(requests_topic(TASK, prefix), value=value, key=str(number).encode())
    producer.flush()
    producer.close()


def _measure(reader: KafkaConsumer, ends: list[Any], requests: int) -> float:
    first: tuple[float, int] | None = None
    while True:
        # Of transactions the markers count too: one for each and partition, a thousandth of the answers.
        answered, now = sum(reader.end_offsets(ends).values()), time.monotonic()
        if first is None and answered:
            first = now, answered
        if first is not None and answered >= requests:
            return float(answered - first[1]) / (now - first[0])
        time.sleep(0.02)


def _worker() -> None:
    from fakes import FakeTask  # noqa: PLC0415 - of the worker's process
    from nlp_worker import logging as worker_logging  # noqa: PLC0415
    from nlp_worker.executor import Executor  # noqa: PLC0415
    from nlp_worker.settings import load_settings  # noqa: PLC0415
    from nlp_worker.wiring import wired  # noqa: PLC0415

    worker_logging.configure(level="info", log_format="json", worker="bench")
    settings = load_settings({})
    with wired(settings, "bench", [TASK], lambda: {TASK: {"fake": FakeTask()}}, Executor()) as worker:
        worker.run()


if __name__ == "__main__":
    _worker()
