"""The Python client against real workers, on both brokers."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import math
import subprocess
import sys
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest

from apache_kafka import ApacheKafka, RunningKafka
from clients import admin, rd_consumer, rd_producer, rd_received
from nlp_schemas import REQUESTS, ErrorCode, TaskName, TextClassificationResult
from nlp_worker.broker import EmbeddedBroker
from nlp_worker.client import AnswerTimeoutError, Client, ClientClosedError, RequestFailedError
from nlp_worker.errors import BrokerError, TopicError
from processes import PATIENCE, TASK, Topics, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from served import Served

pytestmark = pytest.mark.timeout(3 * PATIENCE)


@pytest.mark.parametrize("own_topic", [False, True], ids=["results", "reply-topic"])
def test_requests_are_answered(served: Served, *, own_topic: bool) -> None:
    """Awaited, waited for, and with a parameter, a key, an alias and an id; the answer is a model of its task."""

    async def both(client: Client) -> list[Any]:
        return await asyncio.gather(*(client.submit(TASK, text) for text in ("a good day", "a bad day")))

    with served.client(reply_topic=served.replies if own_topic else None) as client:
        answer = client.ask("sentiment-analysis", "a good day", key=b"k", id="mine", top_k=None)
        assert isinstance(answer, TextClassificationResult)
        assert (answer.id, len(answer.outputs), answer.model.name) == ("mine", 3, "tiny")
        answers = asyncio.run(both(client))
        assert answers[0].id != answers[1].id
        pair = client.ask(TASK, {"text": "a good day", "text_pair": "a bad day"})
        assert pair.usage.input_tokens > answers[0].usage.input_tokens


def test_an_error_is_an_exception_with_its_code(served: Served) -> None:
    """Of the worker's closed set; only what could not be sent has no answer."""
    with served.client() as client:
        with pytest.raises(RequestFailedError, match="unknown_model: no checkpoint named 'other'") as raised:
            client.ask(TASK, "a good day", model="other")
        assert raised.value.code is ErrorCode.UNKNOWN_MODEL
        assert raised.value.answer is not None
        with pytest.raises(RequestFailedError, match=r"invalid_request: parameters\.nonsense: unknown field"):
            client.ask(TASK, "a good day", nonsense=1)
        with pytest.raises(RequestFailedError, match=r"the request has 2\d{6} bytes, more than topic") as raised:
            client.ask(TASK, "x" * 2_000_000)
        assert raised.value.answer is None
        with pytest.raises(ValueError, match="'Sentiment' is no task: there is text-classification"):
            client.submit("Sentiment", "a good day")
        # It may be a plugin's.
        with pytest.raises(TopicError, match=r"\.sentiment\.requests does not exist"):
            client.submit("sentiment", "a good day")
        with pytest.raises(ValueError, match="kafka_correlationId is the client's own"):
            client.submit(TASK, "a good day", headers=[("kafka_correlationId", b"1")])


@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_takes_no_more_than_it_may_have_in_flight(served: Served, *, ordered: bool) -> None:
    """An endless iterable is taken as answers are given back; all of them are there, in order if that is asked for."""
    taken: list[int] = []

    def texts() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield f"day {number}" if number % 10 else ""

    given: list[str] = []
    with served.client(max_in_flight=20) as client:
        stream = client.stream(TASK, texts(), ordered=ordered, top_k=1)
        for text, future in itertools.islice(stream, 200):
            given.append(text)
            assert len(taken) - len(given) < 20
            assert future.result(0).truncated is False
        stream.close()
        # What was in flight is given up: there is room again.
        assert client.ask(TASK, "a good day").id
    whole = [f"day {number}" if number % 10 else "" for number in taken]
    assert given == whole[:200] if ordered else set(given) <= set(whole)


def test_what_one_request_of_a_stream_becomes_ends_nothing(served: Served) -> None:
    """An iterable that ends is given back whole, failures too; one that raises ends the stream."""
    with served.client() as client:
        given = list(client.stream(TASK, ["a good day", {"text": "a"}, "a bad day"]))
        assert [text for text, _ in given] == ["a good day", {"text": "a"}, "a bad day"]
        assert [future.exception() is None for _, future in given] == [True, False, True]
        with pytest.raises(ZeroDivisionError):
            list(client.stream(TASK, (str(1 // number) for number in (1, 0))))


def test_many_threads_ask_one_client(served: Served) -> None:
    """Each gets the answer to its own request."""
    with served.client(max_in_flight=8) as client:
        found: dict[str, str] = {}

        def ask(name: str) -> None:
            for number in range(20):
                found[f"{name}-{number}"] = client.ask(TASK, "a good day", id=f"{name}-{number}").id

        threads = [threading.Thread(target=ask, args=(f"t{number}",)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert len(found) == 240
    assert all(name == answered for name, answered in found.items())


def test_another_producer_s_answers_are_no_one_s_here(served: Served) -> None:
    """Another request of the same id is answered too, in the same topic."""
    with served.client() as client:
        producer = rd_producer(RunningKafka(served.topics.servers))
        futures = []
        for _ in range(20):
            value = json.dumps({"id": "same", "inputs": "a good day", "parameters": {"top_k": 3}})
            producer.produce(served.topics.name("requests"), value)
            futures.append(client.submit(TASK, "a good day", id="same", top_k=1))
        producer.flush(PATIENCE)
        answers = [future.result(PATIENCE) for future in futures]
    assert all(isinstance(answer, TextClassificationResult) and len(answer.outputs) == 1 for answer in answers)
    assert len({(answer.source.partition, answer.source.offset) for answer in answers}) == 20


def test_without_a_worker_time_runs_out(kafka_broker: RunningKafka) -> None:
    """The time-out goes with the request, so that no worker computes what nobody waits for; room is made again."""
    with (
        Topics(kafka_broker, 1) as topics,
        Client(topics.servers, topic_prefix=topics.prefix, max_in_flight=1) as client,
    ):
        for _ in range(2):
            with pytest.raises(AnswerTimeoutError, match=r"no answer to request alone within 0\.5 s: is a worker"):
                client.ask(TASK, "a good day", id="alone", timeout=0.5)
        for_ever = client.submit(TASK, "a good day", timeout=math.inf)
    with pytest.raises(ClientClosedError, match="closed before the answer came"):
        for_ever.result(0)
    with pytest.raises(ClientClosedError):
        client.submit(TASK, "a good day")


def test_what_was_submitted_is_sent_before_the_client_closes(served: Served) -> None:
    """Without waiting for its answer."""
    with served.client() as client:
        for number in range(50):
            client.submit(TASK, "a good day", id=f"left-{number}")
    topics = served.topics
    topics.read_until(lambda: all(f"left-{number}" in topics.answers for number in range(50)), served.worker)


def test_what_is_missing_is_told(embedded_kafka: RunningKafka) -> None:
    """A broker, or a topic, by name and with what to do."""
    with pytest.raises(BrokerError, match=r"cannot use the broker at 127\.0\.0\.1:1: nothing listens there"):
        Client("127.0.0.1:1", kafka={"bootstrap_timeout_ms": 1_000})
    with (
        Client(embedded_kafka.bootstrap_servers, topic_prefix="nobody") as client,
        pytest.raises(
            TopicError, match=r"topic nobody\.text-classification\.results does not exist: nlp-worker topics"
        ),
    ):
        client.submit(TASK, "a good day")


@pytest.mark.kafka
@pytest.mark.usefixtures("real_kafka")  # which skips, or fails, where there can be no broker of our own
def test_a_client_outlives_its_broker(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """SIGKILL for the broker: a request is answered later or fails with the reason, and the next one is answered."""
    with ExitStack() as stack:
        broker = stack.enter_context(ApacheKafka())
        topics = stack.enter_context(Topics(broker))
        stack.enter_context(WorkerProcess(topics, tiny_checkpoint, tmp_path))
        client = stack.enter_context(Client(topics.servers, topic_prefix=topics.prefix, timeout=PATIENCE))
        client.ask(TASK, "a good day")
        before = [client.submit(TASK, f"day {number}") for number in range(500)]
        broker.kill()
        during = client.submit(TASK, "a bad day")
        broker.start()
        after = client.submit(TASK, "a good day")
        for future in [*before, during, after]:
            assert future.result(PATIENCE).id


@pytest.mark.kafka
def test_a_topic_that_grows_loses_no_answer(real_kafka: RunningKafka) -> None:
    """What is written to a new partition of the results is read, once the client has heard of it."""
    short = {"metadata_max_age_ms": 200}
    with (
        Topics(real_kafka, 1) as topics,
        Client(topics.servers, topic_prefix=topics.prefix, timeout=PATIENCE, kafka=short) as client,
        admin(real_kafka) as control,
        closing(rd_consumer(real_kafka)) as reader,
    ):
        future = client.submit(TASK, "a good day", id="grown")
        control.create_partitions({topics.name("results"): 2})
        reader.subscribe([topics.name("requests")])
        (request,) = rd_received(reader, 1)
        source = {"topic": request.topic(), "partition": request.partition(), "offset": request.offset()}
        error = {"code": "inference_failed", "message": "by hand"}
        answer = {"id": "grown", "task": TASK, "status": "error", "error": error, "model": None, "source": source}
        # librdkafka learns of the partition when it is asked for.
        producer = rd_producer(real_kafka, **{"topic.metadata.refresh.interval.ms": 200})
        producer.produce(topics.name("results"), json.dumps(answer), headers=request.headers(), partition=1)
        assert producer.flush(PATIENCE) == 0
        with pytest.raises(RequestFailedError, match="by hand"):
            future.result(PATIENCE)


def test_parameters_have_other_names_than_the_options() -> None:
    """Or one could not be given."""
    options = set(inspect.signature(Client.submit).parameters) | set(inspect.signature(Client.stream).parameters)
    for task in TaskName:
        parameters: Any = REQUESTS[task].model_fields["parameters"].annotation
        assert not options & set(parameters.model_fields)


def test_the_client_needs_no_torch() -> None:
    """Nor anything else that only the worker needs."""
    heavy = ("torch", "transformers", "tokenizers", "numpy", "structlog", "rich", "click", "prometheus_client")
    script = f"import sys, nlp_worker.client; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_broker_that_is_gone_fails_what_is_sent() -> None:
    """With the reason, within the time that the broker has to acknowledge, and closing takes no longer."""
    fast = {"producer": {"delivery_timeout_ms": 2_000, "request_timeout_ms": 1_000}, "bootstrap_timeout_ms": 1_000}
    with ExitStack() as stack:
        with EmbeddedBroker() as broker, Topics(RunningKafka(broker.bootstrap_servers)) as topics:
            client = stack.enter_context(Client(topics.servers, topic_prefix=topics.prefix, kafka=fast))
            client.submit(TASK, "a good day").cancel()
        future = client.submit(TASK, "a good day")
        with pytest.raises(Exception, match="was not acknowledged, and may be there all the same"):
            future.result(PATIENCE)
        with pytest.raises(BrokerError, match="nothing listens there"):
            client.submit(TASK, "a good day")
