"""The members of a consumer group, and what they are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from nlp_worker.broker.errors import ErrorCode, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Answer = TypeVar("Answer")


class Identity(NamedTuple):
    """Who a request says it comes from."""

    member_id: str
    instance_id: str | None = None


class MemberMetadata(NamedTuple):
    """What the leader is told about a member."""

    member_id: str
    instance_id: str | None
    metadata: bytes


@dataclass(frozen=True)
class Joining:
    """What a JoinGroup request asks for."""

    identity: Identity
    client_id: str
    client_host: str
    session_timeout: float
    rebalance_timeout: float
    protocol_type: str
    protocols: Mapping[str, bytes]
    """The member's metadata by assignor, the preferred one first."""
    gets_id_first: bool
    """From JoinGroup v4 on a new member is given its id before it takes part."""


class Joined(NamedTuple):
    """The answer to JoinGroup."""

    member_id: str
    generation: int
    protocol: str
    leader: str
    members: Sequence[MemberMetadata]


class Synced(NamedTuple):
    """The answer to SyncGroup."""

    protocol: str
    assignment: bytes


class Parked(Generic[Answer]):
    """A request that waits for the rest of its group."""

    def __init__(self) -> None:
        self._future: asyncio.Future[Answer | ErrorCode] = asyncio.get_running_loop().create_future()

    def answer(self, answer: Answer | ErrorCode) -> None:
        if not self._future.done():  # cancelled when the broker stops
            self._future.set_result(answer)

    async def wait(self) -> Answer:
        answer = await self._future
        if isinstance(answer, ErrorCode):
            raise RefusedError(answer)
        return answer


@dataclass(eq=False)
class Member:
    """One consumer, and the request it is parked in, if it is."""

    member_id: str
    joining: Joining
    assignment: bytes = b""
    join: Parked[Joined] | None = None
    sync: Parked[Synced] | None = None
    session: asyncio.TimerHandle | None = None

    @property
    def instance_id(self) -> str | None:
        return self.joining.identity.instance_id

    @property
    def parked(self) -> bool:
        return self.join is not None or self.sync is not None

    def park_join(self) -> Parked[Joined]:
        self.answer_join(ErrorCode.REBALANCE_IN_PROGRESS)  # an earlier request, whose connection is gone
        self.join = Parked()
        return self.join

    def answer_join(self, answer: Joined | ErrorCode) -> None:
        if self.join is not None:
            self.join.answer(answer)
            self.join = None

    def park_sync(self) -> Parked[Synced]:
        self.answer_sync(ErrorCode.REBALANCE_IN_PROGRESS)
        self.sync = Parked()
        return self.sync

    def answer_sync(self, answer: Synced | ErrorCode) -> None:
        if self.sync is not None:
            self.sync.answer(answer)
            self.sync = None

    def dismiss(self, reason: ErrorCode) -> None:
        """End what the member waits in, and its session."""
        self.answer_join(reason)
        self.answer_sync(reason)
        if self.session is not None:
            self.session.cancel()
            self.session = None
