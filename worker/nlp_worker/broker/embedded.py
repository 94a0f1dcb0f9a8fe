"""The embedded broker's life: in a thread for tests, in the foreground for `nlp-worker broker`."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from typing import TYPE_CHECKING, Self

from nlp_worker.broker.cluster import HOST, Cluster
from nlp_worker.broker.server import READ_AHEAD, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

log = logging.getLogger("nlp_worker.broker")


class EmbeddedBroker:
    """A Kafka broker for development: on loopback only, in memory, without security, transactions or replication.

    It serves producing (idempotent too), fetching, consumer groups of the classic protocol, offsets, topics and the
    admin look-ups of kafka-python and librdkafka. Everything is gone when it stops.

        with EmbeddedBroker(topics={"requests": 4}) as broker:
            consumer = KafkaConsumer("requests", bootstrap_servers=broker.bootstrap_servers)

    Args:
        port: Where to listen; 0 takes a free port. One that is taken raises OSError at the start.
        topics: The topics to start with, and their numbers of partitions.
        auto_create_partitions: How many partitions a topic gets that is asked for and missing. None: it stays missing.
    """

    def __init__(
        self, *, port: int = 0, topics: Mapping[str, int] | None = None, auto_create_partitions: int | None = None
    ) -> None:
        self._cluster = Cluster(auto_create_partitions)
        self._cluster.port = port
        for name, partitions in (topics or {}).items():
            self._cluster.topics.create(name, partitions, {})
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it; known once it has started, where a free port was asked for."""
        if self._cluster.port == 0:
            raise RuntimeError("the broker takes a free port when it starts: ask after that")
        return f"{HOST}:{self._cluster.port}"

    def __enter__(self) -> Self:
        listener = self._listen()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve_in_thread(listener, ready)), name="embedded-broker", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._stop()
            self._thread.join()
            self._thread = None

    def run(self) -> None:
        """Serve in the foreground until SIGINT or SIGTERM."""
        asyncio.run(self._serve_until_signal(self._listen()))

    def _listen(self) -> socket.socket:
        """Bind here and now, so that a port that is taken is the caller's exception."""
        listener = socket.create_server((HOST, self._cluster.port))
        self._cluster.port = listener.getsockname()[1]
        return listener

    async def _serve_in_thread(self, listener: socket.socket, ready: threading.Event) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        ready.set()
        await self._serve(listener, stopped)

    async def _serve_until_signal(self, listener: socket.socket) -> None:
        stopped = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await self._serve(listener, stopped)

    async def _serve(self, listener: socket.socket, stopped: asyncio.Event) -> None:
        connections = Server(self._cluster)
        server = await asyncio.start_server(connections.connected, sock=listener, limit=READ_AHEAD)
        log.warning(
            "EMBEDDED BROKER on %s: FOR DEVELOPMENT ONLY. It keeps nothing, checks nobody and has no replicas.",
            self.bootstrap_servers,
        )
        try:
            await stopped.wait()
        finally:
            server.close()
            await connections.close()
            await server.wait_closed()
