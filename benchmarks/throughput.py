"""How many requests a second the loop moves from Kafka to Kafka, with a model that answers at once.

One worker process and one broker of its own, on this machine; all requests are there before the worker starts, so
what is measured is the worker. Repeated, brokers in turn; the median is what counts. Run it with `make bench`, alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from apache_kafka import ApacheKafka, RunningKafka, why_not
from nlp_schemas import TaskName, dead_letter_topic, requests_topic, results_topic

if TYPE_CHECKING:
    from collections.abc import Iterator

TASK: Final = TaskName.TEXT_CLASSIFICATION
PARTITIONS: Final = 4
REQUESTS: Final = 60_000
ROUNDS: Final = 3

#: About 160 bytes of JSON: a sentence.
TEXT: Final = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want."
)


def main() -> None:
    rates: dict[str, list[float]] = {"embedded": [], "Apache Kafka": []}
    with contextlib.ExitStack() as stack:
        brokers: dict[str, RunningKafka] = {"embedded": stack.enter_context(_embedded())}
        if (reason := why_not()) is None:
            brokers["Apache Kafka"] = stack.enter_context(ApacheKafka())
        else:
            print(f"without Apache Kafka: {reason}")
        for number in range(ROUNDS):
            for name, broker in brokers.items():
                rates[name].append(_round(broker))
                print(f"round {number + 1}, {name}: {rates[name][-1]:,.0f} requests/s")
    for name, measured in rates.items():
        if measured:
            spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
            print(f"{name}: median {statistics.median(measured):,.0f} requests/s ({spread}) of {REQUESTS:,} requests")


@contextlib.contextmanager
def _embedded() -> Iterator[RunningKafka]:
    """The embedded broker as a process of its own: in this one it would share a core with nothing, but also a GIL."""
    command = [sys.executable, "-c", "from nlp_worker.broker import EmbeddedBroker as B; b = B(port=29192); b.run()"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield RunningKafka("127.0.0.1:29192")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _round(broker: RunningKafka) -> float:
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    for topic in (requests_topic, results_topic, dead_letter_topic):
        broker.create_topic(topic(TASK, prefix), PARTITIONS)
    _send(broker, prefix)
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    ends = [TopicPartition(results_topic(TASK, prefix), partition) for partition in range(PARTITIONS)]
    worker = subprocess.Popen([sys.executable, __file__, "worker", broker.bootstrap_servers, prefix])
    try:
        return _measure(reader, ends)
    finally:
        worker.kill()
        worker.wait()
        reader.close()


def _send(broker: RunningKafka, prefix: str) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=5, batch_size=128 * 2**10)
    for number in range(REQUESTS):
        value = json.dumps({"id": f"r-{number}", "inputs": TEXT}).encode()
        producer.send(requests_topic(TASK, prefix), value=value, key=str(number).encode())
    producer.flush()
    producer.close()


def _measure(reader: KafkaConsumer, ends: list[Any]) -> float:
    """Return the rate from the first answers to the last: starting the process is not the loop."""
    first: tuple[float, int] | None = None
    while True:
        answered, now = sum(reader.end_offsets(ends).values()), time.monotonic()
        if first is None and answered:
            first = now, answered
        if first is not None and answered >= REQUESTS:
            return float(answered - first[1]) / (now - first[0])
        time.sleep(0.02)


def _worker(bootstrap_servers: str, prefix: str) -> None:
    """The worker as `nlp-worker run` wires it, but for the model."""
    from fakes import FakeTask  # noqa: PLC0415 - of the worker's process
    from nlp_worker import logging as worker_logging  # noqa: PLC0415
    from nlp_worker.executor import Executor  # noqa: PLC0415
    from nlp_worker.settings import load_settings  # noqa: PLC0415
    from nlp_worker.wiring import wired  # noqa: PLC0415

    settings = load_settings({"bootstrap_servers": bootstrap_servers, "group": prefix, "topic_prefix": prefix})
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the life of the process
    worker_logging.configure(level="info", log_format="json", worker="bench", group=prefix)
    with wired(settings, "bench", [TASK], lambda: {TASK: {"fake": FakeTask()}}, Executor()) as worker:
        worker.run()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        _worker(*sys.argv[2:4])
    else:
        main()
