"""Traces as a collector receives them, from a producer's own span to the answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from nlp_worker.errors import SettingsError
from nlp_worker.tracing import CLOSE_SECONDS, fail_send, open_tracing, start_send
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(2 * PATIENCE)

#: What the README of OpenTelemetry has an application do, and our client.
PRODUCER: Final = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from nlp_worker.client import Client

trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
servers, prefix = sys.argv[1:]
with Client(servers, topic_prefix=prefix) as client:
    with trace.get_tracer("shop").start_as_current_span("review"):
        client.ask("text-classification", "a good day")
"""

#: Of workers and producers: what they have is sent at once.
SOON: Final = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


class Collector:
    """An OTLP receiver: all spans that came, with the service that each is of."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        came = self._came = threading.Condition()
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                export = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                with came:
                    for of_service in export.resource_spans:
                        names = {each.key: each.value.string_value for each in of_service.resource.attributes}
                        scopes = of_service.scope_spans
                        spans.extend((names["service.name"], span) for scope in scopes for span in scope.spans)
                    came.notify_all()
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_port}", **SOON}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, number: int) -> dict[str, tuple[str, Any]]:
        """Return so many spans, each of another name, by their names."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.spans) >= number, PATIENCE), self.spans
        found = {span.name: (service, span) for service, span in self.spans}
        assert len(found) == len(self.spans) == number
        return found


def test_a_trace_goes_from_the_producer_s_span_to_the_worker_s_batch(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """The application's own span, the client's, and the worker's are one trace; the batch is linked to it."""
    with (
        Collector() as collector,
        Topics(kafka_broker) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path, "--traces", "otlp", **collector.environment),
    ):
        environment = {**os.environ, **collector.environment, "OTEL_SERVICE_NAME": "shop"}
        command = [sys.executable, "-c", PRODUCER, topics.servers, topics.prefix]
        subprocess.run(command, env=environment, check=True, timeout=PATIENCE)
        requests = topics.name("requests")
        found = collector.wait(4)
        review, send, process, batch = (
            found[name][1] for name in ("review", f"send {requests}", f"process {requests}", f"batch {topics.tasks[0]}")
        )
        assert {name: service for name, (service, _) in found.items()} == {
            "review": "shop",
            send.name: "shop",
            process.name: "nlp-worker",
            batch.name: "nlp-worker",
        }
        assert review.trace_id == send.trace_id == process.trace_id != batch.trace_id
        assert (send.parent_span_id, process.parent_span_id) == (review.span_id, send.span_id)
        assert ([link.span_id for link in batch.links], [link.span_id for link in process.links]) == (
            [process.span_id],
            [batch.span_id],
        )
        # All clocks are one: sent, polled, computed, answered; a worker commits after that.
        assert send.start_time_unix_nano <= process.start_time_unix_nano <= batch.start_time_unix_nano
        assert batch.end_time_unix_nano <= min(process.end_time_unix_nano, review.end_time_unix_nano)


def test_a_collector_that_is_away_costs_no_answer(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Requests are answered, the log says that spans were not taken, and the worker drains in time."""
    with Collector() as collector:
        nobody = collector.environment
    with (
        Topics(embedded_kafka) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path, "--traces", "otlp", **nobody) as worker,
    ):
        topics.send({"id": str(number), "inputs": "a good day"} for number in range(100))
        topics.read_until(lambda: len(topics.answers) == 100, worker)
        topics.read_until(lambda: "opentelemetry" in worker.log() or "export" in worker.log(), worker)
        worker.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert worker.end() == 0
        assert time.monotonic() - began < CLOSE_SECONDS + 10
        assert worker.events("drained")
        assert not worker.events("given_up")


def test_what_cannot_be_set_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is missing, by its name."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"is not installed .*: pip install 'nlp-worker\[tracing\]'"):
        open_tracing("group", "worker-1")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "must begin with http:// or https://"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size must be a positive integer"),
    ],
)
def test_a_variable_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    """At start, where each export would fail."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"traces: an environment variable OTEL_...: .*{told}"):
        open_tracing("group", "worker-1")


def test_a_send_that_cannot_be_ends_its_span() -> None:
    """Text for a header is refused by the client, and not by what reads the trace of it."""
    span, headers = start_send("topic", [("traceparent", "no bytes")])  # type: ignore[list-item]  # on purpose
    fail_send(span, TypeError("no bytes"))
    fail_send(None, TypeError("no bytes"))
    assert headers == []
