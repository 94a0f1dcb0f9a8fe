"""A worker that many tests ask, on one broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clients import unique
from nlp_worker.client import Client
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka


class Served:
    """A broker, topics of text classification, and a worker with a tiny checkpoint."""

    def __init__(self, broker: RunningKafka, checkpoint: Path, folder: Path) -> None:
        self.broker = broker
        #: Where a client may have its answers, beside the results topic.
        self.replies = unique("replies")
        broker.create_topic(self.replies, 2)
        self.topics = Topics(broker, 3)
        self.worker = WorkerProcess(self.topics, checkpoint, folder, "--reply-topic", self.replies)

    def client(self, **options: Any) -> Client:
        return Client(self.topics.servers, topic_prefix=self.topics.prefix, timeout=PATIENCE, **options)

    def close(self) -> None:
        with self.topics, self.worker:
            pass
