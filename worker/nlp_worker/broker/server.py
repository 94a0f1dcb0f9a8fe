"""Connections: frames in, frames out, one request at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from nlp_worker.broker.api import UnreadableError, answer, decode

if TYPE_CHECKING:
    from nlp_worker.broker.cluster import Cluster

log = logging.getLogger("nlp_worker.broker")

#: Bytes of one request (socket.request.max.bytes). What claims to be longer is no Kafka client.
MAX_REQUEST: Final = 100 * 1024 * 1024

#: Bytes read ahead on a connection. asyncio's 64 KiB would stop and start the transport several times per request.
READ_AHEAD: Final = 1024 * 1024

#: Bytes of the length in front of every frame.
LENGTH: Final = 4


class Server:
    """Serves a cluster's connections until it is closed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._connections: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client's requests in their order, as Kafka promises, until it goes away or talks nonsense."""
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        peer = writer.get_extra_info("peername")[0]
        try:
            while True:
                response = await answer(self._cluster, decode(await _read_frame(reader)), peer)
                if response is not None:
                    writer.write(response)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client went away, or the broker stops
        except UnreadableError as error:
            log.warning("closing a connection that sent %s", error)
        except Exception:
            log.exception("closing a connection: a bug of the embedded broker")
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(LENGTH), signed=True)
    if not 0 <= length <= MAX_REQUEST:
        raise UnreadableError(f"a request of {length} bytes, where {MAX_REQUEST} are the limit")
    return await reader.readexactly(length)
