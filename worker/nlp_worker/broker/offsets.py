"""OffsetCommit and OffsetFetch, and the look-ups of groups: ListGroups, DescribeGroups, DeleteGroups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kafka.protocol.admin import DeleteGroupsResponse, DescribeGroupsResponse, ListGroupsResponse
from kafka.protocol.consumer import OffsetCommitResponse, OffsetFetchResponse

from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.group import CommittedOffset, Group, State
from nlp_worker.broker.groups import checked_id
from nlp_worker.broker.members import Identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nlp_worker.broker.cluster import Client, Cluster
    from nlp_worker.broker.members import Member

#: Characters of a committed offset's metadata (offset.metadata.max.bytes).
MAX_METADATA: Final = 4096

#: The version from which on several groups are asked for in one request.
FETCH_MANY: Final = 8

NOT_COMMITTED: Final = CommittedOffset(-1, -1, "")

CommitTopic = OffsetCommitResponse.OffsetCommitResponseTopic
CommitPartition = CommitTopic.OffsetCommitResponsePartition
FetchTopic = OffsetFetchResponse.OffsetFetchResponseTopic
FetchPartition = FetchTopic.OffsetFetchResponsePartition
FetchGroup = OffsetFetchResponse.OffsetFetchResponseGroup
GroupTopic = FetchGroup.OffsetFetchResponseTopics
GroupPartition = GroupTopic.OffsetFetchResponsePartitions
ListedGroup = ListGroupsResponse.ListedGroup
DescribedGroup = DescribeGroupsResponse.DescribedGroup
DescribedMember = DescribedGroup.DescribedGroupMember
DeletedGroup = DeleteGroupsResponse.DeletableGroupResult


async def offset_commit(cluster: Cluster, request: Any, _client: Client) -> Any:
    code, group = ErrorCode.NONE, None
    try:
        group = cluster.group(checked_id(request.group_id))
        identity = Identity(request.member_id, request.group_instance_id)
        group.check_commit(identity, request.generation_id_or_member_epoch)
    except RefusedError as error:
        code, group = error.code, None
    return OffsetCommitResponse(
        topics=[
            CommitTopic(
                name=topic.name,
                partitions=[
                    CommitPartition(
                        partition_index=part.partition_index,
                        error_code=code if group is None else _commit(cluster, group, topic.name, part),
                    )
                    for part in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _commit(cluster: Cluster, group: Group, topic: str, part: Any) -> ErrorCode:
    if len(part.committed_metadata or "") > MAX_METADATA:
        return ErrorCode.OFFSET_METADATA_TOO_LARGE
    try:
        cluster.topics.partition(topic, part.partition_index)
    except RefusedError as error:
        return error.code
    group.offsets[topic, part.partition_index] = CommittedOffset(
        part.committed_offset, part.committed_leader_epoch, part.committed_metadata
    )
    return ErrorCode.NONE


async def offset_fetch(cluster: Cluster, request: Any, _client: Client) -> Any:
    if request.version < FETCH_MANY:
        topics = _committed(cluster, request, FetchTopic, FetchPartition)
        return OffsetFetchResponse(topics=topics, error_code=ErrorCode.NONE)
    return OffsetFetchResponse(
        groups=[
            FetchGroup(
                group_id=wanted.group_id,
                topics=_committed(cluster, wanted, GroupTopic, GroupPartition),
                error_code=ErrorCode.NONE,
            )
            for wanted in request.groups
        ]
    )


def _committed(cluster: Cluster, wanted: Any, topic_class: Any, partition_class: Any) -> list[Any]:
    """Return the committed offsets of the wanted partitions (None: of all), in this version's classes."""
    group = cluster.groups.get(wanted.group_id)
    offsets = {} if group is None else group.offsets
    partitions: dict[str, Iterable[int]] = {}
    if wanted.topics is None:
        for topic, index in sorted(offsets):
            partitions[topic] = [*partitions.get(topic, ()), index]
    else:
        partitions = {topic.name: topic.partition_indexes for topic in wanted.topics}
    return [
        topic_class(
            name=topic,
            partitions=[
                _committed_partition(partition_class, index, offsets.get((topic, index), NOT_COMMITTED))
                for index in indexes
            ],
        )
        for topic, indexes in partitions.items()
    ]


def _committed_partition(partition_class: Any, index: int, committed: CommittedOffset) -> Any:
    return partition_class(
        partition_index=index,
        committed_offset=committed.offset,
        committed_leader_epoch=committed.leader_epoch,
        metadata=committed.metadata,
        error_code=ErrorCode.NONE,
    )


async def list_groups(cluster: Cluster, request: Any, _client: Client) -> Any:
    return ListGroupsResponse(
        error_code=ErrorCode.NONE,
        groups=[
            ListedGroup(group_id=group.group_id, protocol_type=group.protocol_type, group_state=group.state.value)
            for group in cluster.groups.values()
            if not request.states_filter or group.state.value in request.states_filter
        ],
    )


async def describe_groups(cluster: Cluster, request: Any, _client: Client) -> Any:
    return DescribeGroupsResponse(groups=[_describe(cluster, group_id) for group_id in request.groups])


def _describe(cluster: Cluster, group_id: str) -> Any:
    group = cluster.groups.get(group_id)
    if group is None:
        # Not an error, in any version offered: a group nobody has heard of is a dead one.
        return DescribedGroup(error_code=ErrorCode.NONE, group_id=group_id, group_state="Dead")
    return DescribedGroup(
        error_code=ErrorCode.NONE,
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=[_describe_member(group, member) for member in group.members.values()],
    )


def _describe_member(group: Group, member: Member) -> Any:
    return DescribedMember(
        member_id=member.member_id,
        group_instance_id=member.instance_id,
        client_id=member.joining.client_id,
        client_host=f"/{member.joining.client_host}",
        member_metadata=member.joining.protocols.get(group.protocol, b""),
        member_assignment=member.assignment,
    )


async def delete_groups(cluster: Cluster, request: Any, _client: Client) -> Any:
    return DeleteGroupsResponse(
        results=[
            DeletedGroup(group_id=group_id, error_code=_delete(cluster, group_id)) for group_id in request.groups_names
        ]
    )


def _delete(cluster: Cluster, group_id: str) -> ErrorCode:
    group = cluster.groups.get(group_id)
    if group is None:
        return ErrorCode.GROUP_ID_NOT_FOUND
    if group.state is not State.EMPTY:
        return ErrorCode.NON_EMPTY_GROUP
    del cluster.groups[group_id]
    return ErrorCode.NONE
