"""What the control thread does for a request, stage by stage, and how many requests a second it carries.

Texts of 45 tokens for a real tokenizer and a real task; no Kafka, and a device that takes no time: what is left is what
the worker itself costs, and the most that one process can do however fast the device is.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import torch

from benchmarks.lengths import texts
from benchmarks.models import quiet
from benchmarks.report import Panel, Report, Spread
from checkpoints import build_checkpoint
from fakes import BATCH_TOKENS, DEAD_LETTERS, REQUESTS, FakeConsumer, FakeExecutor, FakeKafka, FakePublisher, record
from nlp_schemas import TaskName
from nlp_worker import models
from nlp_worker.answering import Answering
from nlp_worker.delivery import AtLeastOnce
from nlp_worker.intake import Intake
from nlp_worker.loop import Worker
from nlp_worker.planner import Planner
from nlp_worker.poll import BatchRun, Poll
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nlp_worker.poll import Row

TASK: Final = TaskName.TEXT_CLASSIFICATION

#: Tokens of a text, special tokens included: what sentences and paragraphs have on average.
TOKENS: Final = 45

#: Requests of a poll, as many as it has at most by default.
POLL: Final = 1_024

#: Polls of a round of the whole loop.
POLLS: Final = 10


def main(rounds: int) -> None:
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        path = build_checkpoint("distilbert", "sequence-classification", Path(folder), max_position_embeddings=512)
        task: Any = models.load(load_settings({"model": [f"small:{TASK}={path}"], "threads": 1}))[TASK]["small"]
    values = [
        {"id": f"r-{number}", "inputs": text}
        for number, text in enumerate(texts([TOKENS] * POLL, task._encoder.tokenizer))
    ]
    logits = torch.zeros(POLL, task._encoder.model.config.num_labels).numpy()
    # The device takes no time: neither tensors are made nor a forward is run.
    task.collate = lambda batch: len(batch.rows)
    task.forward = lambda count: list(logits[:count])
    stages: dict[str, list[float]] = {}
    whole: list[float] = []
    for _ in range(rounds):
        for stage, seconds in _stages(task, values).items():
            stages.setdefault(stage, []).append(1e6 * seconds / POLL)
        whole.append(_loop(task, values))
    rows: list[dict[str, str | float]] = [
        {"stage": stage, **Spread.of(measured).columns("us a request")} for stage, measured in stages.items()
    ]
    together = [1e6 / each for each in whole]
    rows.append({"stage": "the whole loop", **Spread.of(together).columns("us a request")})
    report = Report(
        name="stages",
        title=f"The control thread, {Spread.of(whole).median:,.0f} requests/s without Kafka and device",
        settings={"tokens": TOKENS, "requests a poll": POLL, "rounds": rounds},
        rows=rows,
        panels=[Panel("", {stage: Spread.of(measured) for stage, measured in stages.items()})],
        axis="microseconds a request",
    )
    report.show()
    report.write()


def _stages(task: Any, values: Sequence[Any]) -> dict[str, float]:
    """Return the seconds of each stage for one poll."""
    intake = Intake({REQUESTS: TASK}, {TASK: {"small": task}}, time)
    planner = Planner(BATCH_TOKENS)
    answering = Answering("nlp", "bench", FakePublisher().fits)
    entries = [intake.entry(record(value, offset=offset)) for offset, value in enumerate(values)]
    seconds = {}

    def decode() -> None:
        for entry in entries:
            intake._decode(entry)

    seconds["decode"] = _timed(decode)
    prepared: list[Any] = []
    requests = [entry.request for entry in entries]
    seconds["tokenize"] = _timed(lambda: prepared.extend(task.preprocess(requests)))
    for entry, outcome in zip(entries, prepared, strict=True):
        entry.rows = outcome.rows
    poll = Poll.of(entries)
    seconds["plan"] = _timed(lambda: planner.plan(poll))
    for entry in entries:
        _land(entry.rows, task)
    seconds["postprocess and encode"] = _timed(lambda: [answering.messages(entry) for entry in entries])
    return seconds


def _land(rows: Sequence[Row], task: Any) -> None:
    for row in rows:
        row.output, row.run = task.forward(1)[0], BatchRun([], 0.0, 0.0)


def _loop(task: Any, values: Sequence[Any]) -> float:
    """Return the requests a second that the loop carries from a consumer to a publisher that cost nothing."""
    kafka, publisher = FakeKafka(), FakePublisher()
    for _ in range(POLLS):
        for value in values:
            kafka.send(value)
    consumer = FakeConsumer(kafka)
    worker = Worker(
        consumer,
        AtLeastOnce(publisher, consumer),
        FakeExecutor(),
        Intake({REQUESTS: TASK}, {TASK: {"small": task}}, time),
        Answering("nlp", "bench", publisher.fits),
        planner=Planner(BATCH_TOKENS),
    )

    def run() -> None:
        while len(publisher.messages) < POLLS * POLL:
            worker.run_once()

    seconds = _timed(run)
    if any(message.topic == DEAD_LETTERS for message in publisher.messages):
        raise RuntimeError("a request failed, so what was measured is something else")
    return POLLS * POLL / seconds


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5)
def command(rounds: int) -> None:
    """Measure each stage, and the loop."""
    main(rounds)


if __name__ == "__main__":
    command()
