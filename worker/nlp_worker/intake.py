"""From records to rows: decode, find the checkpoint that serves it, preprocess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nlp_schemas import Request, Stage, TaskName
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
from nlp_worker.poll import Entry, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nlp_worker.clock import Clock
    from nlp_worker.tasks.base import Prepared, Task

#: Bytes, estimated: four times what a results topic takes (16 MiB). What is above is refused before it costs anything.
MAX_ANSWER_BYTES: Final = 64 * 2**20


class Intake:
    """Makes entries of records, and gives them their rows or the error that they are answered with.

    Args:
        topics: The task of each requests topic.
        tasks: The checkpoints that are served: for each task by name, the first being the default.
        clock: Tells how old a request is.
    """

    def __init__(
        self, topics: Mapping[str, TaskName], tasks: Mapping[TaskName, Mapping[str, Task]], clock: Clock
    ) -> None:
        self._topics = topics
        self._tasks = tasks
        self._clock = clock

    def entry(self, record: Record) -> Entry:
        entry = Entry(record, self._topics[record.topic])
        entry.request_id = entry.origin
        return entry

    def read(self, entries: Sequence[Entry]) -> None:
        """Decode and preprocess entries, the requests of one checkpoint in one call."""
        by_task: dict[Task, list[Entry]] = {}
        for entry in entries:
            entry.read = True
            self._decode(entry)
            if entry.task is not None and entry.error is None:
                by_task.setdefault(entry.task, []).append(entry)
        for task, of_task in by_task.items():
            _preprocess(task, of_task)

    def _decode(self, entry: Entry) -> None:
        try:
            entry.request = request = codec.decode(entry.record.value, entry.task_name)
            entry.request_id = request.id or entry.request_id
            entry.task = self._find(entry.task_name, request.model)
            self._check_deadline(entry.record, request)
        except InvalidRequestError as error:
            entry.request_id = error.request_id or entry.request_id
            entry.fail(error, Stage.DECODE)
        except RequestError as error:
            entry.fail(error, Stage.DECODE)

    def _find(self, task_name: TaskName, model: str | None) -> Task:
        served = self._tasks[task_name]
        if model is None:
            return next(iter(served.values()))
        if model not in served:
            names = ", ".join(served)
            raise UnknownModelError(f"no checkpoint named {model!r} is served for {task_name}: there is {names}")
        return served[model]

    def _check_deadline(self, record: Record, request: Request) -> None:
        # A record without a timestamp (-1) has nothing that timeout_ms could count from.
        if request.timeout_ms is None or record.timestamp < 0:
            return
        age_ms = self._clock.time() * 1000 - record.timestamp
        if age_ms > request.timeout_ms:
            raise DeadlineExceededError(f"timeout_ms is {request.timeout_ms}, and {age_ms:.0f} ms were over")


def _preprocess(task: Task, entries: Sequence[Entry]) -> None:
    requests = [entry.request for entry in entries if entry.request is not None]
    for entry, outcome in zip(entries, isolate(requests, task.preprocess), strict=True):
        _keep(entry, outcome)


def _keep(entry: Entry, outcome: Prepared | Exception) -> None:
    if isinstance(outcome, RequestError):
        entry.fail(outcome, Stage.PREPROCESS)
    elif isinstance(outcome, Exception):
        entry.fail(InferenceFailedError.caused_by(outcome, "preprocess"), Stage.PREPROCESS)
    elif outcome.output_bytes > MAX_ANSWER_BYTES:
        problem = f"the answer would have about {outcome.output_bytes} bytes, at most {MAX_ANSWER_BYTES} are built"
        entry.fail(ResultTooLargeError(f"{problem}: ask for less"), Stage.PREPROCESS)
    else:
        entry.rows, entry.truncated, entry.output_bytes = outcome.rows, outcome.truncated, outcome.output_bytes
        for row in entry.rows:
            row.origin = entry.origin
