"""What happens to requests of one kind on their way through a fault proxy: cut, delayed, held, or told an error."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka.protocol.api_header import ResponseClassRegistry
from kafka.protocol.data_container import DataContainer

if TYPE_CHECKING:
    from kafka.protocol.api_key import ApiKey

#: Seconds to wait for a rule to fire.
PATIENCE: Final = 30.0


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
