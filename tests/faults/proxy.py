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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from kafka.protocol.api_header import ResponseClassRegistry
from kafka.protocol.data_container import DataContainer

from apache_kafka import free_ports

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from kafka.protocol.api_key import ApiKey

#: Seconds to wait for a rule to fire, or for the proxy's own thread: what is waited for takes some at most.
PATIENCE: Final = 30.0

#: Bytes read ahead on a connection: asyncio's 64 KiB would stop and start the transport several times per request.
READ_AHEAD: Final = 2**20

#: What every request begins with, after its length: API key, version, correlation id.
HEADER: Final = struct.Struct(">hhi")

#: The length in front of every frame, and the correlation id that every response begins with.
INT32: Final = struct.Struct(">i")


class Request(NamedTuple):
    """The part of a request's header that every version has; names as in kafka-python's RequestHeader."""

    request_api_key: int
    request_api_version: int
    correlation_id: int


class Cut(Exception):  # noqa: N818 - no error: what a rule says
    """The connection ends here."""


class Rule:
    """What happens to requests of one kind.

    Args:
        api: The kind.
        times: How many requests it is for; None: all until `remove`.
    """

    def __init__(self, api: ApiKey, times: int | None = 1) -> None:
        self.api = api
        self._left = times
        self._fired = 0
        self._changed = threading.Condition()

    @property
    def fired(self) -> int:
        """How many requests it has hurt: for a lost answer counted when it is lost, for a held request when held."""
        return self._fired

    def wait(self, times: int = 1, seconds: float = PATIENCE) -> None:
        """Return when it has fired so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._fired >= times, seconds), f"{self!r} after {seconds} s"

    def remove(self) -> None:
        """Let later requests pass."""
        self._left = 0

    def take(self, request: Request) -> bool:
        """Whether this request is the rule's."""
        if request.request_api_key != self.api or self._left == 0:
            return False
        if self._left is not None:
            self._left -= 1
        return True

    async def on_request(self) -> None:
        """Run before the broker has the request."""

    async def on_response(self, _request: Request, response: bytes) -> bytes:
        """Return what the client gets."""
        return response

    def _fire(self) -> None:
        with self._changed:
            self._fired += 1
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.api.name}) fired {self._fired} times"


R = TypeVar("R", bound=Rule)


class CutBefore(Rule):
    """The connection ends and the request never reaches the broker."""

    async def on_request(self) -> None:
        self._fire()
        raise Cut


class CutAfter(Rule):
    """The broker does what it is asked, and the connection ends instead of the answer."""

    async def on_response(self, _request: Request, _response: bytes) -> bytes:
        self._fire()
        raise Cut


class Fail(Rule):
    """The broker does what it is asked, and the client is told an error.

    Args:
        api: The kind of request.
        error: A class of kafka.errors.
        times: How many requests it is for; None: all until `remove`.
    """

    def __init__(self, api: ApiKey, error: Any, times: int | None = 1) -> None:
        super().__init__(api, times)
        self._code = int(error.errno)

    async def on_response(self, request: Request, response: bytes) -> bytes:
        self._fire()
        return with_error(request, response, self._code)


class _Late(Rule):
    """The request, or the response, waits.

    Args:
        api: The kind of request.
        times: How many requests it is for; None: all until `remove`.
        response: Whether it is the response that waits: the broker has done what it was asked.
    """

    def __init__(self, api: ApiKey, times: int | None = 1, *, response: bool = False) -> None:
        super().__init__(api, times)
        self._response = response

    async def on_request(self) -> None:
        if not self._response:
            self._fire()
            await self._wait()

    async def on_response(self, _request: Request, response: bytes) -> bytes:
        if self._response:
            self._fire()
            await self._wait()
        return response

    async def _wait(self) -> None:
        raise NotImplementedError


class Delay(_Late):
    """It comes so many seconds late; a request comes even where its client has gone meanwhile."""

    def __init__(self, api: ApiKey, seconds: float, times: int | None = 1, *, response: bool = False) -> None:
        super().__init__(api, times, response=response)
        self._seconds = seconds

    async def _wait(self) -> None:
        await asyncio.sleep(self._seconds)


class Hold(_Late):
    """It comes when the test calls `release`; a request comes even where its client has gone meanwhile."""

    def __init__(self, api: ApiKey, times: int | None = 1, *, response: bool = False) -> None:
        super().__init__(api, times, response=response)
        self._gate = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def release(self) -> None:
        """Let go what is held, and hold nothing more."""
        self.remove()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._gate.set)

    async def _wait(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._gate.wait()


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


def with_error(request: Request, response: bytes, code: int) -> bytes:
    """Return the response with this error code: for each partition where it has partitions, else for the whole."""
    response_class = ResponseClassRegistry.get_response_class(request)
    version = request.request_api_version
    decoded = response_class.decode(response, version=version, header=True)
    assert _set_codes(decoded, code), f"{response_class} has no place for an error"
    encoded: bytes = decoded.encode(header=True)
    return encoded


def _set_codes(container: Any, code: int) -> bool:
    """Set the codes of the innermost parts that have some; return whether there are any."""
    values = {name: getattr(container, name) for name in container._struct.fields}
    parts = [part for value in values.values() for part in (value if isinstance(value, list) else [value])]
    if any([_set_codes(part, code) for part in parts if isinstance(part, DataContainer)]):  # noqa: C419 - all of them
        return True
    codes = [name for name in values if name.endswith("error_code")]
    for name in codes:
        setattr(container, name, code)
    return bool(codes)
