"""The embedded broker's groups: timers, states and static members, which no real broker shows this quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nlp_worker.broker import EmbeddedBroker
from wire import Wire, join_request, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(topics={"t": 1}) as broker:
        yield broker


@pytest.fixture
def wire(broker: EmbeddedBroker) -> Iterator[Wire]:
    with Wire(broker) as wire:
        yield wire


def test_a_dead_member_leaves_when_its_session_is_over(broker: EmbeddedBroker, wire: Wire) -> None:
    """A member that vanishes without a word holds up the next rebalance for its session timeout, and no longer."""
    with Wire(broker) as mortal:
        dead = mortal.join_twice(session_ms=100, rebalance_ms=60_000)
        assert mortal.sync(dead, b"all").error_code == 0
    heir = wire.join_twice(rebalance_ms=60_000)
    assert (heir.error_code, heir.generation_id) == (0, 2)
    assert [member.member_id for member in heir.members] == [heir.member_id]


def test_who_waits_in_a_join_does_not_expire(broker: EmbeddedBroker, wire: Wire) -> None:
    """A parked member outlives its session; who does not rejoin within the rebalance timeout is dropped."""
    with Wire(broker) as deaf:
        first = deaf.join_twice(rebalance_ms=300)
        deaf.sync(first, b"all")
        second = wire.join_twice(session_ms=50, rebalance_ms=300)
        assert (second.error_code, second.leader) == (0, second.member_id)
        assert deaf.heartbeat(first) == 25


def test_a_rebalance_goes_through_its_states(broker: EmbeddedBroker, wire: Wire) -> None:
    """While members gather: heartbeats are told, commits are taken. While the leader assigns: commits must wait."""
    first = wire.join_twice()
    assert wire.commit(1, first.member_id) == 27
    assert wire.sync(first, b"all").assignment == b"all"
    assert (wire.heartbeat(first), wire.commit(1, first.member_id)) == (0, 0)
    with Wire(broker) as other:
        given = other.join().member_id
        request = join_request(10_000, 10_000, member_id=given)
        other.post(request, 7)
        wait_until(lambda: wire.heartbeat(first) == 27)
        assert wire.commit(1, first.member_id) == 0
        assert wire.sync(first).error_code == 27
        leader = wire.join(member_id=first.member_id)
        follower = other.read(request, 7)
    assert leader.generation_id == follower.generation_id == 2
    assert {member.member_id for member in leader.members} == {first.member_id, given}
    assert not follower.members
    assert wire.heartbeat(first) == 22
    assert wire.commit(2, "stranger") == 25
    assert wire.commit() == 25, "an administrator must wait until the group is empty"


def test_a_static_member_comes_back_without_a_rebalance(broker: EmbeddedBroker, wire: Wire) -> None:
    """It gets a new id, the same generation and the same partitions; its former self is fenced."""
    former = wire.join(instance_id="pod-0")
    wire.sync(former, b"all")
    with Wire(broker) as restarted:
        latter = restarted.join(instance_id="pod-0")
        assert latter.generation_id == former.generation_id
        assert latter.leader != latter.member_id, "it must not assign anew"
        assert restarted.sync(latter).assignment == b"all"
        assert restarted.heartbeat(latter, "pod-0") == 0
    assert wire.heartbeat(former, "pod-0") == 82


def test_without_a_common_assignor_there_is_no_group(wire: Wire) -> None:
    """Eager and cooperative members cannot share a group."""
    wire.join_twice()
    request = join_request(10_000, 10_000)
    request.protocols[0].name = "cooperative-sticky"
    assert wire.ask(request, 7).error_code == 23
