"""Metadata, DescribeCluster, and what creates, changes, describes and deletes topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kafka.protocol.admin import (
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
    DescribeClusterResponse,
    DescribeConfigsResponse,
)
from kafka.protocol.metadata import MetadataResponse

from nlp_worker.broker.cluster import CLUSTER_ID, HOST, NODE_ID, Client, Cluster
from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.log import LEADER_EPOCH
from nlp_worker.broker.topics import DEFAULT_CONFIGS

if TYPE_CHECKING:
    from nlp_worker.broker.topics import Topic

#: CreateTopics: the broker's own default.
UNSET: Final = -1

#: DescribeConfigs: the resource type of topics, and where a value comes from.
TOPIC_RESOURCE: Final = 2
BROKER_RESOURCE: Final = 4
TOPIC_CONFIG: Final = 1
DEFAULT_CONFIG: Final = 5

MetadataBroker = MetadataResponse.MetadataResponseBroker
MetadataTopic = MetadataResponse.MetadataResponseTopic
MetadataPartition = MetadataTopic.MetadataResponsePartition
CreatedTopic = CreateTopicsResponse.CreatableTopicResult
DeletedTopic = DeleteTopicsResponse.DeletableTopicResult
CreatedPartitions = CreatePartitionsResponse.CreatePartitionsTopicResult
DescribedConfigs = DescribeConfigsResponse.DescribeConfigsResult
DescribedConfig = DescribedConfigs.DescribeConfigsResourceResult
ClusterBroker = DescribeClusterResponse.DescribeClusterBroker


async def metadata(cluster: Cluster, request: Any, _client: Client) -> Any:
    everything = request.topics is None or (request.version == 0 and not request.topics)
    if everything:
        topics = [_described(topic) for topic in cluster.topics]
    else:
        topics = [_look_up(cluster, wanted, create=request.allow_auto_topic_creation) for wanted in request.topics]
    return MetadataResponse(
        brokers=[MetadataBroker(node_id=NODE_ID, host=HOST, port=cluster.port)],
        cluster_id=CLUSTER_ID,
        controller_id=NODE_ID,
        topics=topics,
    )


def _look_up(cluster: Cluster, wanted: Any, *, create: bool) -> Any:
    topics = cluster.topics
    try:
        if wanted.name is None:
            return _described(topics.by_id(wanted.topic_id))
        return _described(topics.get_or_create(wanted.name) if create else topics.get(wanted.name))
    except RefusedError as error:
        return MetadataTopic(error_code=error.code, name=wanted.name, topic_id=wanted.topic_id)


def _described(topic: Topic) -> Any:
    return MetadataTopic(
        error_code=ErrorCode.NONE,
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=[
            MetadataPartition(
                error_code=ErrorCode.NONE,
                partition_index=index,
                leader_id=NODE_ID,
                leader_epoch=LEADER_EPOCH,
                replica_nodes=[NODE_ID],
                isr_nodes=[NODE_ID],
            )
            for index in range(len(topic.partitions))
        ],
    )


async def describe_cluster(cluster: Cluster, request: Any, _client: Client) -> Any:
    return DescribeClusterResponse(
        error_code=ErrorCode.NONE,
        endpoint_type=request.endpoint_type,
        cluster_id=CLUSTER_ID,
        controller_id=NODE_ID,
        brokers=[ClusterBroker(broker_id=NODE_ID, host=HOST, port=cluster.port)],
    )


async def create_topics(cluster: Cluster, request: Any, _client: Client) -> Any:
    return CreateTopicsResponse(
        topics=[_create(cluster, wanted, validate_only=request.validate_only) for wanted in request.topics]
    )


def _create(cluster: Cluster, wanted: Any, *, validate_only: bool) -> Any:
    configs = {config.name: config.value for config in wanted.configs if config.value is not None}
    partitions = len(wanted.assignments) or (1 if wanted.num_partitions == UNSET else wanted.num_partitions)
    topic_id = None
    try:
        # As Apache Kafka: of a topic that exists it tells that alone.
        cluster.topics.check_new(wanted.name, partitions, configs)
        _check_replication(wanted.replication_factor)
        if not validate_only:
            topic_id = cluster.topics.create(wanted.name, partitions, configs).topic_id
    except RefusedError as error:
        return CreatedTopic(name=wanted.name, error_code=error.code, error_message=error.message)
    return CreatedTopic(
        name=wanted.name,
        topic_id=topic_id,
        error_code=ErrorCode.NONE,
        error_message=None,
        num_partitions=partitions,
        replication_factor=1,
    )


def _check_replication(factor: int) -> None:
    if factor not in (UNSET, 1):
        raise RefusedError(ErrorCode.INVALID_REPLICATION_FACTOR, f"there is one broker, for {factor} replicas")


async def delete_topics(cluster: Cluster, request: Any, _client: Client) -> Any:
    wanted = [(name, None) for name in request.topic_names] + [(topic.name, topic.topic_id) for topic in request.topics]
    return DeleteTopicsResponse(responses=[_delete(cluster, name, topic_id) for name, topic_id in wanted])


def _delete(cluster: Cluster, name: str | None, topic_id: Any) -> Any:
    try:
        topic = cluster.topics.by_id(topic_id) if name is None else cluster.topics.get(name)
    except RefusedError as error:
        return DeletedTopic(name=name, topic_id=topic_id, error_code=error.code, error_message=error.message)
    cluster.delete_topic(topic.name)
    return DeletedTopic(name=topic.name, topic_id=topic.topic_id, error_code=ErrorCode.NONE)


async def create_partitions(cluster: Cluster, request: Any, _client: Client) -> Any:
    return CreatePartitionsResponse(
        results=[_grow(cluster, wanted, validate_only=request.validate_only) for wanted in request.topics]
    )


def _grow(cluster: Cluster, wanted: Any, *, validate_only: bool) -> Any:
    try:
        topic = cluster.topics.get(wanted.name)
        topic.check_growth(wanted.count)
    except RefusedError as error:
        return CreatedPartitions(name=wanted.name, error_code=error.code, error_message=error.message)
    if not validate_only:
        topic.grow(wanted.count)
    return CreatedPartitions(name=wanted.name, error_code=ErrorCode.NONE)


async def describe_configs(cluster: Cluster, request: Any, _client: Client) -> Any:
    return DescribeConfigsResponse(results=[_describe_configs(cluster, wanted) for wanted in request.resources])


def _describe_configs(cluster: Cluster, wanted: Any) -> Any:
    try:
        configs = _configs(cluster, wanted)
    except RefusedError as error:
        return DescribedConfigs(
            error_code=error.code,
            error_message=error.message,
            resource_type=wanted.resource_type,
            resource_name=wanted.resource_name,
        )
    return DescribedConfigs(
        error_code=ErrorCode.NONE,
        error_message=None,
        resource_type=wanted.resource_type,
        resource_name=wanted.resource_name,
        configs=configs,
    )


def _configs(cluster: Cluster, wanted: Any) -> list[Any]:
    if wanted.resource_type == BROKER_RESOURCE:
        return []
    if wanted.resource_type != TOPIC_RESOURCE:
        raise RefusedError(ErrorCode.INVALID_REQUEST, "only topics and brokers have configurations here")
    topic = cluster.topics.get(wanted.resource_name)
    return [
        DescribedConfig(
            name=name,
            value=value,
            config_source=TOPIC_CONFIG if name in topic.configs else DEFAULT_CONFIG,
            is_default=name not in topic.configs,
            documentation=None,
        )
        for name, value in {**DEFAULT_CONFIGS, **topic.configs}.items()
        if not wanted.configuration_keys or name in wanted.configuration_keys
    ]
