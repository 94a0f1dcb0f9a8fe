"""The APIs the broker offers, each with its range of versions, and how a request finds its handler.

The ranges are those that kafka-python's and librdkafka's requests were tried with. Fetch stays below 13 and Produce
below 10, for the later ones name topics by id.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka.protocol import admin as admin_protocol
from kafka.protocol import consumer, producer
from kafka.protocol import metadata as metadata_protocol
from kafka.protocol.api_header import RequestHeader

from nlp_worker.broker import admin, groups, offsets, records, transactions
from nlp_worker.broker.cluster import Client, Cluster
from nlp_worker.broker.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable

Handler = Callable[[Cluster, Any, Client], Awaitable[Any | None]]
"""Returns the response, or None where the client wants none."""


class Api(NamedTuple):
    """One kind of request."""

    request_class: Any
    min_version: int
    max_version: int
    handle: Handler


class Request(NamedTuple):
    """A decoded frame."""

    api: Api
    header: Any
    body: Any | None
    """None for an ApiVersions request newer than what is offered: only its header can be read."""


class UnreadableError(Exception):
    """What came over the connection is no request that this broker offers to answer."""


async def api_versions(_cluster: Cluster, _request: Any, _client: Client) -> Any:
    return _api_versions_response(ErrorCode.NONE)


def _api_versions_response(code: ErrorCode) -> Any:
    response_class = metadata_protocol.ApiVersionsResponse
    return response_class(
        error_code=code,
        api_keys=[
            response_class.ApiVersion(api_key=key, min_version=api.min_version, max_version=api.max_version)
            for key, api in APIS.items()
        ],
    )


def _by_key(apis: Iterable[Api]) -> dict[int, Api]:
    return {api.request_class.API_KEY: api for api in apis}


APIS: Final = _by_key(
    [
        Api(metadata_protocol.ApiVersionsRequest, 0, 3, api_versions),
        Api(metadata_protocol.MetadataRequest, 0, 12, admin.metadata),
        Api(metadata_protocol.FindCoordinatorRequest, 0, 4, groups.find_coordinator),
        # From version 3 on producers send record format v2. librdkafka takes gzip for unsupported where Produce
        # does not start at 0.
        Api(producer.ProduceRequest, 0, 9, records.produce),
        Api(producer.InitProducerIdRequest, 0, 4, records.init_producer_id),
        Api(producer.AddPartitionsToTxnRequest, 0, 3, transactions.add_partitions_to_txn),
        Api(producer.AddOffsetsToTxnRequest, 0, 3, transactions.add_offsets_to_txn),
        Api(producer.TxnOffsetCommitRequest, 0, 3, transactions.txn_offset_commit),
        Api(producer.EndTxnRequest, 0, 3, transactions.end_txn),
        Api(consumer.FetchRequest, 4, 12, records.fetch),
        Api(consumer.ListOffsetsRequest, 1, 7, records.list_offsets),
        Api(consumer.OffsetForLeaderEpochRequest, 2, 4, records.offset_for_leader_epoch),
        Api(consumer.JoinGroupRequest, 0, 7, groups.join_group),
        Api(consumer.SyncGroupRequest, 0, 5, groups.sync_group),
        Api(consumer.HeartbeatRequest, 0, 4, groups.heartbeat),
        Api(consumer.LeaveGroupRequest, 0, 5, groups.leave_group),
        Api(consumer.OffsetCommitRequest, 2, 8, offsets.offset_commit),
        Api(consumer.OffsetFetchRequest, 1, 8, offsets.offset_fetch),
        Api(admin_protocol.CreateTopicsRequest, 0, 7, admin.create_topics),
        Api(admin_protocol.DeleteTopicsRequest, 1, 6, admin.delete_topics),
        Api(admin_protocol.CreatePartitionsRequest, 0, 3, admin.create_partitions),
        Api(admin_protocol.DescribeConfigsRequest, 1, 4, admin.describe_configs),
        Api(admin_protocol.DescribeClusterRequest, 0, 1, admin.describe_cluster),
        Api(admin_protocol.ListGroupsRequest, 0, 4, offsets.list_groups),
        Api(admin_protocol.DescribeGroupsRequest, 0, 5, offsets.describe_groups),
        Api(admin_protocol.DeleteGroupsRequest, 0, 2, offsets.delete_groups),
    ]
)

API_VERSIONS: Final = metadata_protocol.ApiVersionsRequest.API_KEY

#: Bytes of api key and version, the part of a header that every version has.
PEEK: Final = 4


def decode(frame: bytes) -> Request:
    """Read a frame, or say that it cannot be read."""
    key, version = int.from_bytes(frame[:2], signed=True), int.from_bytes(frame[2:PEEK], signed=True)
    api = APIS.get(key)
    if len(frame) < PEEK or api is None:
        raise UnreadableError(f"API {key} is not offered")
    offered = api.min_version <= version <= api.max_version
    if not offered and key != API_VERSIONS:
        raise UnreadableError(f"version {version} of API {key} is not offered")
    try:
        stream = io.BytesIO(frame)
        header = RequestHeader.decode(stream, flexible=api.request_class.flexible_version_q(version))
        if not offered:
            return Request(api, header, None)
        return Request(api, header, api.request_class.decode(memoryview(frame)[stream.tell() :], version=version))
    except Exception as error:
        # Whatever kafka-python's generated decoders stumble over in garbage: they raise all sorts of errors.
        raise UnreadableError(f"version {version} of API {key} that cannot be decoded ({error!r})") from error


async def answer(cluster: Cluster, request: Request, client_host: str) -> bytes | None:
    """Return the encoded response, with its length in front."""
    version = request.header.request_api_version
    if request.body is None:
        # KIP-511: a client that is too new is told so in version 0, and asks again.
        version, response = 0, _api_versions_response(ErrorCode.UNSUPPORTED_VERSION)
    else:
        client = Client(request.header.client_id or "", client_host)
        response = await request.api.handle(cluster, request.body, client)
    if response is None:
        return None
    response.API_VERSION = version  # first: once there is a header, kafka-python takes it for a request's
    response.with_header(correlation_id=request.header.correlation_id)
    encoded: bytes = response.encode(header=True, framed=True)
    return encoded
