"""Answers that go where their requests want them, from Kafka to Kafka."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from clients import rd_consumer, rd_received, unique
from nlp_worker.errors import ExitCode
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

REQUEST = {"inputs": "a good day"}


def test_an_answer_goes_to_the_partition_that_its_request_names(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """And an error where its topic is not allowed, to the results topic like every answer to a plain request."""
    # The embedded broker has no transactions.
    delivery = "at-least-once" if request.node.callspec.params["kafka_broker"] == "embedded" else "exactly-once"
    replies, others = unique("replies"), unique("others")
    kafka_broker.create_topic(replies, 3)
    kafka_broker.create_topic(others, 1)
    arguments = ["--reply-topic", replies, "--reply-topic", others, "--delivery", delivery]
    with Topics(kafka_broker, 1) as topics, WorkerProcess(topics, tiny_checkpoint, tmp_path, *arguments) as worker:
        for partition in range(3):
            topic, number = ("kafka_replyTopic", replies.encode()), ("kafka_replyPartition", partition.to_bytes(4))
            topics.send([{**REQUEST, "id": f"to {partition}"}], headers=[topic, number])
        topics.send([{**REQUEST, "id": "to any"}], headers=[("kafka_replyTopic", others.encode())])
        topics.send([{**REQUEST, "id": "refused"}], headers=[("kafka_replyTopic", topics.name("requests").encode())])
        topics.send([{**REQUEST, "id": "plain"}])
        with closing(rd_consumer(kafka_broker)) as reader:
            reader.subscribe([replies, others])
            found = {json.loads(record.value())["id"]: record for record in rd_received(reader, 4)}
        topics.read_until(lambda: len(topics.answers) == 2, worker)
    assert {name: (record.topic(), record.partition()) for name, record in found.items()} == {
        **{f"to {partition}": (replies, partition) for partition in range(3)},
        "to any": (others, 0),
    }
    assert {name: answer["status"] for name, (answer,) in topics.answers.items()} == {"refused": "error", "plain": "ok"}
    assert replies in topics.answers["refused"][0]["error"]["message"]


def test_a_reply_topic_that_is_missing_is_told_at_start(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """As any other topic that the worker writes to."""
    arguments = ["--reply-topic", "missing-replies"]
    with (
        Topics(embedded_kafka, 1) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path, *arguments) as worker,
    ):
        assert worker.end() == ExitCode.TOPICS
        assert "topic missing-replies does not exist: create it" in worker.log()
