"""Tasks on loaded checkpoints, asked as the worker asks them: bytes in, one poll, bytes out; without a broker."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, Final

import pytest

from fakes import BATCH_TOKENS, FakeRecord, ManualClock, shuffled
from nlp_schemas import RESULT, TaskName, requests_topic
from nlp_worker.answering import Answering
from nlp_worker.batching import Batch, plan
from nlp_worker.cost import FIRST_OVERHEAD
from nlp_worker.executor import Executor
from nlp_worker.intake import Intake
from nlp_worker.models import load
from nlp_worker.planner import Planner
from nlp_worker.settings import load_settings
from nlp_worker.tasks.base import Pending

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.poll import Entry, Row
    from nlp_worker.tasks.base import Task


#: What the models of these tests run on: `make test-gpu` says cuda. What they are compared with runs on the CPU.
DEVICE: Final = os.environ.get("TEST_DEVICE", "cpu")

#: As a worker does it, and with padding, which is all that most families allow.
PACKING: Final = ("auto", pytest.param("off", marks=pytest.mark.slow))


def serve(*models: tuple[str, Path] | str, **settings: Any) -> TaskBench:
    """Load checkpoints as a worker does, here in float32: (task, folder) of each, or as `--model` takes it."""
    specs = tuple(model if isinstance(model, str) else f"{model[0]}={model[1]}" for model in models)
    return TaskBench(load(load_settings({"model": specs, "device": DEVICE, "dtype": "float32", **settings})))


class TaskBench:
    """What lies between consumer and publisher, for one poll at a time."""

    def __init__(self, tasks: Mapping[str, Mapping[str, Task]]) -> None:
        self.tasks = tasks
        self._intake = Intake({requests_topic(task): task for task in (*TaskName, *tasks)}, tasks, ManualClock())
        self._answering = Answering("nlp", "bench", lambda _: True)
        #: Rows of each batch of the last poll that were on the device at once.
        self.batches: list[int] = []

    @property
    def task(self) -> Task:
        """The one that is served."""
        ((task,),) = [list(served.values()) for served in self.tasks.values()]
        return task

    def ask(
        self, requests: Sequence[Mapping[str, Any]], *, offsets: Sequence[int] | None = None, budget: int = 4096
    ) -> list[dict[str, Any]]:
        """Answer requests in one poll.

        Args:
            requests: As a producer sends them; ``task`` says which topic, where more than one is served.
            offsets: Of their records; their places in the list if not given. What is random depends on them.
            budget: Of the planner, in tokens.

        Returns:
            The answers as JSON has them, in the order of the requests; each fits the contract.
        """
        entries = [self._entry(*each) for each in zip(requests, offsets or range(len(requests)), strict=True)]
        self._intake.read(entries)
        rows: dict[Task, list[Row]] = {}
        for entry in entries:
            if entry.task is not None:
                rows.setdefault(entry.task, []).extend(entry.rows)
        self._run(rows, budget)
        return [self._answer(entry) for entry in entries]

    def outputs(self, requests: Sequence[Mapping[str, Any]], **options: Any) -> list[Any]:
        """Return what requests that are answered ``ok`` get; anything else fails the test."""
        answers = self.ask(requests, **options)
        assert all(answer["status"] == "ok" for answer in answers), [a for a in answers if a["status"] != "ok"]
        return [answer["outputs"] for answer in answers]

    def _entry(self, request: Mapping[str, Any], offset: int) -> Entry:
        task = request["task"] if "task" in request else next(iter(self.tasks))
        value = json.dumps(request).encode()
        return self._intake.entry(FakeRecord(requests_topic(task), 0, offset, 1_000, b"k", value, ()))

    def _run(self, rows: Mapping[Task, Sequence[Row]], budget: int) -> None:
        self.batches = []
        executor = Executor()
        try:
            for task, of_task in rows.items():
                for batch in plan(task, of_task, budget=budget, overhead=FIRST_OVERHEAD):
                    self.batches.append(batch.slots)
                    batch.land(executor.submit(batch).result())
        finally:
            executor.close()

    def _answer(self, entry: Entry) -> dict[str, Any]:
        value = self._answering.messages(entry)[-1].value or b""
        RESULT.validate_json(value)
        answer: dict[str, Any] = json.loads(value)
        return answer


def rows_of(task: Any, texts: Sequence[str]) -> list[Row]:
    """Return rows of the texts, alone and as pairs, as an encoder's forward takes them, in no order."""
    tokenizer, wanted = task._encoder.tokenizer, task.warm_up_rows()[0].parameters
    texts = [f"{text} {tokenizer.mask_token}" for text in texts] if task.name == "fill-mask" else texts
    rows: list[Row] = task._encoder.tokenize([(text, second) for text in texts for second in (None, "So?")])
    for row in rows:
        row.parameters = wanted
    return shuffled(rows, seed=0)


def computed(batch: Batch) -> Sequence[Any]:
    """Return what the forward makes of each row, waiting for a device that computes by itself."""
    task: Any = batch.task
    outputs = task.forward(task.collate(batch))
    return outputs.get() if isinstance(outputs, Pending) else outputs


def warm_up(tasks: Iterable[Task]) -> None:
    """Warm up as a worker does."""
    with contextlib.closing(Executor()) as executor:
        for task in tasks:
            Planner(BATCH_TOKENS).warm_up(task, executor)


def alone(bench: TaskBench, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the outputs of each request in a poll of its own."""
    return [bench.outputs([request])[0] for request in requests]


def said(answer: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return all that a generated answer says, but when."""
    assert answer["status"] == "ok", answer
    return answer["outputs"], answer["usage"], answer["finish_reasons"], answer["truncated"]
