"""A TCP proxy before a broker that hurts chosen requests: it cuts, delays, holds, or changes what is answered.

    with FaultProxy(broker_port) as proxy:
        lost = proxy.add(CutAfter(ApiKey.EndTxn))  # the next one is applied, and its answer lost
        ...
        lost.wait()

A request meets at most one rule: the first that was added and still counts. Requests and responses of a connection keep
their order, as at a broker, so what is held or delayed holds up what comes after it on the same connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from apache_kafka import free_ports
from faults.rules import Hold, Request, Rule

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType


#: Seconds to wait for the proxy's own thread: what is waited for takes some at most.
PATIENCE: Final = 30.0

#: Bytes read ahead on a connection: asyncio's 64 KiB would stop and start the transport several times per request.
READ_AHEAD: Final = 2**20

#: What every request begins with, after its length: API key, version, correlation id.
HEADER: Final = struct.Struct(">hhi")

#: The length in front of every frame, and the correlation id that every response begins with.
INT32: Final = struct.Struct(">i")


R = TypeVar("R", bound=Rule)


class FaultProxy:
    """Stands before a broker, whose advertised address must be `port`.

    Args:
        broker_port: Where the broker listens, on loopback.
    """

    def __init__(self, broker_port: int) -> None:
        (self.port,) = free_ports(1)
        self._broker_port = broker_port
        self._rules: list[Rule] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def add(self, rule: R) -> R:
        """Let the rule count from now on, after those that were added before."""
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Let everything pass: rules are gone, what is held goes on, new connections are accepted."""
        for rule in self._rules:
            rule.remove()
            if isinstance(rule, Hold):
                rule.release()
        self._rules = []
        self.accept()

    def drop(self) -> None:
        """End all connections, and what is held or delayed on them; new ones are accepted."""
        self._run(self._drop())

    def refuse(self) -> None:
        """End all connections and refuse new ones, until `accept`."""
        self._run(self._refuse())

    def accept(self) -> None:
        self._run(self._accept())

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=READ_AHEAD)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.ExitStack() as both:
            both.callback(to_client.transport.abort)
            # OSError: the broker is down. CancelledError: `drop`.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port, limit=READ_AHEAD)
                both.callback(to_broker.transport.abort)
                await self._connect(client, to_client, broker, to_broker)

    async def _connect(
        self,
        client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        broker: asyncio.StreamReader,
        to_broker: asyncio.StreamWriter,
    ) -> None:
        """Return when either side ends, or a rule cuts."""
        hurt: dict[int, tuple[Rule, Request]] = {}
        pumps = [
            asyncio.ensure_future(self._requests(client, to_broker, hurt)),
            asyncio.ensure_future(_responses(broker, to_client, hurt)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(
        self, client: asyncio.StreamReader, to_broker: asyncio.StreamWriter, hurt: dict[int, tuple[Rule, Request]]
    ) -> None:
        while True:
            frame = await _read_frame(client)
            request = Request._make(HEADER.unpack_from(frame))
            rule = next((rule for rule in self._rules if rule.take(request)), None)
            if rule is not None:
                hurt[request.correlation_id] = rule, request
                await rule.on_request()
            await _write_frame(to_broker, frame)


async def _responses(
    broker: asyncio.StreamReader, to_client: asyncio.StreamWriter, hurt: dict[int, tuple[Rule, Request]]
) -> None:
    while True:
        frame = await _read_frame(broker)
        (correlation_id,) = INT32.unpack_from(frame)
        if (found := hurt.pop(correlation_id, None)) is not None:
            rule, request = found
            frame = await rule.on_response(request, frame)
        await _write_frame(to_client, frame)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = INT32.unpack(await reader.readexactly(INT32.size))
    return await reader.readexactly(length)


async def _write_frame(writer: asyncio.StreamWriter, frame: bytes) -> None:
    writer.write(INT32.pack(len(frame)) + frame)
    await writer.drain()
