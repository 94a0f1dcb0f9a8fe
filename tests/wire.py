"""A Kafka client that says exactly what a test wants said: for the tests of the embedded broker."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Self

from kafka.protocol.consumer import (
    FetchRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    ListOffsetsRequest,
    OffsetCommitRequest,
    SyncGroupRequest,
)
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecordsBuilder

if TYPE_CHECKING:
    from collections.abc import Callable

    from nlp_worker.broker import EmbeddedBroker

#: Seconds for what happens at once, on a machine that is busy.
PATIENCE = 10.0


class Wire:
    """One connection."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        host, port = broker.bootstrap_servers.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def post(self, request: Any, version: int) -> None:
        request.API_VERSION = version
        request.with_header(correlation_id=7, client_id="wire")
        self.socket.sendall(request.encode(header=True, framed=True))

    def receive(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(4), signed=True))

    def read(self, request: Any, version: int) -> Any:
        return request.header.get_response_class().decode(self.receive(), version=version, header=True)

    def ask(self, request: Any, version: int) -> Any:
        self.post(request, version)
        return self.read(request, version)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def produce(self, records: bytes | None, acks: int = -1) -> Any:
        request = produce_request(records, acks)
        return self.ask(request, 9).responses[0].partition_responses[0]

    def end_offset(self, timestamp: int = -1) -> int:
        topic = ListOffsetsRequest.ListOffsetsTopic
        partition = topic.ListOffsetsPartition(partition_index=0, timestamp=timestamp)
        request = ListOffsetsRequest(replica_id=-1, topics=[topic(name="t", partitions=[partition])])
        offset: int = self.ask(request, 7).topics[0].partitions[0].offset
        return offset

    def join(self, session_ms: int = 10_000, rebalance_ms: int = 10_000, **identity: Any) -> Any:
        return self.ask(join_request(session_ms, rebalance_ms, **identity), 7)

    def join_twice(self, session_ms: int = 10_000, rebalance_ms: int = 10_000) -> Any:
        """Join as new members do: once to be given an id, once with it."""
        member_id = self.join(session_ms, rebalance_ms).member_id
        return self.join(session_ms, rebalance_ms, member_id=member_id)

    def sync(self, member: Any, assignment: bytes | None = None) -> Any:
        """Hand in an assignment, as the leader; or ask for it."""
        part = SyncGroupRequest.SyncGroupRequestAssignment(member_id=member.member_id, assignment=assignment)
        request = SyncGroupRequest(
            group_id="g",
            generation_id=member.generation_id,
            member_id=member.member_id,
            assignments=[] if assignment is None else [part],
        )
        return self.ask(request, 3)

    def commit(self, generation: int = -1, member_id: str = "", offset: int = 1) -> int:
        topic = OffsetCommitRequest.OffsetCommitRequestTopic
        partition = topic.OffsetCommitRequestPartition(partition_index=0, committed_offset=offset)
        request = OffsetCommitRequest(
            group_id="g",
            generation_id_or_member_epoch=generation,
            member_id=member_id,
            topics=[topic(name="t", partitions=[partition])],
        )
        code: int = self.ask(request, 8).topics[0].partitions[0].error_code
        return code

    def heartbeat(self, member: Any, instance_id: str | None = None) -> int:
        request = HeartbeatRequest(
            group_id="g",
            generation_id=member.generation_id,
            member_id=member.member_id,
            group_instance_id=instance_id,
        )
        code: int = self.ask(request, 4).error_code
        return code


def batch(values: int = 1, size: int = 10, timestamp: int = 1_000, **producer: Any) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1_000_000, **producer)
    for index in range(values):
        builder.append(timestamp=timestamp + index, key=None, value=b"v" * size)
    builder.close()
    return bytes(builder.buffer())


def idempotent(sequence: int, epoch: int = 0, **options: Any) -> bytes:
    return batch(producer_id=5, producer_epoch=epoch, base_sequence=sequence, **options)


def produce_request(records: bytes | None, acks: int = -1) -> Any:
    topic = ProduceRequest.TopicProduceData
    partition = topic.PartitionProduceData(index=0, records=records)
    return ProduceRequest(
        transactional_id=None, acks=acks, timeout_ms=1_000, topic_data=[topic(name="t", partition_data=[partition])]
    )


def fetch_request(offset: int, max_wait_ms: int) -> Any:
    topic = FetchRequest.FetchTopic
    partition = topic.FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1_000_000)
    return FetchRequest(
        max_wait_ms=max_wait_ms, min_bytes=1, max_bytes=1_000_000, topics=[topic(topic="t", partitions=[partition])]
    )


def join_request(session_ms: int, rebalance_ms: int, member_id: str = "", instance_id: str | None = None) -> Any:
    return JoinGroupRequest(
        group_id="g",
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=rebalance_ms,
        member_id=member_id,
        group_instance_id=instance_id,
        protocol_type="consumer",
        protocols=[JoinGroupRequest.JoinGroupRequestProtocol(name="range", metadata=b"m")],
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
