"""What a probe is told, from start to drain."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

from nlp_worker.probes import Health, serve


def test_a_worker_is_ready_once_it_has_joined_and_until_it_drains() -> None:
    """Not while checkpoints load; a rebalance, in which it is no member for a moment, changes nothing."""
    health, joined = Health(), False
    assert (health.live(), health.ready()) == (None, "loading checkpoints")
    health.started(lambda: joined, lambda: None)
    assert (health.live(), health.ready()) == (None, "joining its group")
    joined = True
    assert health.ready() is None
    joined = False
    assert health.ready() is None
    health.drain()
    assert (health.live(), health.ready()) == (None, "draining")


def test_a_worker_in_which_nothing_moves_does_not_live() -> None:
    """The probe says which thread."""
    health = Health()
    health.started(lambda: True, lambda: "device")
    assert health.live() == "the device thread is stuck"


def test_probes_are_answered_over_http() -> None:
    """200 or 503 with the reason, metrics beside them, and 404 with what there is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    health = Health()
    serve(port, health)
    health.started(lambda: True, lambda: "control")

    def ask(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert ask("/readyz") == (200, "ok\n")
    assert ask("/livez") == (503, "the control thread is stuck\n")
    assert ask("/") == (404, "there is /metrics, /livez, /readyz\n")
    status, metrics = ask("/metrics")
    assert (status, "# TYPE nlp_worker_requests_total counter" in metrics) == (200, True)
