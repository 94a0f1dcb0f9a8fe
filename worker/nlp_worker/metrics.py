"""What Prometheus reads of a worker. Every metric stands here, and docs/metrics.md has the same list."""

from __future__ import annotations

import itertools
from collections import Counter as Counts
from functools import partial
from typing import TYPE_CHECKING, Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge

from nlp_schemas import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun, Entry

REGISTRY: Final = CollectorRegistry()

# Of each counter another metric would tell when it was made.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # has no types

_counter: Final = partial(Counter, registry=REGISTRY)
_gauge: Final = partial(Gauge, registry=REGISTRY)

_OF_MODEL: Final = ("task", "model")

#: The code of a request that has no error.
OK: Final = "ok"

REQUESTS: Final = _counter(
    "nlp_worker_requests",
    "Requests whose answers were published, by the code of their error; ok where there is none.",
    ("task", "code"),
)
ROWS: Final = _counter("nlp_worker_rows", "Rows that the device computed: a request has one or more.", _OF_MODEL)
TOKENS: Final = _counter("nlp_worker_tokens", "Tokens of these rows, without what was generated.", _OF_MODEL)
PADDED_TOKENS: Final = _counter(
    "nlp_worker_padded_tokens", "The same with padding: above tokens by what was computed in vain.", _OF_MODEL
)
DEVICE_SECONDS: Final = _counter("nlp_worker_device_seconds", "Seconds that batches took on the device.", _OF_MODEL)
DEVICE_IDLE_SECONDS: Final = _counter(
    "nlp_worker_device_idle_seconds", "Seconds that the device had nothing to do, counted when the next batch begins."
)
LAG_RECORDS: Final = _gauge(
    "nlp_worker_lag_records",
    "Requests of a partition that are not answered yet, as far as the broker has told.",
    ("topic", "partition"),
)
OLDEST_REQUEST_SECONDS: Final = _gauge(
    "nlp_worker_oldest_request_seconds",
    "Age of the oldest request that was polled and is not answered yet; 0 where there is none.",
)
LAG_DEVICE_SECONDS: Final = _gauge(
    "nlp_worker_lag_device_seconds", "Seconds that this worker's device will take for all of them."
)


def count_batch(batch: Batch, run: BatchRun) -> None:
    """Count a batch that the device has computed."""
    labels = batch.task.name, batch.task.model.name
    ROWS.labels(*labels).inc(len(batch.rows))
    TOKENS.labels(*labels).inc(batch.tokens)
    PADDED_TOKENS.labels(*labels).inc(batch.padded_tokens)
    DEVICE_SECONDS.labels(*labels).inc(run.seconds)
    DEVICE_IDLE_SECONDS.inc(run.idle)


def begin_at_0(task_names: Iterable[str]) -> None:
    """Have a number for every outcome of these tasks.

    Of a counter that appears with its first failures Prometheus sees no increase: a worker that fails, ends and begins
    anew would alarm nobody.
    """
    for labels in itertools.product(task_names, [OK, *ErrorCode]):
        REQUESTS.labels(*labels)


def count_answers(entries: Iterable[Entry]) -> None:
    """Count requests that were answered."""
    counts = Counts((entry.task_name, OK if entry.error is None else entry.error.code) for entry in entries)
    for labels, count in counts.items():
        REQUESTS.labels(*labels).inc(count)
