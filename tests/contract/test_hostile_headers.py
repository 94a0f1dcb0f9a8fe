"""Header keys that are not UTF-8, as other clients may send them, through a worker and a real broker."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition

from clients import producer, received
from nlp_schemas import DeadLetter
from nlp_worker.connection import client_settings, open_client
from nlp_worker.settings import load_settings
from processes import Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

BYTES = b"k\xff\xfe"


class RawKey(str):
    """Gives kafka-python's producer bytes that are not UTF-8: librdkafka's Python client takes texts only."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return BYTES


def test_a_record_whose_header_keys_are_not_utf_8_is_answered(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """One answer each, for a good request, a bad one and what stands behind them; the dead letter has the key's bytes.

    Without the worker's defence kafka-python takes the record for corrupt, and its partition is read no further.
    """
    with Topics(kafka_broker, partitions=1) as topics, WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker:
        with producer(kafka_broker) as sender:
            for value in (b'{"id": "good", "inputs": "a good day"}', b'{"id": "bad", "inputs": 5}'):
                sender.send(topics.name("requests"), value, b"key", [("text", b"1"), (RawKey("x"), b"2")]).get(30)
        topics.send([{"id": "next", "inputs": "another"}])
        topics.read_until(lambda: len(topics.answers) == 3 and bool(topics.dead_letters), worker)
        status = {name: [answer["status"] for answer in answers] for name, answers in topics.answers.items()}
        assert status == {"good": ["ok"], "bad": ["error"], "next": ["ok"]}
        (letter,) = read_all(kafka_broker, topics.name("dead-letter"))
        assert [(name.encode(), value) for name, value in letter.headers[:2]] == [(b"text", b"1"), (BYTES, b"2")]
        assert DeadLetter.from_headers(letter.headers).code == "invalid_request"


def read_all(broker: RunningKafka, topic: str) -> list[Any]:
    """Read what a topic has, with a client made as the worker makes its own."""
    settings = load_settings({"bootstrap_servers": broker.bootstrap_servers})
    own: dict[str, Any] = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    arguments = client_settings(settings, KafkaConsumer, own, {})
    with contextlib.closing(open_client(KafkaConsumer, arguments, "kafka.consumer")) as reader:
        partition = TopicPartition(topic, 0)
        reader.assign([partition])
        return received(reader, reader.end_offsets([partition])[partition])
