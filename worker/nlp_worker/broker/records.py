"""Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and InitProducerId."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from kafka.protocol.consumer import (
    FetchResponse,
    ListOffsetsResponse,
    OffsetForLeaderEpochResponse,
)
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse

from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.log import LEADER_EPOCH

if TYPE_CHECKING:
    from nlp_worker.broker.cluster import Client, Cluster
    from nlp_worker.broker.log import PartitionLog

#: acks: none, the leader's, all replicas'. With one broker the last two are the same.
NO_ACKS: Final = 0
KNOWN_ACKS: Final = (NO_ACKS, 1, -1)

TopicProduceResponse = ProduceResponse.TopicProduceResponse
PartitionProduceResponse = TopicProduceResponse.PartitionProduceResponse
FetchableTopicResponse = FetchResponse.FetchableTopicResponse
FetchedPartition = FetchableTopicResponse.PartitionData
ListOffsetsTopic = ListOffsetsResponse.ListOffsetsTopicResponse
ListOffsetsPartition = ListOffsetsTopic.ListOffsetsPartitionResponse
LeaderEpochTopic = OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult
LeaderEpochPartition = LeaderEpochTopic.EpochEndOffset


async def produce(cluster: Cluster, request: Any, _client: Client) -> Any | None:
    responses = [
        TopicProduceResponse(
            name=topic.name,
            partition_responses=[_append(cluster, request.acks, topic.name, part) for part in topic.partition_data],
        )
        for topic in request.topic_data
    ]
    return None if request.acks == NO_ACKS else ProduceResponse(responses=responses)


def _append(cluster: Cluster, acks: int, topic: str, part: Any) -> Any:
    try:
        _check_acks(acks)
        partition = cluster.topics.partition(topic, part.index)
        base_offset = partition.append(part.records or b"", cluster.topics.get(topic).max_message_bytes)
    except RefusedError as error:
        return PartitionProduceResponse(
            index=part.index, error_code=error.code, base_offset=-1, error_message=error.message
        )
    return PartitionProduceResponse(
        index=part.index, error_code=ErrorCode.NONE, base_offset=base_offset, log_start_offset=partition.start_offset
    )


def _check_acks(acks: int) -> None:
    if acks not in KNOWN_ACKS:
        raise RefusedError(ErrorCode.INVALID_REQUIRED_ACKS)


class _Fetch:
    """What one Fetch request finds at one moment."""

    def __init__(self, cluster: Cluster, request: Any) -> None:
        self._cluster = cluster
        self._bytes_left = request.max_bytes
        self.size = 0
        self.failed = False
        self.partitions: list[PartitionLog] = []
        self.responses = [
            FetchableTopicResponse(topic=topic.topic, partitions=[self._read(topic.topic, p) for p in topic.partitions])
            for topic in request.topics
        ]

    def _read(self, topic: str, wanted: Any) -> Any:
        try:
            partition = self._cluster.topics.partition(topic, wanted.partition)
            self.partitions.append(partition)
            limit = min(wanted.partition_max_bytes, self._bytes_left)
            batches = partition.read(wanted.fetch_offset, limit, at_least_one=self.size == 0)
        except RefusedError as error:
            self.failed = True
            return FetchedPartition(partition_index=wanted.partition, error_code=error.code, high_watermark=-1)
        records = b"".join(batches)
        self.size += len(records)
        self._bytes_left -= len(records)
        return FetchedPartition(
            partition_index=wanted.partition,
            error_code=ErrorCode.NONE,
            high_watermark=partition.end_offset,
            last_stable_offset=partition.end_offset,
            log_start_offset=partition.start_offset,
            records=records,
        )


async def fetch(cluster: Cluster, request: Any, _client: Client) -> Any:
    """Answer when there are `min_bytes`, when something is wrong, or when `max_wait_ms` are over."""
    if request.session_id != 0:
        return FetchResponse(error_code=ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + request.max_wait_ms / 1000
    while True:
        found = _Fetch(cluster, request)
        if found.failed or found.size >= request.min_bytes or loop.time() >= deadline:
            # Session id 0 declines incremental sessions: every request names all its partitions.
            return FetchResponse(error_code=ErrorCode.NONE, session_id=0, responses=found.responses)
        await _appended(found.partitions, deadline - loop.time())


async def _appended(partitions: list[PartitionLog], timeout: float) -> None:  # noqa: ASYNC109 - a deadline is no error
    """Wait until something happens to one of the partitions."""
    event = asyncio.Event()
    for partition in partitions:
        partition.waiters.add(event)
    timer = asyncio.get_running_loop().call_later(timeout, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
        for partition in partitions:
            partition.waiters.discard(event)


async def list_offsets(cluster: Cluster, request: Any, _client: Client) -> Any:
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopic(
                name=topic.name, partitions=[_list_offset(cluster, topic.name, part) for part in topic.partitions]
            )
            for topic in request.topics
        ]
    )


def _list_offset(cluster: Cluster, topic: str, wanted: Any) -> Any:
    index = wanted.partition_index
    try:
        offset, timestamp = cluster.topics.partition(topic, index).find(wanted.timestamp)
    except RefusedError as error:
        return ListOffsetsPartition(partition_index=index, error_code=error.code)
    return ListOffsetsPartition(
        partition_index=index,
        error_code=ErrorCode.NONE,
        timestamp=timestamp,
        offset=offset,
        leader_epoch=LEADER_EPOCH if offset >= 0 else -1,
    )


async def offset_for_leader_epoch(cluster: Cluster, request: Any, _client: Client) -> Any:
    return OffsetForLeaderEpochResponse(
        topics=[
            LeaderEpochTopic(
                topic=topic.topic, partitions=[_epoch_end(cluster, topic.topic, part) for part in topic.partitions]
            )
            for topic in request.topics
        ]
    )


def _epoch_end(cluster: Cluster, topic: str, wanted: Any) -> Any:
    try:
        partition = cluster.topics.partition(topic, wanted.partition)
    except RefusedError as error:
        return LeaderEpochPartition(partition=wanted.partition, error_code=error.code)
    known = wanted.leader_epoch == LEADER_EPOCH
    return LeaderEpochPartition(
        partition=wanted.partition,
        error_code=ErrorCode.NONE,
        leader_epoch=LEADER_EPOCH if known else -1,
        end_offset=partition.end_offset if known else -1,
    )


async def init_producer_id(cluster: Cluster, request: Any, _client: Client) -> Any:
    if request.transactional_id is not None:
        return InitProducerIdResponse(error_code=ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    # A producer that wants its epoch raised gets a new id instead: its old batches are told apart just as well.
    return InitProducerIdResponse(error_code=ErrorCode.NONE, producer_id=next(cluster.producer_ids), producer_epoch=0)
