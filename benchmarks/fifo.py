"""A worker as dynamic batchers are: requests in the order in which they come, a fixed linger, a batch at a time.

A plain loop from Kafka to Kafka, at least once, with the settings that our worker gives the same client. The first
request of a batch waits for others until the batch is full or the linger is over, which began when that request was
sent; all are padded to the longest, classified as transformers' pipeline does, published and committed.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import torch
import transformers
from kafka import KafkaConsumer, KafkaProducer

from benchmarks.rate import TASK
from nlp_schemas import requests_topic, results_topic
from nlp_worker import kafka_clients
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds for what is already there when that time is over: a fetch of it takes one or two milliseconds.
FETCH: Final = 0.005

#: Milliseconds of a poll while there is nothing to do; it ends with the first request.
IDLE_MS: Final = 10_000


def command(checkpoint: Path, threads: int, rows: int, linger_ms: int) -> list[str]:
    """Return the command of such a worker that serves a checkpoint."""
    options = {"threads": threads, "rows": rows, "linger-ms": linger_ms}
    return [sys.executable, "-m", "benchmarks.fifo", str(checkpoint), *(f"--{key}={options[key]}" for key in options)]


def collect(
    poll: Callable[[int, int], Sequence[Any]], rows: int, linger: float, now: Callable[[], float] = time.time
) -> list[Any]:
    """Return the records of the next batch, one or more.

    Args:
        poll: Returns so many records at most, as soon as there is one, or none after so many milliseconds.
        rows: Of a full batch.
        linger: Seconds that the first record waits for others at most.
        now: The clock of the records' timestamps, in seconds.
    """
    records: list[Any] = []
    while not records:
        records += poll(IDLE_MS, rows)
    # What came while the batch before was computed has waited already.
    end = max(records[0].timestamp / 1_000 + linger, now() + FETCH)
    while len(records) < rows and (left_ms := int((end - now()) * 1_000)) > 0:
        records += poll(left_ms, rows - len(records))
    return records


class Classifier:
    """A checkpoint, as transformers' pipeline uses it."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
        self._model: Any = model.eval()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the best label of each text, with its score."""
        inputs = self._tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        scores, labels = self._model(**inputs).logits.softmax(-1).max(-1)
        names = self._model.config.id2label
        return [
            {"label": names[label], "score": score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--threads", type=int, required=True, help="Of torch.")
@click.option("--rows", type=int, required=True, help="Of a full batch.")
@click.option("--linger-ms", type=int, required=True, help="How long a batch's first request waits for others at most.")
def main(checkpoint: Path, threads: int, rows: int, linger_ms: int) -> None:
    """Serve a checkpoint; where, says the environment, as to a worker of ours."""
    settings = load_settings({})
    torch.set_num_threads(threads)
    classify = Classifier(checkpoint)
    broker = {"bootstrap_servers": settings.bootstrap_servers}
    producer = KafkaProducer(**broker, **kafka_clients.PRODUCER_SETTINGS)
    reader = KafkaConsumer(
        requests_topic(TASK, settings.topic_prefix),
        **broker,
        group_id=settings.group,
        **kafka_clients.CONSUMER_SETTINGS,
    )

    def poll(timeout_ms: int, most: int) -> list[Any]:
        return list(itertools.chain.from_iterable(reader.poll(timeout_ms, most).values()))

    while True:
        records = collect(poll, rows, linger_ms / 1_000)
        requests = [json.loads(record.value) for record in records]
        answers = classify([request["inputs"] for request in requests])
        for record, request, answer in zip(records, requests, answers, strict=True):
            value = json.dumps({"id": request["id"], "status": "ok", "outputs": [answer]}).encode()
            producer.send(results_topic(TASK, settings.topic_prefix), value=value, key=record.key)
        producer.flush()
        reader.commit()


if __name__ == "__main__":
    main()
