"""A node whose clients meet a fault proxy, except those that know the way around it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final, Self

from apache_kafka import ApacheKafka, RunningKafka, free_ports
from faults.proxy import FaultProxy

if TYPE_CHECKING:
    from types import TracebackType

#: Java takes the last of two lines with one name: these stand behind those of the plain node.
PROXIED: Final = """
listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
"""


class ProxiedKafka(ApacheKafka):
    """A node with two addresses: its own, where nothing is hurt, and `proxied`, for those whom the faults are for."""

    def __init__(self) -> None:
        super().__init__()
        (self._behind,) = free_ports(1)
        self.proxy = FaultProxy(self._behind)
        self.proxied = RunningKafka(f"127.0.0.1:{self.proxy.port}")

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(self.proxy)
            super().__enter__()
            self._close_proxy = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._close_proxy:
            super().__exit__(kind, error, traceback)

    def _server_properties(self) -> str:
        return super()._server_properties() + PROXIED.format(
            port=self._port, behind=self._behind, controller=self._controller_port, proxy=self.proxy.port
        )
