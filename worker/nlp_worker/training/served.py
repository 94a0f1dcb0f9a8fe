"""A checkpoint that is asked as a worker asks it: a record in, an answer out, by the worker's own parts; no broker."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_schemas import DEFAULT_PREFIX, requests_topic
from nlp_worker.answering import Answering
from nlp_worker.intake import Intake
from nlp_worker.poll import Poll

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nlp_worker.parts import Executor
    from nlp_worker.planner import Planner
    from nlp_worker.poll import Entry
    from nlp_worker.tasks.base import Task

#: Requests of a poll, as of a worker's own setting poll_records.
POLL_RECORDS: Final = 1_024


class _Record(NamedTuple):
    """What a consumer would give."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class ServedTask:
    """A task on a checkpoint.

    Args:
        task: Loaded.
        planner: Plans the batches; warmed up it plans them as a worker does.
        executor: Runs them.
    """

    def __init__(self, task: Task, planner: Planner, executor: Executor) -> None:
        topic = requests_topic(task.name)
        self._topic = topic
        self._intake = Intake({topic: task.name}, {task.name: {task.model.name: task}}, time)
        self._answering = Answering(DEFAULT_PREFIX, "evaluation", lambda _: True)
        self._planner = planner
        self._executor = executor

    def answers(self, requests: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Give the answer of each request as JSON has it, ``ok`` or ``error``, in their order.

        Args:
            requests: As a producer sends them.

        Raises:
            DeviceLostError: the device is lost.
        """
        for start in range(0, len(requests), POLL_RECORDS):
            entries = [
                self._intake.entry(_Record(self._topic, 0, start + number, -1, None, json.dumps(request).encode(), ()))
                for number, request in enumerate(requests[start : start + POLL_RECORDS])
            ]
            self._run(entries)
            for entry in entries:
                yield json.loads(self._answering.messages(entry)[-1].value or b"")

    def _run(self, entries: list[Entry]) -> None:
        self._intake.read(entries)
        work = [(batch, self._executor.submit(batch)) for batch in self._planner.plan(Poll.of(entries))]
        for batch, future in work:
            batch.land(future.result())
