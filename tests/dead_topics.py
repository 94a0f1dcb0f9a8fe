"""Dead letters that are made by hand, and the commands that read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest import mock

from click.testing import CliRunner, Result
from kafka import TopicPartition

from clients import consumer, producer, received, unique
from nlp_schemas import DeadLetter, Stage, TaskName
from nlp_worker import logging as worker_logging
from nlp_worker.cli import main
from nlp_worker.settings import load_settings

if TYPE_CHECKING:
    from apache_kafka import RunningKafka
    from nlp_worker.settings import Settings

TASK = TaskName.TEXT_CLASSIFICATION

#: Milliseconds since 1970, and the same: of the records, which are a minute apart.
START = 1_764_000_000_000
MINUTE = 60_000
START_TIME = "2025-11-24T16:00:00Z"

SECRET = "what the customer wrote"  # noqa: S105 - nothing that opens anything

ORIGINAL = [("traceparent", b"00-1"), ("twice", b"\xff\x00"), ("twice", b""), ("kafka_correlationId", b"7")]


class DeadTopics:
    """The topics of a task, and dead letters in them that are made by hand."""

    def __init__(self, broker: RunningKafka, task: TaskName = TASK, prefix: str = "", **configs: object) -> None:
        self.broker = broker
        self.task = task
        self.prefix = prefix or unique("dead")
        self.requests = f"{self.prefix}.{task}.requests"
        self.dead = f"{self.prefix}.{task}.dead-letter"
        broker.create_topic(self.requests, 2, **configs)
        # Its records have a time of long ago: half a minute after its start a broker deletes what is a week old.
        broker.create_topic(self.dead, 2, retention_ms=-1)

    @property
    def settings(self) -> Settings:
        return load_settings({"bootstrap_servers": self.broker.bootstrap_servers, "topic_prefix": self.prefix})

    def send(self, *letters: dict[str, Any]) -> list[str]:
        """Send records to the dead-letter topic, a minute apart; return their positions."""
        with producer(self.broker) as sender:
            sent = []
            for number, letter in enumerate(letters):
                record = {"topic": self.dead, "partition": 0, "timestamp_ms": START + number * MINUTE} | letter
                sent.append(sender.send(**record).get(timeout=30))
        return [f"{each.topic}-{each.partition}-{each.offset}" for each in sent]

    def letter(self, code: str = "inference_failed", **changed: Any) -> dict[str, Any]:
        """Make a dead letter; what is changed is of the record, or of the reason."""
        of_record = {name: changed.pop(name) for name in ("key", "value", "partition", "headers") if name in changed}
        reason = {"code": code, "message": f"{code} of the model", "exception": "ValueError", "stage": Stage.FORWARD}
        partition = changed.pop("original_partition", 1)
        source = {"topic": self.requests, "partition": partition, "offset": 7, "timestamp": START, "worker": "w"}
        headers = of_record.pop("headers", []) + DeadLetter.model_validate(reason | source | changed).to_headers()
        return {"key": b"k", "value": SECRET.encode(), "headers": headers} | of_record

    def run(self, command: str, *arguments: str) -> Result:
        """Run a command in this process, whose logging stays as it is."""
        options = ["--bootstrap-servers", self.broker.bootstrap_servers, "--topic-prefix", self.prefix]
        with mock.patch.object(worker_logging, "configure"):
            return CliRunner().invoke(main, ["dead-letters", command, *options, *arguments])

    def listed(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.run("list", "--json", *arguments)
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    def count(self) -> int:
        """Return how many records the requests topic has."""
        with consumer(self.broker) as reader:
            return sum(reader.end_offsets(self._partitions).values())

    def redriven(self, count: int) -> list[Any]:
        """Return what stands in the requests topic, which must have this many records."""
        found = self.count()
        assert found == count, f"{found} records instead of {count}"
        with consumer(self.broker) as reader:
            reader.assign(self._partitions)
            reader.seek_to_beginning()
            return received(reader, count)

    @property
    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self.requests, number) for number in range(2)]
