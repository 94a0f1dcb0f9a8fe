"""From records to rows: decode, find the checkpoint that serves it, preprocess."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from nlp_schemas import Request, Stage
from nlp_worker import codec
from nlp_worker.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InvalidRequestError,
    RequestError,
    ResultTooLargeError,
    UnknownModelError,
)
from nlp_worker.isolation import isolate
from nlp_worker.poll import Entry, Record, Reply
from nlp_worker.tasks.base import Prepared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_schemas import RequestHeaders
    from nlp_worker.clock import Clock
    from nlp_worker.tasks.base import Task

#: Bytes, estimated: four times what a results topic takes (16 MiB). What is above is refused before it costs anything.
MAX_ANSWER_BYTES: Final = 64 * 2**20


class Intake:
    """Makes entries of records, and gives them their rows or the error that they are answered with.

    Args:
        topics: The task of each requests topic.
        tasks: The checkpoints that are served: for each task by name, the first being the default.
        clock: Tells how old a request is.
        max_age: Seconds after which a request is not computed, whatever it says itself.
        reply_topics: Topics that a request may want its answer in, with the number of partitions of each.
    """

    def __init__(
        self,
        topics: Mapping[str, str],
        tasks: Mapping[str, Mapping[str, Task]],
        clock: Clock,
        max_age: float = math.inf,
        reply_topics: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._topics = topics
        self._tasks = tasks
        self._clock = clock
        self._max_age = max_age
        self._reply_topics = reply_topics

    def entry(self, record: Record) -> Entry:
        entry = Entry(record, self._topics[record.topic], polled=self._clock.time())
        entry.request_id = entry.origin
        return entry

    def read(self, entries: Sequence[Entry]) -> None:
        """Decode and preprocess entries, the requests of one checkpoint in one call.

        Of one that failed already, unread, only its id is looked for.
        """
        by_task: dict[Task, list[Entry]] = {}
        for entry in entries:
            entry.read = True
            self._read_headers(entry)
            if entry.error is not None:
                entry.request_id = codec.valid_id(entry.record.value) or entry.request_id
                continue
            self._decode(entry)
            if entry.task is not None and entry.error is None:
                by_task.setdefault(entry.task, []).append(entry)
        for task, of_task in by_task.items():
            _preprocess(task, of_task)

    def _read_headers(self, entry: Entry) -> None:
        if not entry.record.headers:
            return
        try:
            headers = codec.decode_headers(entry.record.headers)
            entry.event = headers.is_event
            entry.request_id = (headers.ce_id if headers.is_event else None) or entry.request_id
            entry.reply = self._reply(headers)
        except InvalidRequestError as error:
            entry.fail(error, Stage.DECODE)

    def _reply(self, headers: RequestHeaders) -> Reply | None:
        topic, partition = headers.reply_topic, headers.reply_partition
        if topic is None:
            return None
        if topic not in self._reply_topics:
            allowed = ", ".join(self._reply_topics) or "none"
            raise InvalidRequestError(
                f"header kafka_replyTopic: {topic!r} is not allowed; the worker's reply_topic allows {allowed}"
            )
        if partition is not None and partition >= self._reply_topics[topic]:
            last = self._reply_topics[topic] - 1
            raise InvalidRequestError(
                f"header kafka_replyPartition: {partition} is not from 0 up to {last}, as {topic} has"
            )
        return Reply(topic, partition)

    def _decode(self, entry: Entry) -> None:
        try:
            entry.request = request = codec.decode(entry.record.value, entry.task_name)
            entry.request_id = request.id or entry.request_id
            entry.task = self._find(entry.task_name, request.model)
            entry.deadline = self._deadline(entry.record, request)
            self._check_deadline(entry)
        except InvalidRequestError as error:
            entry.request_id = error.request_id or entry.request_id
            entry.fail(error, Stage.DECODE)
        except RequestError as error:
            entry.fail(error, Stage.DECODE)

    def _find(self, task_name: str, model: str | None) -> Task:
        served = self._tasks[task_name]
        if model is None:
            return next(iter(served.values()))
        if model not in served:
            names = ", ".join(served)
            raise UnknownModelError(f"no checkpoint named {model!r} is served for {task_name}: there is {names}")
        return served[model]

    def _deadline(self, record: Record, request: Request) -> float:
        # A record without a timestamp (-1) has nothing that an age could be counted from.
        if record.timestamp < 0:
            return math.inf
        asked = math.inf if request.timeout_ms is None else request.timeout_ms / 1000
        return record.timestamp / 1000 + min(asked, self._max_age)

    def _check_deadline(self, entry: Entry) -> None:
        if (late := self._clock.time() - entry.deadline) > 0:
            allowed = entry.deadline - entry.record.timestamp / 1000
            told = f"{_duration(allowed)} were allowed, and the request was {_duration(allowed + late)} old"
            raise DeadlineExceededError(f"{told} when its turn came")

    def expire(self, entries: Sequence[Entry]) -> None:
        """Fail those whose time ran out since they were read: they are not computed."""
        for entry in entries:
            if entry.error is None:
                try:
                    self._check_deadline(entry)
                except DeadlineExceededError as error:
                    entry.fail(error, Stage.PREPROCESS)


def _duration(seconds: float) -> str:
    """Say it in milliseconds below 10 s, as a request does; clocks are no more exact."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f}".removesuffix(".0") + " s"  # noqa: PLR2004


def _preprocess(task: Task, entries: Sequence[Entry]) -> None:
    requests = [entry.request for entry in entries if entry.request is not None]
    for entry, outcome in zip(entries, isolate(requests, task.preprocess), strict=True):
        _keep(entry, outcome)


def _keep(entry: Entry, outcome: Any) -> None:
    if isinstance(outcome, RequestError):
        entry.fail(outcome, Stage.PREPROCESS)
    elif isinstance(outcome, Exception):
        entry.fail(InferenceFailedError.caused_by(outcome, "preprocess"), Stage.PREPROCESS)
    elif not isinstance(outcome, Prepared):
        # A plugin's mistake, as those that it raises.
        error = TypeError(f"preprocess gave {type(outcome).__name__} for a request, and not Prepared")
        entry.fail(InferenceFailedError.caused_by(error, "preprocess"), Stage.PREPROCESS)
    elif outcome.output_bytes > MAX_ANSWER_BYTES:
        problem = f"the answer would have about {outcome.output_bytes} bytes, at most {MAX_ANSWER_BYTES} are built"
        entry.fail(ResultTooLargeError(f"{problem}: ask for less"), Stage.PREPROCESS)
    else:
        entry.rows, entry.truncated, entry.output_bytes = outcome.rows, outcome.truncated, outcome.output_bytes
        for row in entry.rows:
            row.origin = entry.origin
