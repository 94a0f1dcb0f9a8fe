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
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CoordinatorNotAvailableError

from apache_kafka import ApacheKafka, RunningKafka, free_ports, why_not
from nlp_schemas import TaskName, dead_letter_topic, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

TASK: Final = TaskName.TEXT_CLASSIFICATION
PARTITIONS: Final = 4

#: About 160 bytes of JSON: a sentence.
TEXT: Final = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."
)

#: A worker with a model that answers at once.
NO_MODEL: Final = (sys.executable, "-m", __name__ if __name__ != "__main__" else "benchmarks.rate")

#: Seconds between two looks at how much is answered, at least, and part of the time that was waited: a look takes a
#: millisecond of a core that the worker could use, where one thread of a model that waits for the others delays all.
LOOK_SECONDS: Final = 0.02
LOOK_PART: Final = 0.01

#: Milliseconds that a transaction of ours may take, a million requests: as long as the broker allows by default.
TRANSACTION_MS: Final = 900_000


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

    Args:
        broker: The topics are created there.
        partitions: Of each topic.
        linger_ms: How long a request may wait in the producer for others.
    """

    def __init__(self, broker: RunningKafka, partitions: int = PARTITIONS, linger_ms: int = 5) -> None:
        self._prefix = f"bench-{uuid.uuid4().hex[:8]}"
        self._broker = broker
        self._partitions = partitions
        for topic in (requests_topic, results_topic, dead_letter_topic):
            broker.create_topic(topic(TASK, self._prefix), partitions)
        self._settings = {**broker.client, "linger_ms": linger_ms, "batch_size": 128 * 2**10}
        self._producer = KafkaProducer(**self._settings)
        self._reader = KafkaConsumer(**broker.client, isolation_level="read_committed")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._producer.close()

    @contextlib.contextmanager
    def worker(self, command: Sequence[str], log: Path | None = None, /, **settings: str) -> Iterator[int]:
        """Run a worker for the topics, and give its process id.

        It gets its settings, and where the topics are, from the environment, and writes its log to the file, if any.
        """
        settings |= {"bootstrap_servers": self._broker.bootstrap_servers}
        settings |= {"topic_prefix": self._prefix, "group": self._prefix}
        environment = {f"NLP_WORKER_{name.upper()}": value for name, value in settings.items()}
        with Path(log or os.devnull).open("wb") as stderr:
            process = subprocess.Popen(command, env=os.environ | environment, stderr=stderr)
        self._processes.append(process)
        try:
            yield process.pid
        finally:
            self._processes.remove(process)
            process.kill()
            process.wait()

    def joined(self) -> None:
        """Wait until every worker has partitions, and every partition a worker.

        Raises:
            RuntimeError: a worker ended.
        """
        with contextlib.closing(KafkaAdminClient(**self._broker.client)) as admin:
            while not self._shared_out(admin):
                self.check()
                time.sleep(LOOK_SECONDS)

    def _shared_out(self, admin: KafkaAdminClient) -> bool:
        try:
            group = admin.describe_groups([self._prefix])[self._prefix]
        except CoordinatorNotAvailableError:
            return False  # a new broker: the first member makes it set up what it keeps of groups
        given = [member["member_assignment"] for member in group["members"]]
        shares = [sum(len(topic["partitions"]) for topic in each["assigned_partitions"]) for each in given if each]
        settled = group["group_state"] == "Stable" and sum(shares) == self._partitions
        return settled and len(shares) == len(self._processes) and all(shares)

    def request(self, number: int, text: str) -> None:
        """Send a request, and do not wait for the broker; its answer has the key ``str(number)``."""
        self._request(self._producer, number, text)

    def send(self, texts: Iterable[str]) -> None:
        """Send a request for each text, and wait until the broker has them all."""
        for number, text in enumerate(texts):
            self.request(number, text)
        self._producer.flush()

    def send_at_once(self, texts: Iterable[str]) -> None:
        """Send a request for each text in one transaction: workers see all at once, when sending is done.

        On Apache Kafka alone: the embedded broker has no transactions.
        """
        own = {"transactional_id": self._prefix, "transaction_timeout_ms": TRANSACTION_MS}
        with contextlib.closing(KafkaProducer(**self._settings, **own)) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            for number, text in enumerate(texts):
                self._request(producer, number, text)
            producer.commit_transaction()

    def _request(self, producer: KafkaProducer, number: int, text: str) -> None:
        value = json.dumps({"id": f"r-{number}", "inputs": text}).encode()
        producer.send(requests_topic(TASK, self._prefix), value=value, key=str(number).encode())

    def wait(self, answers: int) -> tuple[float, int]:
        """Wait for so many answers since the topics are there.

        Returns:
            When they were seen, in seconds of the monotonic clock, and how many there were then.

        Raises:
            RuntimeError: a worker ended, or answered with errors.
        """
        began = time.monotonic()
        while True:
            answered, now = self.answered(), time.monotonic()
            if answered >= answers:
                if errors := self._count(dead_letter_topic):
                    raise RuntimeError(f"{errors} requests were answered with an error: the figures would mean nothing")
                return now, answered
            self.check()
            time.sleep(max(LOOK_SECONDS, LOOK_PART * (now - began)))

    def answered(self) -> int:
        """Return how many answers there are; of transactions the markers count too: a thousandth of the answers."""
        return self._count(results_topic)

    def check(self) -> None:
        """See that the workers are alive.

        Raises:
            RuntimeError: one ended.
        """
        for process in self._processes:
            if (code := process.poll()) is not None:
                raise RuntimeError(f"the worker ended with {code}: run it by hand to see why")

    @contextlib.contextmanager
    def answers(self) -> Iterator[KafkaConsumer]:
        """Give a consumer of the answers that come from now on."""
        with contextlib.closing(KafkaConsumer(**self._broker.client, isolation_level="read_committed")) as reader:
            ends = reader.end_offsets(self._partitions_of(results_topic))
            reader.assign(list(ends))
            for partition, end in ends.items():
                reader.seek(partition, end)
            yield reader

    def _count(self, topic: Callable[[TaskName, str], str]) -> int:
        return sum(self._reader.end_offsets(self._partitions_of(topic)).values())

    def _partitions_of(self, topic: Callable[[TaskName, str], str]) -> list[TopicPartition]:
        return [TopicPartition(topic(TASK, self._prefix), number) for number in range(self._partitions)]


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


@contextlib.contextmanager
def best_broker() -> Iterator[tuple[str, RunningKafka]]:
    """Give Apache Kafka where it can be, else the embedded broker, with its name."""
    if why_not() is None:
        with ApacheKafka() as broker:
            yield "Apache Kafka", broker
    else:
        with embedded_broker() as embedded:
            yield "embedded", embedded


def _worker() -> None:
    from benchmarks.no_model import NoModel  # noqa: PLC0415 - of the worker's process
    from fakes import BATCH_TOKENS  # noqa: PLC0415
    from nlp_worker import logging as worker_logging  # noqa: PLC0415
    from nlp_worker.executor import Executor  # noqa: PLC0415
    from nlp_worker.settings import load_settings  # noqa: PLC0415
    from nlp_worker.wiring import wired  # noqa: PLC0415

    worker_logging.configure(level="info", log_format="json", worker="bench")
    settings = load_settings({})
    with wired(settings, "bench", [TASK], lambda: ({TASK: {"none": NoModel()}}, BATCH_TOKENS), Executor()) as worker:
        worker.run()


if __name__ == "__main__":
    _worker()
