"""What Prometheus and orchestrators ask a worker over HTTP: its metrics, and whether it is well."""

from __future__ import annotations

import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import prometheus_client

from nlp_worker.errors import SettingsError
from nlp_worker.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: What a probe is told where nothing is wrong.
WELL: Final = "ok"


class Health:
    """Whether the worker moves, and whether it answers requests; the state of the broker is neither.

    Each probe is told why not, or nothing where all is well.
    """

    def __init__(self) -> None:
        self._stuck: Callable[[], str | None] = lambda: None
        self._joined: Callable[[], bool] | None = None
        self._was_ready = False
        self._draining = False

    def started(self, joined: Callable[[], bool], stuck: Callable[[], str | None]) -> None:
        """Its checkpoints are loaded.

        Args:
            joined: Whether it is a member of its group.
            stuck: Names a thread in which nothing moves although there is work.
        """
        self._joined, self._stuck = joined, stuck

    def drain(self) -> None:
        """It takes no more requests."""
        self._draining = True

    def live(self) -> str | None:
        """Kill it where it is not: nothing will move any more."""
        return None if (thread := self._stuck()) is None else f"the {thread} thread is stuck"

    def ready(self) -> str | None:
        """Wait for it where it is not. Once it is a rebalance changes nothing, and only a drain ends it."""
        if self._draining:
            return "draining"
        if self._joined is None:
            return "loading checkpoints"
        self._was_ready = self._was_ready or self._joined()
        return None if self._was_ready else "joining its group"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: a probe a second would be most of the log."""


def serve(port: int, health: Health) -> None:
    """Serve /metrics, /livez and /readyz on a port until the process ends.

    Raises:
        SettingsError: the port cannot be used.
    """
    metrics: Any = prometheus_client.make_wsgi_app(REGISTRY)
    probes = {"/livez": health.live, "/readyz": health.ready}

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        if path in probes:
            problem = probes[path]()
            status, told = ("200 OK", WELL) if problem is None else ("503 Service Unavailable", problem)
        else:
            status, told = "404 Not Found", f"there is /metrics, {', '.join(probes)}"
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{told}\n".encode()]

    try:
        server = make_server("", port, answer, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise SettingsError(f"http_port: port {port} cannot be used: {error.strerror}") from None
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
