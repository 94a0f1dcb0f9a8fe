"""FindCoordinator and the APIs of consumer groups: membership, offsets, look-ups."""

from __future__ import annotations

from typing import Any, Final

from kafka.protocol.consumer import (
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    SyncGroupResponse,
)
from kafka.protocol.metadata import FindCoordinatorResponse

from nlp_worker.broker.cluster import HOST, NODE_ID, Client, Cluster
from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.group import Group, MemberIdRequiredError
from nlp_worker.broker.members import Identity, Joined, Joining, Parked

#: FindCoordinator: what is coordinated.
GROUP_KEY: Final = 0

#: The versions from which on requests or answers are made differently.
FIND_MANY: Final = 4
JOIN_ID_FIRST: Final = 4
JOIN_NULL_PROTOCOL: Final = 7
LEAVE_MANY: Final = 3

Coordinator = FindCoordinatorResponse.Coordinator
JoinedMember = JoinGroupResponse.JoinGroupResponseMember
LeftMember = LeaveGroupResponse.MemberResponse


async def find_coordinator(cluster: Cluster, request: Any, _client: Client) -> Any:
    if request.key_type == GROUP_KEY:
        found = {"error_code": ErrorCode.NONE, "node_id": NODE_ID, "host": HOST, "port": cluster.port}
    else:
        found = {
            "error_code": ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "error_message": "the embedded broker has no transactions",
            "node_id": -1,
            "host": "",
            "port": -1,
        }
    if request.version < FIND_MANY:
        return FindCoordinatorResponse(**found)
    return FindCoordinatorResponse(coordinators=[Coordinator(key=key, **found) for key in request.coordinator_keys])


def _known(cluster: Cluster, group_id: str) -> Group:
    """Return a group that has been joined or committed to."""
    group = cluster.groups.get(group_id)
    if group is None:
        raise RefusedError(ErrorCode.UNKNOWN_MEMBER_ID)
    return group


def _identity(request: Any) -> Identity:
    return Identity(request.member_id, request.group_instance_id)


async def join_group(cluster: Cluster, request: Any, client: Client) -> Any:
    try:
        joined = cluster.group(checked_id(request.group_id)).join(_joining(request, client))
        if isinstance(joined, Parked):
            joined = await joined.wait()
    except MemberIdRequiredError as required:
        return _not_joined(request, required.code, required.member_id)
    except RefusedError as error:
        return _not_joined(request, error.code, request.member_id)
    return _joined(request, joined)


def checked_id(group_id: str) -> str:
    if not group_id:
        raise RefusedError(ErrorCode.INVALID_GROUP_ID)
    return group_id


def _joining(request: Any, client: Client) -> Joining:
    # Apache Kafka refuses less than 6 s (group.min.session.timeout.ms); tests of dying members need less.
    if request.session_timeout_ms <= 0:
        raise RefusedError(ErrorCode.INVALID_SESSION_TIMEOUT)
    rebalance_timeout_ms = request.rebalance_timeout_ms if request.version >= 1 else request.session_timeout_ms
    return Joining(
        identity=_identity(request),
        client_id=client.client_id,
        client_host=client.host,
        session_timeout=request.session_timeout_ms / 1000,
        rebalance_timeout=rebalance_timeout_ms / 1000,
        protocol_type=request.protocol_type,
        protocols={protocol.name: protocol.metadata for protocol in request.protocols},
        gets_id_first=request.version >= JOIN_ID_FIRST,
    )


def _joined(request: Any, joined: Joined) -> Any:
    return JoinGroupResponse(
        error_code=ErrorCode.NONE,
        generation_id=joined.generation,
        protocol_type=request.protocol_type,
        protocol_name=joined.protocol,
        leader=joined.leader,
        member_id=joined.member_id,
        members=[
            JoinedMember(member_id=other.member_id, group_instance_id=other.instance_id, metadata=other.metadata)
            for other in joined.members
        ],
    )


def _not_joined(request: Any, code: ErrorCode, member_id: str) -> Any:
    return JoinGroupResponse(
        error_code=code,
        generation_id=-1,
        protocol_type=None,
        protocol_name=None if request.version >= JOIN_NULL_PROTOCOL else "",
        member_id=member_id,
    )


async def sync_group(cluster: Cluster, request: Any, _client: Client) -> Any:
    try:
        group = _known(cluster, request.group_id)
        assignments = {part.member_id: part.assignment for part in request.assignments}
        synced = group.sync(_identity(request), request.generation_id, assignments)
        if isinstance(synced, Parked):
            synced = await synced.wait()
    except RefusedError as error:
        return SyncGroupResponse(error_code=error.code)
    return SyncGroupResponse(
        error_code=ErrorCode.NONE,
        protocol_type=group.protocol_type,
        protocol_name=synced.protocol,
        assignment=synced.assignment,
    )


async def heartbeat(cluster: Cluster, request: Any, _client: Client) -> Any:
    try:
        _known(cluster, request.group_id).heartbeat(_identity(request), request.generation_id)
    except RefusedError as error:
        return HeartbeatResponse(error_code=error.code)
    return HeartbeatResponse(error_code=ErrorCode.NONE)


async def leave_group(cluster: Cluster, request: Any, _client: Client) -> Any:
    if request.version < LEAVE_MANY:
        return LeaveGroupResponse(error_code=_leave(cluster, request.group_id, Identity(request.member_id)))
    members = [Identity(member.member_id, member.group_instance_id) for member in request.members]
    return LeaveGroupResponse(
        error_code=ErrorCode.NONE,
        members=[
            LeftMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                error_code=_leave(cluster, request.group_id, member),
            )
            for member in members
        ],
    )


def _leave(cluster: Cluster, group_id: str, identity: Identity) -> ErrorCode:
    try:
        _known(cluster, group_id).leave(identity)
    except RefusedError as error:
        return error.code
    return ErrorCode.NONE
