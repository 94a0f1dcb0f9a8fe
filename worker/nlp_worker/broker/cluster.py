"""What the handlers of all APIs share: a cluster of one broker."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from nlp_worker.broker.group import Group
from nlp_worker.broker.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Loopback alone: a broker that checks nobody must not be reachable from elsewhere.
HOST: Final = "127.0.0.1"

#: The only broker is controller, coordinator and leader of everything.
NODE_ID: Final = 0

CLUSTER_ID: Final = "embedded-development"


class Client(NamedTuple):
    """Who sent a request."""

    client_id: str
    host: str


class Cluster:
    """All state of the broker. It is only touched by the broker's event loop, so nothing is locked."""

    def __init__(self, auto_create_partitions: int | None = None) -> None:
        self.port = 0
        self.topics = Topics(auto_create_partitions)
        self.groups: dict[str, Group] = {}
        self.producer_ids: Iterator[int] = count()

    def group(self, group_id: str) -> Group:
        """Return the group, which asking to join or commit creates."""
        return self.groups.setdefault(group_id, Group(group_id))

    def delete_topic(self, name: str) -> None:
        self.topics.delete(name)
        for group in self.groups.values():
            for key in [key for key in group.offsets if key[0] == name]:
                del group.offsets[key]
