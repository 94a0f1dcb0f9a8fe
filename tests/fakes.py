"""Real code at the loop's own seams: a consumer, a publisher, an executor and a task without Kafka and torch."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from nlp_schemas import Label, Model, Request, TaskName, TextClassificationRequest, TextClassificationResult
from nlp_worker.answering import Answering
from nlp_worker.delivery import AtLeastOnce
from nlp_worker.errors import InputTooLongError, RequestError
from nlp_worker.intake import Intake
from nlp_worker.isolation import isolate
from nlp_worker.loop import Worker
from nlp_worker.parts import Limits
from nlp_worker.planner import Planner
from nlp_worker.poll import BatchRun, Commit, Committed, Message, Partition, Row
from nlp_worker.tasks.base import Finished, Prepared

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.parts import Delivery

REQUESTS = "nlp.text-classification.requests"
RESULTS = "nlp.text-classification.results"
DEAD_LETTERS = "nlp.text-classification.dead-letter"

#: Where requests may want their answers, with partitions.
REPLY_TOPICS = {"replies": 3}

#: Of a batch at most.
BATCH_TOKENS = 4096


class FakeRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def record(value: object, *, offset: int = 0, partition: int = 0, key: bytes | None = b"k") -> FakeRecord:
    """Make a record of the requests topic; anything but bytes and None is sent as JSON."""
    content = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return FakeRecord(REQUESTS, partition, offset, 1_000, key, content, ())


class ManualClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class FakeTask:
    """Labels a text with itself. A text that says where it fails, fails there."""

    name = TaskName.TEXT_CLASSIFICATION
    result = TextClassificationResult
    max_batch_tokens = None
    packs = False

    def __init__(self, name: str = "fake") -> None:
        self.model = Model(name=name, checkpoint="fake/checkpoint", revision="sha256:0")
        self.calls: list[int] = []

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        texts = [text_of(request) for request in requests]
        if "fail in preprocess" in texts:
            raise ValueError("cannot tokenize this")
        return [
            InputTooLongError("too long")
            if text == "too long"
            else Prepared([Row({"input_ids": [ord(c) for c in text]})])
            for text in texts
        ]

    def collate(self, batch: Batch) -> list[str]:
        return ["".join(map(chr, row.features["input_ids"])) for row in batch.rows]

    def forward(self, inputs: list[str]) -> list[str]:
        self.calls.append(len(inputs))
        if "fail in forward" in inputs:
            raise ValueError("cannot compute this")
        return inputs

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        if text_of(request) == "fail in postprocess":
            raise ValueError("cannot decode this")
        return Finished([Label(label=row.output, score=float("nan") if row.output == "nan" else 0.5) for row in rows])

    def warm_up_rows(self) -> list[Row]:
        return [Row({"input_ids": [1]})]


def text_of(request: Request) -> str:
    if not isinstance(request, TextClassificationRequest) or not isinstance(request.inputs, str):
        raise TypeError("the fake reads single texts")
    return request.inputs


class FakeExecutor:
    """Runs a batch when told to: at once by default, else at `run_next`."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.queue: deque[tuple[Batch, Future[BatchRun]]] = deque()

    def submit(self, batch: Batch) -> Future[BatchRun]:
        future: Future[BatchRun] = Future()
        self.queue.append((batch, future))
        if self.at_once:
            self.run_next()
        return future

    def wait(self, futures: Sequence[Future[BatchRun]], seconds: float) -> None:
        """Time stands still here: what is not done now will not be done by waiting."""

    def stop(self) -> None:
        """Nothing runs here that could be stopped."""

    def run_next(self) -> None:
        batch, future = self.queue.popleft()
        if not future.set_running_or_notify_cancel():
            return
        task: Any = batch.task
        outputs = isolate(batch.rows, lambda rows: task.forward(task.collate(batch.part(rows))))
        future.set_result(BatchRun([_as_request_error(output) for output in outputs], 1_000.0, 0.001))


def _as_request_error(output: Any) -> Any:
    from nlp_worker.errors import InferenceFailedError  # noqa: PLC0415 - only where something failed

    return InferenceFailedError(str(output)) if isinstance(output, Exception) else output


class FakePublisher:
    def __init__(self, limit: int = 10_000_000) -> None:
        self.messages: list[Message] = []
        self.limit = limit
        self.failures: list[Exception] = []

    def fits(self, message: Message) -> bool:
        return len(message.value or b"") <= self.limit

    def publish(self, messages: Sequence[Message], seconds: float) -> None:
        del seconds
        if self.failures:
            raise self.failures.pop(0)
        self.messages.extend(messages)

    def answers(self) -> list[dict[str, Any]]:
        return [json.loads(m.value or b"") for m in self.messages if m.topic == RESULTS]

    def dead_letters(self) -> list[Message]:
        return [message for message in self.messages if message.topic == DEAD_LETTERS]


class FakeKafka:
    """One requests topic and one group: what outlives the workers."""

    def __init__(self, partitions: int = 1) -> None:
        self.logs: dict[Partition, list[FakeRecord]] = {Partition(REQUESTS, p): [] for p in range(partitions)}
        self.committed = dict.fromkeys(self.logs, 0)
        self.metadata: dict[Partition, str] = {}

    def send(self, value: object, partition: int = 0, headers: Sequence[tuple[str, bytes | None]] = ()) -> None:
        log = self.logs[Partition(REQUESTS, partition)]
        log.append(record(value, offset=len(log), partition=partition)._replace(headers=headers))


class FakeConsumer:
    """A member of the group, whose partitions are given and taken by the test."""

    def __init__(self, kafka: FakeKafka, *, assigned: bool = True) -> None:
        self.kafka = kafka
        self.positions: dict[Partition, int] = {}
        self.paused = False
        self.rejoining = False
        self.revoked: set[Partition] = set()
        self.outcomes: list[Committed] = []
        self.commits: list[dict[Partition, int]] = []
        self.before: dict[Partition, Commit] = {}
        self.timeouts: list[int] = []
        if assigned:
            self.give(kafka.logs)

    def give(self, partitions: Any) -> None:
        self.positions.update({partition: self.kafka.committed[partition] for partition in partitions})

    def take(self, partitions: Any) -> None:
        for partition in partitions:
            del self.positions[partition]
            self.revoked.add(partition)

    @property
    def assigned(self) -> bool:
        return bool(self.positions)

    def poll(self, timeout_ms: int, max_records: int) -> list[FakeRecord]:
        self.timeouts.append(timeout_ms)
        if self.paused:
            return []
        found: list[FakeRecord] = []
        for partition, position in self.positions.items():
            fetched = self.kafka.logs[partition][position : position + max_records - len(found)]
            self.positions[partition] += len(fetched)
            found += fetched
        return found

    @property
    def membership(self) -> object | None:
        return None if self.rejoining else self

    def behind(self) -> dict[Partition, int]:
        return {p: len(self.kafka.logs[p]) - position for p, position in self.positions.items()}

    def take_revoked(self) -> set[Partition]:
        taken, self.revoked = self.revoked, set()
        return taken

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def commit(self, offsets: Mapping[Partition, Commit]) -> Committed:
        outcome = self.outcomes.pop(0) if self.outcomes else Committed.DONE
        if outcome is Committed.DONE:
            self._keep(offsets)
            self.commits.append({partition: commit.offset for partition, commit in offsets.items()})
        return outcome

    def _keep(self, offsets: Mapping[Partition, Commit]) -> None:
        self.kafka.committed.update({partition: commit.offset for partition, commit in offsets.items()})
        self.kafka.metadata.update({partition: commit.metadata for partition, commit in offsets.items()})

    def committed(self, partitions: Collection[Partition]) -> dict[Partition, Commit]:
        return {p: Commit(self.kafka.committed[p], self.kafka.metadata.get(p, "")) for p in partitions}

    def begin(self, marks: Mapping[Partition, Commit], before: Mapping[Partition, Commit]) -> Committed:
        self._keep(marks)
        self.before.update(before)
        return Committed.DONE

    def restore(self) -> None:
        self._keep({p: commit for p, commit in self.before.items() if self.kafka.committed[p] == commit.offset})


class Bench:
    """A worker on fakes."""

    def __init__(self, partitions: int = 1, *, at_once: bool = True, limits: Limits | None = None) -> None:
        self.kafka = FakeKafka(partitions)
        self.publisher = FakePublisher()
        self.executor = FakeExecutor(at_once=at_once)
        self.clock = ManualClock()
        self.task = FakeTask()
        self.limits = limits or Limits()
        self.consumer = FakeConsumer(self.kafka)
        self.worker = self.start(self.consumer, self.executor)

    def start(
        self,
        consumer: FakeConsumer,
        executor: FakeExecutor,
        delivery: Delivery | None = None,
        max_age: float = math.inf,
    ) -> Worker:
        return Worker(
            consumer,
            delivery or AtLeastOnce(self.publisher, consumer, self.clock),
            executor,
            Intake(
                {REQUESTS: TaskName.TEXT_CLASSIFICATION},
                {TaskName.TEXT_CLASSIFICATION: {"fake": self.task}},
                self.clock,
                max_age,
                REPLY_TOPICS,
            ),
            Answering("nlp", "worker-1", self.publisher.fits),
            planner=Planner(BATCH_TOKENS),
            limits=self.limits,
            clock=self.clock,
        )

    def settle(self, steps: int = 4) -> None:
        for _ in range(steps):
            self.worker.run_once()


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    return random.Random(seed).sample(list(items), len(items))  # noqa: S311 - a test's order, not a secret
