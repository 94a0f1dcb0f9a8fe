"""Three nodes of Apache Kafka on this machine, each of which can be killed, frozen and started again.

with ApacheCluster() as cluster:
    cluster.create_topic("t")  # three replicas, two of them in sync for every acknowledgement
    cluster.kill(0)
    cluster.start(0)
    cluster.wait_until_whole()
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka.admin import AdminClient

from apache_kafka import LOOK_SECONDS, START_SECONDS, ApacheKafka, RunningKafka, create_topic
from clients import PATIENCE

if TYPE_CHECKING:
    from types import TracebackType

#: Of every topic, internal ones too: with two in sync for an acknowledgement one node may be away.
REPLICAS: Final = 3

#: Java takes the last of two lines with one name: these stand behind those of the single node.
CLUSTERED: Final = """
node.id={number}
controller.quorum.voters={voters}
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
# A frozen node leaves the replicas in sync after this, not after 30 seconds.
replica.lag.time.max.ms=3000
"""


class _Node(ApacheKafka):
    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self.voter = f"{number}@127.0.0.1:{self._controller_port}"
        self.voters = self.voter

    def start(self) -> None:
        # It answers when most of the others run too: the cluster waits.
        self._launch()

    def wait(self) -> None:
        self._wait_until_it_answers()

    def _server_properties(self) -> str:
        return super()._server_properties() + CLUSTERED.format(number=self._number, voters=self.voters)


class ApacheCluster(RunningKafka):
    """Nodes are counted from 0; all of them run, and are whole, when the block begins."""

    def __init__(self) -> None:
        self._nodes = [_Node(number) for number in range(1, REPLICAS + 1)]
        for node in self._nodes:
            node.voters = ",".join(each.voter for each in self._nodes)
        super().__init__(",".join(node.bootstrap_servers for node in self._nodes))

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for node in self._nodes:
                undo.enter_context(node)
            # All at once, before each by itself: without most of the others a clean end takes its time.
            undo.callback(self._kill_all)
            for node in self._nodes:
                node.wait()
            self.wait_until_whole()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    def _kill_all(self) -> None:
        for node in self._nodes:
            node.kill()

    def create_topic(self, name: str, partitions: int = 1, **configs: object) -> None:
        create_topic(self.client, name, partitions, replicas=REPLICAS, **configs)

    def kill(self, number: int) -> None:
        self._nodes[number].kill()

    def start(self, number: int) -> None:
        """Start, and return when it answers; `wait_until_whole` is when it has caught up."""
        self._nodes[number].start()
        self._nodes[number].wait()

    def freeze(self, number: int) -> None:
        self._nodes[number].freeze()

    def thaw(self, number: int) -> None:
        self._nodes[number].thaw()

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """Return the number of the node that leads this partition, None while there is none."""
        leader = self._metadata().topics[topic].partitions[partition].leader
        return leader - 1 if leader > 0 else None

    def wait_until_whole(self) -> None:
        """Return when every node is there, and every replica of every topic is in sync."""
        deadline = time.monotonic() + START_SECONDS
        while not self._whole():
            assert time.monotonic() < deadline, f"the cluster is not whole after {START_SECONDS:.0f} s"
            time.sleep(LOOK_SECONDS)

    def _whole(self) -> bool:
        metadata = self._metadata()
        partitions = [part for topic in metadata.topics.values() for part in topic.partitions.values()]
        return len(metadata.brokers) == REPLICAS and all(len(part.isrs) == REPLICAS for part in partitions)

    def _metadata(self) -> Any:
        """Ask any node that lives, with librdkafka: kafka-python's admin fails where it meets a dead one."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 2}).list_topics(timeout=PATIENCE)
