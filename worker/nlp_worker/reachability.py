"""A broker that is away, told: kafka-python's own lines are kept from the log, and an idle worker says nothing else."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka import KafkaConsumer

    from nlp_worker.clock import Clock

log = structlog.get_logger()

#: Seconds between two looks: `poll` may be called a thousand times as often.
LOOK_INTERVAL: Final = 1.0

#: Seconds without a connection until it is told: a broker that restarts behind others is away for less.
PATIENCE: Final = 10.0

#: Seconds until it is told again.
REPEAT_INTERVAL: Final = 60.0


def is_connected(client: KafkaConsumer) -> bool:
    """Whether the client has a connection to any broker; asks none.

    That of a member to its coordinator has heartbeats and so is never closed as idle.
    """
    connections = client._manager._conns  # noqa: SLF001 - nothing public tells it without asking a broker
    # A list, at once: the I/O thread opens and closes connections meanwhile.
    return any(connection.connected for connection in list(connections.values()))


class Reachability:
    """Logs that the broker is away, and that it is back.

    Args:
        connected: Whether there is a connection to any broker; must not block.
        bootstrap_servers: Named in the log.
        clock: For the time between looks.
    """

    def __init__(self, connected: Callable[[], bool], bootstrap_servers: str, clock: Clock = time) -> None:
        self._connected = connected
        self._servers = bootstrap_servers
        self._clock = clock
        self._looked = -math.inf
        self._away_since: float | None = None
        self._told: float | None = None

    def check(self) -> None:
        """Look, now and then; cheap enough for every poll."""
        now = self._clock.monotonic()
        if now - self._looked < LOOK_INTERVAL:
            return
        self._looked = now
        if self._connected():
            self._note_connection(now)
        elif self._away_since is None:
            self._away_since = now
        elif now - self._away_since >= PATIENCE and (self._told is None or now - self._told >= REPEAT_INTERVAL):
            self._told = now
            log.warning(
                "broker_away",
                reason="no connection to any broker; the worker goes on when it has one",
                seconds=round(now - self._away_since, 1),
                bootstrap_servers=self._servers,
            )

    def _note_connection(self, now: float) -> None:
        if self._away_since is not None and self._told is not None:
            log.info("broker_back", seconds=round(now - self._away_since, 1))
        self._away_since = self._told = None
