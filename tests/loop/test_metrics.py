"""The metrics: what Prometheus reads is what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from fakes import REQUESTS, Bench, record
from nlp_schemas import ErrorCode
from nlp_worker import connection
from nlp_worker.errors import BrokerError
from nlp_worker.lag import LOOK_INTERVAL
from nlp_worker.metrics import REGISTRY
from nlp_worker.parts import Limits
from nlp_worker.poll import Partition
from nlp_worker.settings import Settings
from nlp_worker.wiring import wired

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
P0, P1 = Partition(REQUESTS, 0), Partition(REQUESTS, 1)
MODEL = {"task": "text-classification", "model": "fake"}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"nlp_worker_{name}", labels) or 0.0


def lag(partition: Partition) -> float | None:
    return REGISTRY.get_sample_value(
        "nlp_worker_lag_records", {"topic": partition.topic, "partition": str(partition.partition)}
    )


def test_every_request_is_counted_once_with_its_outcome() -> None:
    """Good ones as ok, bad ones by the code of their error; what the device computed with its time."""
    counters = [
        ("requests_total", {"task": "text-classification", "code": "ok"}),
        ("requests_total", {"task": "text-classification", "code": "invalid_request"}),
        ("rows_total", MODEL),
        ("tokens_total", MODEL),
        ("padded_tokens_total", MODEL),
        ("device_seconds_total", MODEL),
    ]
    before = [value(name, **labels) for name, labels in counters]
    bench = Bench()
    for text in ("a", "b", "longer"):
        bench.kafka.send({"inputs": text})
    bench.kafka.send(b"{")
    bench.settle()
    counted = [value(name, **labels) - was for (name, labels), was in zip(counters, before, strict=True)]
    rows, tokens, padded, seconds = counted[2:]
    assert counted[:2] == [3, 1]
    assert rows == 3
    assert 3 <= tokens <= padded
    assert seconds > 0


def test_every_outcome_is_there_at_0_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before broker and checkpoints: a rate needs what was there before, or the first failures of a worker are none."""
    monkeypatch.setattr(connection, "connect", Mock(side_effect=BrokerError("away")))
    with pytest.raises(BrokerError), wired(Settings(), "worker", ["served"], Mock(), Mock()):
        pass
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    found = {s.labels["code"]: s.value for s in samples if s.labels.get("task") == "served"}
    assert found == dict.fromkeys(["ok", *ErrorCode], 0)


def test_the_lag_is_all_that_is_not_answered() -> None:
    """What waits in Kafka, what waits in the worker and what the device computes; and how long it takes."""
    bench = Bench(2, at_once=False, limits=Limits(records=4))
    for _ in range(100):
        bench.kafka.send({"inputs": "word"})
    bench.kafka.send({"inputs": "word"}, partition=1)
    bench.worker.run_once()
    assert (lag(P0), lag(P1)) == (100, 1)
    each = bench.worker._planner.device_seconds(bench.worker._polls[0].entries[0])
    assert each > 0
    assert value("lag_device_seconds") == pytest.approx(101 * each)


def test_the_age_is_that_of_the_oldest_request() -> None:
    """From when it was sent, whether it waits or is computed; one without a time has none."""
    bench = Bench(at_once=False)
    bench.worker.run_once()
    assert value("oldest_request_seconds") == 0
    for timestamp in (-1, 500_000, 400_000, 700_000):
        log = bench.kafka.logs[P0]
        log.append(record({"inputs": "word"}, offset=len(log))._replace(timestamp=timestamp))
    bench.clock.now += LOOK_INTERVAL
    bench.worker.run_once()
    assert value("oldest_request_seconds") == bench.clock.now - 400
    bench.executor.run_next()
    bench.clock.now += LOOK_INTERVAL
    bench.settle()
    assert value("oldest_request_seconds") == 0


def test_the_lag_of_a_partition_that_others_have_is_theirs_to_tell() -> None:
    """Summed over workers each partition counts once."""
    bench = Bench(2)
    bench.kafka.send({"inputs": "word"})
    bench.worker.run_once()
    assert lag(P1) == 0
    bench.consumer.take([P1])
    bench.clock.now += LOOK_INTERVAL
    bench.worker.run_once()
    assert lag(P1) is None
    assert lag(P0) is not None


def test_the_lag_is_looked_at_once_a_second() -> None:
    """Each look goes through all that is in the worker."""
    bench = Bench()
    bench.worker.run_once()
    bench.kafka.send({"inputs": "word"})
    bench.settle()
    for _ in range(5):
        bench.kafka.send({"inputs": "word"})
    bench.worker.run_once()
    assert lag(P0) == 0
    bench.clock.now += LOOK_INTERVAL
    for _ in range(3):
        bench.kafka.send({"inputs": "word"})
    bench.worker.run_once()
    assert lag(P0) == 3


def test_the_document_has_every_metric(request: pytest.FixtureRequest) -> None:
    """With its labels and its sentence: what an operator reads is what is measured."""
    rows = ["| metric | labels | |", "|---|---|---|"]
    # Nothing public tells the labels of a metric that has no value yet.
    metrics: list[Any] = list(dict.fromkeys(REGISTRY._names_to_collectors.values()))
    for metric in metrics:
        suffix = "_total" if metric._type == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{metric._name}{suffix}` | {labels} | {metric._documentation} |")
    written = DOCUMENT.read_text(encoding="utf-8").partition("| metric")[0] + "\n".join(rows) + "\n"
    if request.config.getoption("--write-docs"):
        DOCUMENT.write_text(written, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == written, "run `pytest tests/loop/test_metrics.py --write-docs`"
