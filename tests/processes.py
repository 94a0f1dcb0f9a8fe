"""Workers as processes, and an independent client (librdkafka) that talks to them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

from confluent_kafka import Consumer, Producer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from apache_kafka import RunningKafka
    from faults.ledger import Ledger

TASK = "text-classification"
KINDS = ("requests", "results", "dead-letter")

#: Seconds. A worker imports torch in 5 on an idle machine; the limit only ends a test that would never end.
PATIENCE = 90.0

#: Seconds without a record after which a reader has all that were there: a hundred round trips.
REST = 0.2


class Topics:
    """Topics of one or more tasks, with a producer and a reader that share no code with the worker.

    Args:
        broker: Where they are created.
        partitions: Of each.
        tasks: The first is the one that is meant where none is named.
        configs: Of the topics, with underscores for the dots.
    """

    tasks: Sequence[str] = (TASK,)
    _reads = False

    def __init__(
        self, broker: RunningKafka, partitions: int = 4, *, tasks: Sequence[str] = (TASK,), **configs: object
    ) -> None:
        self.prefix = f"test-{uuid.uuid4().hex[:8]}"
        self.servers = broker.bootstrap_servers
        self.tasks = tasks
        for task in tasks:
            for kind in KINDS:
                broker.create_topic(self.name(kind, task), partitions, **configs)
        self._producer = Producer({"bootstrap.servers": self.servers, "message.max.bytes": 20_000_000})
        self._reader = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"{self.prefix}-reader",
                "auto.offset.reset": "earliest",
                "max.poll.interval.ms": 3_600_000,  # some topics are read now and then
            }
        )
        self.answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.dead_letters: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()
        self._producer.flush(10)

    def name(self, kind: str, task: str | None = None) -> str:
        return f"{self.prefix}.{task or self.tasks[0]}.{kind}"

    def send(self, values: Iterable[object], *, task: str | None = None, **options: Any) -> None:
        """Send each value, anything but bytes and None as JSON, and wait for the acknowledgements."""
        for number, value in enumerate(values):
            content = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
            self._producer.produce(self.name("requests", task), content, **{"key": str(number).encode()} | options)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def read_until(self, reached: Callable[[], bool], *workers: WorkerProcess) -> None:
        """Read answers and dead letters until it is so; the workers that are named must live meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            for worker in workers:
                assert worker.process.poll() is None, worker.log()[-2000:]
            assert time.monotonic() < deadline, f"{len(self.answers)} answers, {len(self.dead_letters)} dead letters"
            self._read()

    def read_rest(self) -> None:
        """Read what is there already, to the end."""
        while self._read():
            pass

    def _read(self) -> int:
        if not self._reads:
            # Not before: librdkafka's close hangs for ever where it meets the first assignment.
            self._reader.subscribe([self.name(kind, task) for task in self.tasks for kind in KINDS[1:]])
            self._reads = True
        messages = self._reader.consume(500, timeout=REST)
        deadline = time.monotonic() + PATIENCE
        while not self._reader.assignment():  # until then nothing comes, whatever is there
            assert time.monotonic() < deadline, "the reader has not joined its group"
            messages += self._reader.consume(500, timeout=REST)
        for message in messages:
            assert message.error() is None
            if message.topic().endswith(".results"):
                answer = json.loads(message.value())
                self.answers[answer["id"]].append(answer)
            else:
                self.dead_letters.append(message)
        return len(messages)


class WorkerProcess:
    """`nlp-worker run`, with its log kept.

    Args:
        topics: What it reads and writes.
        checkpoint: Served as `tiny` for TASK; None where the arguments say what is served.
        folder: For the log.
        arguments: After the others.
        environment: Over this process's own.
    """

    #: What is run, and in which folder: that is where a module is found that is not installed.
    module = "nlp_worker"
    cwd: Path | None = None
    _numbers = itertools.count()

    def __init__(
        self, topics: Topics | Ledger, checkpoint: Path | None, folder: Path, *arguments: str, **environment: str
    ) -> None:
        self._log = folder / f"worker-{next(self._numbers)}.log"
        command = [
            sys.executable,
            "-m",
            self.module,
            "run",
            "--bootstrap-servers",
            topics.servers,
            "--topic-prefix",
            topics.prefix,
            "--group",
            topics.prefix,
            "--threads",
            "1",
            *(["--model", f"tiny:{TASK}={checkpoint}"] if checkpoint is not None else []),
            *arguments,
        ]  # fmt: skip - a command line
        # A killed member's partitions are given to others after Kafka's shortest session.
        session = {"NLP_WORKER_KAFKA__CONSUMER__SESSION_TIMEOUT_MS": "6000",
                   "NLP_WORKER_KAFKA__CONSUMER__HEARTBEAT_INTERVAL_MS": "1000"}  # fmt: skip
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=self.cwd, stderr=log, env=os.environ | session | environment)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        # The last line may be half written.
        lines = [line for line in self.log().splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def end(self, *, timeout: float = PATIENCE) -> int:
        return self.process.wait(timeout)
