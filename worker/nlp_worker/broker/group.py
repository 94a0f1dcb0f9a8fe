"""One consumer group: the state machine of the classic rebalance protocol.

Empty ──join──▶ PreparingRebalance ──all joined, or time is up──▶ CompletingRebalance ──leader's sync──▶ Stable
                        ▲                                                 │                                │
                        └───────────── a member joins, leaves or dies ────┴────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from nlp_worker.broker.errors import ErrorCode, RefusedError
from nlp_worker.broker.members import Joined, Member, MemberMetadata, Synced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nlp_worker.broker.members import Identity, Joining, Parked

#: Seconds an empty group waits for more members (group.initial.rebalance.delay.ms). Kafka's own 3 s would make up
#: most of a test's time.
INITIAL_REBALANCE_DELAY: Final = 0.05


class State(Enum):
    """The names are what DescribeGroups reports."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


class CommittedOffset(NamedTuple):
    """Where a group goes on reading."""

    offset: int
    leader_epoch: int
    metadata: str | None


class Group:
    """Members, their generation, and the offsets they committed."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members: dict[str, Member] = {}
        self.offsets: dict[tuple[str, int], CommittedOffset] = {}
        self._pending: dict[str, asyncio.TimerHandle] = {}  # have been given an id, have not joined with it yet
        self._rebalance: asyncio.TimerHandle | None = None
        self._initial_delay = False

    def join(self, joining: Joining) -> Joined | Parked[Joined]:
        """Take part in the next generation, or in the running one where nothing about the member has changed."""
        self._check_protocols(joining)
        identity = joining.identity
        static = self._static_member(identity.instance_id)
        if identity.member_id:
            return self._rejoin(joining)
        member_id = f"{identity.instance_id or joining.client_id}-{uuid.uuid4()}"
        if static is not None:
            return self._replace(static, member_id, joining)
        if joining.gets_id_first and identity.instance_id is None:
            self._pending[member_id] = asyncio.get_running_loop().call_later(
                joining.session_timeout, self._forget_pending, member_id
            )
            raise MemberIdRequiredError(member_id)
        return self._add(member_id, joining)

    def _check_protocols(self, joining: Joining) -> None:
        common = self._common_protocols(joining.identity.member_id) & set(joining.protocols)
        if not joining.protocols or not joining.protocol_type:
            raise RefusedError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        if self.members and (joining.protocol_type != self.protocol_type or not common):
            alone = set(self.members) == {joining.identity.member_id}
            if not alone:
                raise RefusedError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)

    def _common_protocols(self, but: str = "") -> set[str]:
        """Return the assignors that every member (`but` one) knows."""
        known = [set(member.joining.protocols) for member in self.members.values() if member.member_id != but]
        return set.intersection(*known) if known else set()

    def _add(self, member_id: str, joining: Joining) -> Parked[Joined]:
        member = self.members[member_id] = Member(member_id, joining)
        self.protocol_type = joining.protocol_type
        self.leader = self.leader or member_id
        return self._rebalance_with(member)

    def _rejoin(self, joining: Joining) -> Joined | Parked[Joined]:
        member_id = joining.identity.member_id
        if member_id in self._pending:
            self._pending.pop(member_id).cancel()
            return self._add(member_id, joining)
        member = self.member(joining.identity)
        unchanged = member.joining.protocols == joining.protocols
        member.joining = joining
        is_leader = member_id == self.leader
        # Its answer may have got lost: tell it again. A stable group's leader that rejoins wants to assign anew.
        if unchanged and (self.state is State.COMPLETING or (self.state is State.STABLE and not is_leader)):
            self.touch(member)
            return self._joined(member)
        return self._rebalance_with(member)

    def _replace(self, old: Member, member_id: str, joining: Joining) -> Joined | Parked[Joined]:
        """Give a static member that came back its place under a new id; the old id is fenced."""
        leader = self.leader
        unchanged = old.joining.protocols == joining.protocols
        del self.members[old.member_id]
        old.dismiss(ErrorCode.FENCED_INSTANCE_ID)
        member = self.members[member_id] = Member(member_id, joining, old.assignment)
        if leader == old.member_id:
            self.leader = member_id
        if unchanged and self.state is State.STABLE:
            self.touch(member)
            # It hears of its old id as the leader, lest it assign partitions that are not to move.
            return Joined(member_id, self.generation, self.protocol, leader, ())
        return self._rebalance_with(member)

    def _rebalance_with(self, member: Member) -> Parked[Joined]:
        parked = member.park_join()
        if self.state is not State.PREPARING:
            self._prepare()
        self._complete_when_all_joined()
        return parked

    def _prepare(self) -> None:
        for member in self.members.values():
            if member.sync is not None:
                member.answer_sync(ErrorCode.REBALANCE_IN_PROGRESS)
                self.touch(member)
        self._initial_delay = self.state is State.EMPTY
        self.state = State.PREPARING
        self._schedule(INITIAL_REBALANCE_DELAY if self._initial_delay else self._rebalance_timeout())

    def _rebalance_timeout(self) -> float:
        return max((member.joining.rebalance_timeout for member in self.members.values()), default=0.0)

    def _schedule(self, delay: float) -> None:
        if self._rebalance is not None:
            self._rebalance.cancel()
        self._rebalance = asyncio.get_running_loop().call_later(delay, self._time_is_up)

    def _complete_when_all_joined(self) -> None:
        if self._initial_delay or self.state is not State.PREPARING:
            return
        if not self._pending and all(member.join is not None for member in self.members.values()):
            self._complete()

    def _time_is_up(self) -> None:
        if self._initial_delay:
            self._initial_delay = False
            self._schedule(self._rebalance_timeout())
            self._complete_when_all_joined()
        else:
            self._complete()

    def _complete(self) -> None:
        """Open the next generation with the members that joined, and static ones, which only their session ends."""
        for member in [member for member in self.members.values() if member.join is None]:
            if member.instance_id is None:
                self._drop(member)
        joined = [member for member in self.members.values() if member.join is not None]
        if self.members and not joined:
            self._schedule(self._rebalance_timeout())
            return
        if self._rebalance is not None:
            self._rebalance.cancel()
        self.generation += 1
        if not self.members:
            self.state, self.protocol, self.leader = State.EMPTY, "", ""
            return
        self.state, self.protocol = State.COMPLETING, self._elect_protocol()
        if self.members[self.leader].join is None:
            self.leader = joined[0].member_id
        for member in joined:
            member.answer_join(self._joined(member))
            self.touch(member)

    def _elect_protocol(self) -> str:
        """Return the assignor that most members prefer, of those that all know."""
        common = self._common_protocols()
        votes = Counter(
            next(name for name in member.joining.protocols if name in common) for member in self.members.values()
        )
        return votes.most_common(1)[0][0]

    def _joined(self, member: Member) -> Joined:
        everyone = [
            MemberMetadata(other.member_id, other.instance_id, other.joining.protocols[self.protocol])
            for other in self.members.values()
        ]
        members = everyone if member.member_id == self.leader else []
        return Joined(member.member_id, self.generation, self.protocol, self.leader, members)

    def sync(self, identity: Identity, generation: int, assignments: Mapping[str, bytes]) -> Synced | Parked[Synced]:
        """Hand in the leader's assignment, or wait for one's part of it."""
        member = self.member(identity, generation)
        if self.state is State.PREPARING:
            raise RefusedError(ErrorCode.REBALANCE_IN_PROGRESS)
        self.touch(member)
        if self.state is State.STABLE:
            return Synced(self.protocol, member.assignment)
        parked = member.park_sync()
        if member.member_id == self.leader:
            self._assign(assignments)
        return parked

    def _assign(self, assignments: Mapping[str, bytes]) -> None:
        self.state = State.STABLE
        for member in self.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync is not None:
                member.answer_sync(Synced(self.protocol, member.assignment))
                self.touch(member)

    def heartbeat(self, identity: Identity, generation: int) -> None:
        self.touch(self.member(identity, generation))
        if self.state is State.PREPARING:
            raise RefusedError(ErrorCode.REBALANCE_IN_PROGRESS)

    def check_commit(self, identity: Identity, generation: int) -> None:
        """Let members of this generation commit, and an administrator while nobody is there."""
        if generation < 0 and self.state is State.EMPTY:
            return
        self.touch(self.member(identity, generation))
        if self.state is State.COMPLETING:
            raise RefusedError(ErrorCode.REBALANCE_IN_PROGRESS)

    def member(self, identity: Identity, generation: int | None = None) -> Member:
        """Return the member a request comes from, if it is one (of this generation)."""
        static = self._static_member(identity.instance_id)
        if static is not None and static.member_id != identity.member_id:
            raise RefusedError(ErrorCode.FENCED_INSTANCE_ID)
        member = self.members.get(identity.member_id)
        if member is None:
            raise RefusedError(ErrorCode.UNKNOWN_MEMBER_ID)
        if generation not in (None, self.generation):
            raise RefusedError(ErrorCode.ILLEGAL_GENERATION)
        return member

    def _static_member(self, instance_id: str | None) -> Member | None:
        if instance_id is None:
            return None
        return next((member for member in self.members.values() if member.instance_id == instance_id), None)

    def leave(self, identity: Identity) -> None:
        if identity.member_id in self._pending:
            self._pending[identity.member_id].cancel()
            self._forget_pending(identity.member_id)
            return
        static = self._static_member(identity.instance_id)
        if static is not None and not identity.member_id:  # an administrator knows static members by instance id
            self._remove(static)
        else:
            self._remove(self.member(identity))

    def touch(self, member: Member) -> None:
        """Start the member's session anew."""
        if member.session is not None:
            member.session.cancel()
        member.session = asyncio.get_running_loop().call_later(member.joining.session_timeout, self._expire, member)

    def _expire(self, member: Member) -> None:
        # Who waits in a join or sync cannot send heartbeats; its session starts anew with the answer.
        if not member.parked:
            self._remove(member)

    def _remove(self, member: Member) -> None:
        self._drop(member)
        if self.state in (State.STABLE, State.COMPLETING):
            self._prepare()
        self._complete_when_all_joined()

    def _drop(self, member: Member) -> None:
        del self.members[member.member_id]
        member.dismiss(ErrorCode.UNKNOWN_MEMBER_ID)
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), "")

    def _forget_pending(self, member_id: str) -> None:
        del self._pending[member_id]
        self._complete_when_all_joined()


class MemberIdRequiredError(RefusedError):
    """Join again, with this id."""

    def __init__(self, member_id: str) -> None:
        super().__init__(ErrorCode.MEMBER_ID_REQUIRED)
        self.member_id = member_id
