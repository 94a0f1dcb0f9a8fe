"""The transaction APIs: refused, one and all, with the error that every client takes as final."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kafka.protocol.producer import (
    AddOffsetsToTxnResponse,
    AddPartitionsToTxnResponse,
    EndTxnResponse,
    TxnOffsetCommitResponse,
)

from nlp_worker.broker.errors import ErrorCode

if TYPE_CHECKING:
    from nlp_worker.broker.cluster import Client, Cluster

#: UNSUPPORTED_VERSION would be the plainer answer, but librdkafka retries on it for ever.
REFUSAL: Final = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED

PartitionsTopic = AddPartitionsToTxnResponse.AddPartitionsToTxnTopicResult
PartitionsPartition = PartitionsTopic.AddPartitionsToTxnPartitionResult
CommitTopic = TxnOffsetCommitResponse.TxnOffsetCommitResponseTopic
CommitPartition = CommitTopic.TxnOffsetCommitResponsePartition


async def add_partitions_to_txn(_cluster: Cluster, request: Any, _client: Client) -> Any:
    return AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=[
            PartitionsTopic(
                name=topic.name,
                results_by_partition=[
                    PartitionsPartition(partition_index=index, partition_error_code=REFUSAL)
                    for index in topic.partitions
                ],
            )
            for topic in request.v3_and_below_topics
        ]
    )


async def add_offsets_to_txn(_cluster: Cluster, _request: Any, _client: Client) -> Any:
    return AddOffsetsToTxnResponse(error_code=REFUSAL)


async def txn_offset_commit(_cluster: Cluster, request: Any, _client: Client) -> Any:
    return TxnOffsetCommitResponse(
        topics=[
            CommitTopic(
                name=topic.name,
                partitions=[
                    CommitPartition(partition_index=part.partition_index, error_code=REFUSAL)
                    for part in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


async def end_txn(_cluster: Cluster, _request: Any, _client: Client) -> Any:
    return EndTxnResponse(error_code=REFUSAL)
