"""A worker as a process, on topics of its own, and the rate at which it moves requests from Kafka to Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Final, Self

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from apache_kafka import RunningKafka, free_ports
from nlp_schemas import TaskName, dead_letter_topic, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

TASK: Final = TaskName.TEXT_CLASSIFICATION
PARTITIONS: Final = 4

#: About 160 bytes of JSON: a sentence.
TEXT: Final = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."
)

#: A worker with a model that answers at once.
NO_MODEL: Final = (sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.rate")

#: Seconds between two looks at how much is answered: a look takes a millisecond of a core that the worker could use.
LOOK_SECONDS: Final = 0.02


def run_command(checkpoint: Path, threads: int = 1, *options: str) -> list[str]:
    """Return the command of a worker that serves a checkpoint."""
    model = f"small:{TASK}={checkpoint}"
    return [sys.executable, "-m", "nlp_worker", "run", "--threads", str(threads), "--model", model, *options]


class Topics:
    """Topics that nobody else uses: requests are sent there, and answers counted.

    with Topics(broker) as topics:
        topics.send(texts)
        with topics.worker(command):
            topics.wait(len(texts))
    """

    def __init__(self, broker: RunningKafka) -> None:
        self._prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self._broker = broker
        for topic in (requests_topic, results_topic, dead_letter_topic):
            broker.create_topic(topic(TASK, self._prefix), PARTITIONS)
        servers = broker.bootstrap_servers
        self._producer = KafkaProducer(bootstrap_servers=servers, linger_ms=5, batch_size=128 * 2**10)
        self._reader = KafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._producer.close()

    @contextlib.contextmanager
    def worker(self, command: Sequence[str], **settings: str) -> Iterator[None]:
        """Run a worker for the topics; it gets its settings, and where the topics are, from the environment."""
        settings |= {"bootstrap_servers": self._broker.bootstrap_servers}
        settings |= {"topic_prefix": self._prefix, "group": self._prefix}
        environment = {f"NLP_WORKER_{name.upper()}": value for name, value in settings.items()}
        self._process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            self._process.kill()
            self._process.wait()

    def send(self, texts: Iterable[str]) -> None:
        """Send a request for each text, and wait until the broker has them all."""
        for number, text in enumerate(texts):
            value = json.dumps({"id": f"r-{number}", "inputs": text}).encode()
            self._producer.send(requests_topic(TASK, self._prefix), value=value, key=str(number).encode())
        self._producer.flush()

    def wait(self, answers: int) -> tuple[float, int]:
        """Wait for so many answers since the topics are there.

        Returns:
            When they were seen, in seconds of the monotonic clock, and how many there were then.

        Raises:
            RuntimeError: the worker ended, or answered with errors.
        """
        while True:
            # Of transactions the markers count too: one for each and partition, a thousandth of the answers.
            answered, now = self._count(results_topic), time.monotonic()
            if answered >= answers:
                if errors := self._count(dead_letter_topic):
                    raise RuntimeError(f"{errors} requests were answered with an error: the figures would mean nothing")
                return now, answered
            if self._process is not None and (code := self._process.poll()) is not None:
                raise RuntimeError(f"the worker ended with {code}: run it by hand to see why")
            time.sleep(LOOK_SECONDS)

    def _count(self, topic: Callable[[TaskName, str], str]) -> int:
        ends = [TopicPartition(topic(TASK, self._prefix), number) for number in range(PARTITIONS)]
        return sum(self._reader.end_offsets(ends).values())


def rate(broker: RunningKafka, command: Sequence[str], requests: int, **settings: str) -> float:
    """Return requests per second from the first answers to the last: starting the process is not the loop.

    All requests are there before the worker starts, and the worker has the broker's machine for itself: what is
    measured is the worker.

    Args:
        broker: Topics of its own are created there.
        command: Starts a worker.
        requests: How many.
        settings: Of the worker, beside broker, group and topics.
    """
    with Topics(broker) as topics:
        topics.send(TEXT for _ in range(requests))
        with topics.worker(command, **settings):
            began, first = topics.wait(1)
            ended, last = topics.wait(requests)
    return (last - first) / (ended - began)


@contextlib.contextmanager
def embedded_broker() -> Iterator[RunningKafka]:
    """The embedded broker as a process of its own: in this one it would share a core with nothing, but also a GIL."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "nlp_worker", "broker", "--port", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        yield RunningKafka(f"127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _worker() -> None:
    from benchmarks.no_model import NoModel  # noqa: PLC0415 - of the worker's process
    from nlp_worker import logging as worker_logging  # noqa: PLC0415
    from nlp_worker.executor import Executor  # noqa: PLC0415
    from nlp_worker.settings import load_settings  # noqa: PLC0415
    from nlp_worker.wiring import wired  # noqa: PLC0415

    worker_logging.configure(level="info", log_format="json", worker="bench")
    settings = load_settings({})
    with wired(settings, "bench", [TASK], lambda: {TASK: {"none": NoModel()}}, Executor()) as worker:
        worker.run()


if __name__ == "__main__":
    _worker()
