"""OpenTelemetry traces: from the producer, through the headers of its record, to the answer.

Spans and attributes are named as OpenTelemetry's semantic conventions for messaging name them, and ``nlp.`` what these
have no name for. Of OpenTelemetry only its API is imported here, which records nothing until an application (the
client's) or `open_tracing` (the worker's) sets up its SDK.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from nlp_worker.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

    from nlp_schemas import Model
    from nlp_worker.batching import Batch
    from nlp_worker.poll import BatchRun, Entry, Poll

_SCOPE: Final = "nlp_worker"

_W3C: Final = TraceContextTextMapPropagator()

#: Headers that name a span, and with it a trace.
TRACE_HEADERS: Final = frozenset(_W3C.fields)

_NANOSECONDS: Final = 1_000_000_000

#: Seconds that a worker which stops waits for a collector that does not take its last spans.
CLOSE_SECONDS: Final = 3.0


def span_headers(span: Span) -> list[tuple[str, bytes]]:
    """Return the headers of a message that the span sent; none where there is no trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    return [(name, value.encode()) for name, value in carrier.items()]


def trace_id(span: Span) -> str:
    """Return the trace that the span is part of, as backends show it."""
    return trace.format_trace_id(span.get_span_context().trace_id)


def start_send(topic: str, headers: Sequence[tuple[str, bytes]]) -> tuple[Span, list[tuple[str, bytes]]]:
    """Start the span of a record that is sent, until it is acknowledged; return it with the record's headers.

    It is part of the trace that the headers name, or else of the application's current one.
    """
    attributes = _messaging("send", topic)
    parent = _context(headers) if any(name in TRACE_HEADERS for name, _ in headers) else None
    tracer = trace.get_tracer(_SCOPE)
    span = tracer.start_span(f"send {topic}", parent, SpanKind.PRODUCER, attributes)
    return span, [*(header for header in headers if header[0] not in TRACE_HEADERS), *span_headers(span)]


def end_send(span: Span | None, partition: int, offset: int) -> None:
    """End the span of a record that was acknowledged."""
    if span is not None and span.is_recording():
        span.set_attributes(_place(partition, offset))
        span.end()


def fail_send(span: Span | None, error: BaseException) -> None:
    """End the span of a record that was not acknowledged; it is no error if that is told twice."""
    if span is not None and span.is_recording():
        _fail(span, type(error).__name__)
        span.end()


class Tracing:
    """A worker's spans: one for each request, from its poll to its acknowledged answer, and one for each batch.

    A batch is a trace of its own, linked to its requests and they to it, for it belongs to all of theirs alike. Only
    the control thread uses it.

    Args:
        requests: Whose sampler says which traces are recorded.
        batches: Who records all that it is given: the batches of the requests that are recorded.
        group: The consumer group.
    """

    def __init__(self, requests: TracerProvider, batches: TracerProvider, group: str) -> None:
        self._provider = requests
        self._requests = requests.get_tracer(_SCOPE)
        self._batches = batches.get_tracer(_SCOPE)
        self._group = group

    def begin(self, poll: Poll) -> None:
        """Start the spans of requests whose batches are back, and record these; their answers name the spans."""
        for entry in poll.entries:
            if entry.span is None:
                entry.span = self._start(entry)
        spans = {entry.origin: entry.span for entry in poll.entries if entry.span is not None}
        for work in poll.work:
            # Of a partition that was lost meanwhile there are rows, and no request any more.
            origins = dict.fromkeys(row.origin for row in work.batch.rows if row.origin in spans)
            recorded = [spans[origin] for origin in origins if spans[origin].is_recording()]
            if recorded:
                self._record(work.batch, work.future.result(), recorded)

    def _start(self, entry: Entry) -> Span:
        record = entry.record
        attributes = {
            **_messaging("process", record.topic),
            **_place(record.partition, record.offset),
            "messaging.consumer.group.name": self._group,
            "nlp.task": entry.task_name,
            "nlp.request.id": entry.request_id,
            "nlp.request.attempt": entry.attempt,
            "nlp.rows": len(entry.rows),
            "nlp.tokens": entry.tokens,
        }
        if entry.task is not None:
            attributes |= _model(entry.task.model)
        parent = _context(record.headers)
        start = _nanoseconds(entry.polled)
        name = f"process {record.topic}"
        return self._requests.start_span(name, parent, SpanKind.CONSUMER, attributes, start_time=start)

    def _record(self, batch: Batch, run: BatchRun, requests: Sequence[Span]) -> None:
        attributes: dict[str, AttributeValue] = {
            "messaging.batch.message_count": len(requests),
            "nlp.task": batch.task.name,
            "nlp.rows": len(batch.rows),
            "nlp.tokens": batch.tokens,
            "nlp.padded_tokens": batch.padded_tokens,
            **_model(batch.task.model),
        }
        links = [Link(span.get_span_context()) for span in requests]
        start = _nanoseconds(run.started)
        span = self._batches.start_span(
            f"batch {batch.task.name}", Context(), attributes=attributes, links=links, start_time=start
        )
        span.end(_nanoseconds(run.started + run.seconds))
        for request in requests:
            request.add_link(span.get_span_context())

    def end(self, entries: Iterable[Entry]) -> None:
        """End the spans of requests whose answers are acknowledged."""
        for entry in entries:
            if entry.span is not None:
                if entry.error is not None:
                    _fail(entry.span, entry.error.code)
                entry.span.end()

    def close(self) -> None:
        """Send what is left, if there is somebody who takes it."""
        # Its own time-out is longer than a drain may take.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def open_tracing(group: str, worker_id: str) -> Tracing:
    """Set up OpenTelemetry's SDK, which sends spans by OTLP over HTTP.

    Where to, which ones (``OTEL_TRACES_SAMPLER``) and all else is said by OpenTelemetry's own environment variables.

    Raises:
        SettingsError: the SDK is not installed, or one of these variables cannot be used.
    """
    try:
        return _open(group, worker_id)
    except ImportError as error:
        problem = f"traces: OpenTelemetry's SDK is not installed ({error.name})"
        raise SettingsError(f"{problem}: pip install 'nlp-worker[tracing]'") from None
    except ValueError as error:
        raise SettingsError(f"traces: an environment variable OTEL_...: {error}") from None


def _open(group: str, worker_id: str) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    own = {"service.name": "nlp-worker", "service.version": version("nlp-worker"), "service.instance.id": worker_id}
    resource = Resource.create({**own, **OTELResourceDetector().detect().attributes})
    exporter = OTLPSpanExporter()
    endpoint = exporter._endpoint  # noqa: SLF001 - of what all its variables say together
    if not endpoint.startswith(("http://", "https://")):
        # Else it would be told at each export, and every span be lost.
        raise ValueError(f"the endpoint {endpoint!r} must begin with http:// or https://")
    processor = BatchSpanProcessor(exporter)
    requests = TracerProvider(resource=resource, shutdown_on_exit=False)
    batches = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    for provider in (requests, batches):
        provider.add_span_processor(processor)
    return Tracing(requests, batches, group)


def _context(headers: Iterable[tuple[str, bytes | None]]) -> Context:
    """Return the span that the headers name; no span where they name none, or one that cannot be."""
    # A producer of ours may give text, which its client then refuses by name.
    carrier = {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value or ""
        for name, value in headers
        if name in TRACE_HEADERS
    }
    return _W3C.extract(carrier, Context())


def _messaging(operation: str, topic: str) -> dict[str, AttributeValue]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _place(partition: int, offset: int) -> dict[str, AttributeValue]:
    return {"messaging.destination.partition.id": str(partition), "messaging.kafka.offset": offset}


def _model(model: Model) -> dict[str, AttributeValue]:
    return {"nlp.model.name": model.name, "nlp.model.revision": model.revision}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * _NANOSECONDS)


def _fail(span: Span, kind: str) -> None:
    # Its kind alone: what an error says may quote the request's text.
    span.set_attribute("error.type", kind)
    span.set_status(StatusCode.ERROR, kind)
