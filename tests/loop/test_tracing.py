"""A worker's spans: of each request, part of its producer's trace, and of each batch, linked to its requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode, TraceFlags, format_span_id, format_trace_id
from structlog.testing import capture_logs

from fakes import REQUESTS, Bench
from nlp_worker.poll import Partition
from nlp_worker.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
SAMPLED: Final = f"00-{TRACE}-{PARENT}-01".encode()
NOT_SAMPLED: Final = f"00-{TRACE}-{PARENT}-00".encode()

P0, P1 = Partition(REQUESTS, 0), Partition(REQUESTS, 1)

#: Of the sampler, for requests whose producer did not say.
NEVER: Final = 0.0


class Traced:
    """A worker on fakes, and the spans that it recorded."""

    def __init__(self, ratio: float = 1.0, bench: Bench | None = None) -> None:
        self.bench = bench or Bench()
        self._spans = InMemorySpanExporter()
        requests = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
        batches = TracerProvider(sampler=ALWAYS_ON)
        for provider in (requests, batches):
            provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.bench.worker._tracing = Tracing(requests, batches, "group")

    def send(self, value: object, *headers: tuple[str, bytes]) -> None:
        self.bench.kafka.send(value, headers=list(headers))

    def spans(self, name: str) -> list[ReadableSpan]:
        """Answer all that was sent, and return the spans whose names begin so."""
        self.bench.settle()
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(name)]

    def answer_headers(self) -> dict[str, bytes]:
        """Of the first answer."""
        return dict(self.bench.publisher.messages[0].headers)

    def answer_is_sampled(self) -> bool:
        return bool(int(self.answer_headers()["traceparent"][-2:], 16) & TraceFlags.SAMPLED)


def context(span: ReadableSpan) -> SpanContext:
    found: SpanContext | None = span.get_span_context()
    assert found is not None
    return found


def test_a_request_is_part_of_its_producer_s_trace_and_so_is_what_reads_its_answer() -> None:
    """From poll to acknowledgement; the answer names the worker's span, the state is the producer's."""
    traced = Traced()
    traced.bench.clock.now = 1_000
    traced.send({"id": "r-1", "inputs": "word"}, ("traceparent", SAMPLED), ("tracestate", b"shop=1"))
    (span,) = traced.spans("process")
    assert (span.name, span.kind) == (f"process {REQUESTS}", SpanKind.CONSUMER)
    assert span.parent is not None
    assert (format_trace_id(span.parent.trace_id), format_span_id(span.parent.span_id)) == (TRACE, PARENT)
    assert span.status.status_code is StatusCode.UNSET
    assert span.start_time == 1_000 * 10**9
    attributes = dict(span.attributes or {})
    assert attributes == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": REQUESTS,
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 0,
        "messaging.consumer.group.name": "group",
        "nlp.task": "text-classification",
        "nlp.request.id": "r-1",
        "nlp.request.attempt": 1,
        "nlp.model.name": "fake",
        "nlp.model.revision": traced.bench.task.model.revision,
        "nlp.rows": 1,
        "nlp.tokens": len("word"),
    }
    headers = traced.answer_headers()
    assert headers["traceparent"] == f"00-{TRACE}-{format_span_id(context(span).span_id)}-01".encode()
    assert headers["tracestate"] == b"shop=1"


def test_a_batch_and_its_requests_are_linked_both_ways() -> None:
    """The batch is a trace of its own: it belongs to all of them alike."""
    traced = Traced()
    for text in ("one", "two", "three"):
        traced.send({"inputs": text})
    requests = traced.spans("process")
    (batch,) = traced.spans("batch text-classification")
    assert len(requests) == 3
    assert batch.parent is None
    assert {link.context.span_id for link in batch.links} == {context(span).span_id for span in requests}
    for span in requests:
        assert [link.context.span_id for link in span.links] == [context(batch).span_id]
        assert span.parent is None
    attributes = dict(batch.attributes or {})
    assert (attributes["messaging.batch.message_count"], attributes["nlp.rows"], attributes["nlp.tokens"]) == (
        3,
        3,
        len("onetwothree"),
    )


def test_a_failed_request_says_why_and_nothing_of_its_text() -> None:
    """In its span by the code, and in the log by the trace that it is found by."""
    traced = Traced()
    traced.send({"inputs": "word", "model": "secret"}, ("traceparent", SAMPLED))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with capture_logs() as events:
        (span,) = traced.spans("process")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "unknown_model")
    assert dict(span.attributes or {})["error.type"] == "unknown_model"
    assert "secret" not in span.to_json()
    (failure,) = (event for event in events if event["event"] == "request_failed")
    assert failure["trace_id"] == TRACE


@pytest.mark.parametrize("ratio", [NEVER, 1.0], ids=["nothing", "everything"])
def test_the_producer_says_whether_its_request_is_recorded(ratio: float) -> None:
    """Whatever the sampler says of those that have no trace; a batch is recorded where one of its requests is."""
    traced = Traced(ratio)
    traced.send({"inputs": "one"}, ("traceparent", NOT_SAMPLED))
    traced.send({"inputs": "two"}, ("traceparent", SAMPLED))
    traced.send({"inputs": "three"})
    found = {dict(span.attributes or {})["messaging.kafka.offset"] for span in traced.spans("process")}
    assert found == ({1, 2} if ratio else {1})
    (batch,) = traced.spans("batch")
    assert len(batch.links) == len(found)
    assert not traced.answer_is_sampled()


def test_no_batch_is_recorded_where_no_request_is() -> None:
    """A sampler of one in a thousand is one in a thousand; the answer tells its reader not to record either."""
    traced = Traced(NEVER)
    traced.send({"inputs": "one"})
    assert traced.spans("") == []
    assert not traced.answer_is_sampled()


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"\xff\xfe", b"00-0-0-01"])
def test_a_header_that_names_no_span_costs_nothing(broken: bytes) -> None:
    """The request is answered, in a trace of its own."""
    traced = Traced()
    traced.send({"inputs": "one"}, ("traceparent", broken), ("tracestate", broken))
    (span,) = traced.spans("process")
    assert span.parent is None
    assert format_span_id(context(span).span_id).encode() in traced.answer_headers()["traceparent"]


def test_what_another_worker_answers_has_no_span_here() -> None:
    """A partition that went away while its batch was computed: no answer, and no link to one."""
    bench = Bench(2, at_once=False)
    traced = Traced(bench=bench)
    for partition in (P0, P1):
        bench.kafka.send({"inputs": "word"}, partition=partition.partition)
    bench.worker.run_once()
    bench.consumer.take([P1])
    bench.worker.run_once()
    bench.executor.run_next()
    (span,) = traced.spans("process")
    (batch,) = traced.spans("batch")
    assert [link.context.span_id for link in batch.links] == [context(span).span_id]


def test_without_tracing_the_trace_of_a_request_is_its_answer_s() -> None:
    """Byte for byte, valid or not: whoever reads the answer is its child."""
    bench = Bench()
    bench.kafka.send({"inputs": "word"}, headers=[("traceparent", b"anything"), ("tracestate", b"shop=1")])
    bench.settle()
    (answer,) = bench.publisher.messages
    assert [header for header in answer.headers if header[0].startswith("trace")] == [
        ("traceparent", b"anything"),
        ("tracestate", b"shop=1"),
    ]
