"""The producer's side: requests to the workers, and their answers as futures. Never imports torch.

with Client("localhost:9092") as client:
    print(client.ask("text-classification", "I love this.").outputs)
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
import uuid
from concurrent.futures import wait
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from kafka import errors as kafka_errors
from pydantic_core import to_json

from nlp_schemas import ErrorCode, Source, requests_topic, results_topic
from nlp_schemas.task import task_name
from nlp_worker import connection, kafka_clients
from nlp_worker.client_types import Ask, ByTask, Stream, Submit
from nlp_worker.errors import PublishError
from nlp_worker.pending import (
    CORRELATION_HEADER,
    REPLY_HEADER,
    AnswerFuture,
    AnswerTimeoutError,
    ClientClosedError,
    Pending,
    RequestFailedError,
    Waiting,
)
from nlp_worker.replies import Replies

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["AnswerFuture", "AnswerTimeoutError", "Client", "ClientClosedError", "RequestFailedError"]

#: Requests that one client has in flight at most: some seconds of a GPU, and some megabytes.
MAX_IN_FLIGHT: Final = 1_000

#: Seconds to wait for an answer: longer than the workers need to take over from one that died.
TIMEOUT: Final = 300.0

#: Bytes of a record beside its key and value, rounded up: its batch's, and our headers'.
RECORD_BYTES: Final = 1_000


class _Channel(NamedTuple):
    """Where requests of a task go."""

    topic: str
    max_bytes: int


class Client:
    """Asks the workers of one Kafka cluster. May be used from any number of threads: one for a process is enough.

    Args:
        bootstrap_servers: Brokers, ``host:port``, separated by commas.
        topic_prefix: What the topics' names start with.
        reply_topic: Where answers go instead of the results topics: one that the workers' ``reply_topic`` allows. Of
            the results topics a client reads all answers, those to other producers too.
        max_in_flight: Requests that wait for their answers; beyond it `submit` waits.
        timeout: Seconds until a request without an answer fails; `math.inf` is never.
        kafka: kafka-python's own settings, as under ``[kafka]`` in the configuration file.
        config: A TOML file, as of ``nlp-worker run``. What is not given here is read from the environment
            (``NLP_WORKER_BOOTSTRAP_SERVERS``), and then from this file.

    Raises:
        BrokerError: the broker cannot be reached.
        SettingsError: a setting cannot be used.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        topic_prefix: str | None = None,
        reply_topic: str | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        timeout: float = TIMEOUT,
        kafka: Mapping[str, Any] | None = None,
        config: Path | None = None,
    ) -> None:
        # Not with the module: a third of the time that its import may take.
        from nlp_worker import tracing  # noqa: PLC0415
        from nlp_worker.settings import load_settings  # noqa: PLC0415

        self._tracing = tracing
        given = {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix, "kafka": kafka}
        self._settings = load_settings({name: value for name, value in given.items() if value is not None}, config)
        self._reply_topic = reply_topic
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._slots = threading.Semaphore(max_in_flight)
        self._name = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        # kafka-python leaves some sends unresolved for ever, above all those of a producer that failed.
        self._waiting = Waiting(lambda pending: self._not_sent(pending, self._producer, TimeoutError("no word of it")))
        # Of what is opened when it is needed. Who holds it may wait for the broker, and no answer waits for it.
        self._opening = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._producer: Any = None
        self._failed: Any = None
        self._replies = Replies(self._settings, self._waiting)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @ByTask[Submit]()
    def submit(
        self,
        task: str,
        inputs: Any,
        *,
        model: str | None = None,
        id: str | None = None,  # noqa: A002 - the contract's name
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout: float | None = None,
        **parameters: Any,
    ) -> AnswerFuture[Any]:
        """Send a request; return what its answer will be.

        Args:
            task: Its name, or an alias.
            inputs: A text, or the task's object.
            model: A checkpoint by its served name; without one the first answers.
            id: Of the request; by default one that no other has.
            key: Of the record: answers of one key come in the order of their requests.
            headers: Of the record, such as ``traceparent``.
            timeout: Seconds, instead of the client's. The worker does not compute what is later.
            parameters: The task's.

        Raises:
            BrokerError, PublishError, TopicError: it cannot be sent; the message says why.
            ClientClosedError: the client is closed.
            ValueError: there is no such task, or a header is the client's own.
        """
        request = {"id": id, "inputs": inputs, "model": model, "parameters": parameters}
        given = {name: part for name, part in request.items() if part is not None}
        return self.send(task, given, key=key, headers=headers, timeout=timeout)

    def send(
        self,
        task: str,
        request: Mapping[str, Any],
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timeout: float | None = None,
    ) -> AnswerFuture[Any]:
        """As `submit`, of a request as the contract has it; an ``id`` and a ``timeout_ms`` are added if it has none."""
        channel = self._channel(task_name(task))
        name = f"{self._name}-{next(self._numbers)}"
        own = {CORRELATION_HEADER: name.encode()}
        if self._reply_topic is not None:
            own[REPLY_HEADER] = self._reply_topic.encode()
        if taken := own.keys() & {header for header, _ in headers}:
            raise ValueError(f"headers: {', '.join(sorted(taken))} is the client's own")
        seconds = self._timeout if timeout is None else timeout
        limit = {} if seconds == math.inf else {"timeout_ms": max(math.ceil(seconds * 1000), 1)}
        whole = {**limit, **request}
        if whole.get("id") is None:
            whole["id"] = name
        value = to_json(whole)
        self._slots.acquire()
        pending = Pending(name.encode(), str(whole["id"]), seconds, time.monotonic() + seconds)
        pending.future.add_done_callback(lambda _: self._done(pending))
        if (size := len(value) + len(key or b"") + RECORD_BYTES) > channel.max_bytes:
            problem = f"the request has {size} bytes, more than topic {channel.topic} accepts: {channel.max_bytes}"
            pending.fail(RequestFailedError(ErrorCode.INVALID_REQUEST, problem))
            return pending.future
        try:
            self._waiting.add(pending)
            pending.span, traced = self._tracing.start_send(channel.topic, headers)
            with self._opening:
                sent = self._open_producer().send(channel.topic, value, key, [*traced, *own.items()])
                pending.send_deadline = (
                    time.monotonic() + self._producer.config["delivery_timeout_ms"] / 1000 + kafka_clients.FUTURE_GRACE
                )
        except kafka_errors.KafkaError as error:
            self._not_sent(pending, self._producer, error)
            pending.future.result()  # raises why
        except BaseException as error:
            self._tracing.fail_send(pending.span, error)
            pending.future.cancel()
            raise
        sent.add_callback(partial(self._sent, pending))
        sent.add_errback(partial(self._not_sent, pending, self._producer))
        return pending.future

    @ByTask[Ask]()
    def ask(self, task: str, inputs: Any, **options: Any) -> Any:
        """Send a request as `submit` does, and wait for its answer.

        Raises:
            As `submit`, and as the future that it returns.
        """
        return self.submit(task, inputs, **options).result()

    @ByTask[Stream]()
    def stream(
        self, task: str, inputs: Iterable[Any], *, ordered: bool = True, **options: Any
    ) -> Generator[tuple[Any, AnswerFuture[Any]], None, None]:
        """Send a request for each of the inputs, taken as there is room for them; give each with its future, done.

        Args:
            task: Of all of them.
            inputs: Any number; of them at most the client's `max_in_flight` are taken and not given back.
            ordered: Give them in their order; else each as soon as it is answered.
            options: As of `submit`, the same for all.

        Raises:
            As `submit`. What became of one request is its future's to tell, and ends nothing.
        """
        running: dict[AnswerFuture[Any], Any] = {}
        done: SimpleQueue[AnswerFuture[Any]] = SimpleQueue()

        def given() -> tuple[Any, AnswerFuture[Any]]:
            future = next(iter(running)) if ordered else done.get()
            wait([future])
            return running.pop(future), future

        try:
            for each in inputs:
                future = self.submit(task, each, **options)
                running[future] = each
                if not ordered:
                    future.add_done_callback(done.put)  # type: ignore[arg-type]  # it is given the future itself
                while len(running) >= self._max_in_flight or (
                    running and (next(iter(running)).done() if ordered else not done.empty())
                ):
                    yield given()
            while running:
                yield given()
        finally:
            for future in running:
                future.cancel()

    def _channel(self, task: str) -> _Channel:
        """Return where requests of the task go, when the answers to them will be seen."""
        with self._opening:
            if task not in self._channels:
                prefix = self._settings.topic_prefix
                topic, answers = requests_topic(task, prefix), self._reply_topic or results_topic(task, prefix)
                with contextlib.closing(connection.connect(self._settings)) as admin:
                    connection.check_topics(admin, read=[answers], write=[topic])
                    limits = connection.max_message_bytes(admin, [topic])
                    partitions = connection.count_partitions(admin, [answers])
                self._replies.follow(answers, partitions[answers])
                self._channels[task] = _Channel(topic, limits[topic])
            return self._channels[task]

    def _open_producer(self) -> Any:
        """Return the producer: a new one after a failure, for the old one would send nothing any more."""
        if self._producer is None or self._producer is self._failed:
            self._close_producer(0)
            limits = [channel.max_bytes for channel in self._channels.values()]
            arguments = kafka_clients.producer_arguments(self._settings, limits)
            self._producer = kafka_clients.open_producer(arguments)
        return self._producer

    def _close_producer(self, timeout: float) -> None:
        if self._producer is not None:
            kafka_clients.close_producer(self._producer, timeout)
            self._producer = None

    def _sent(self, pending: Pending, record: Any) -> None:
        self._tracing.end_send(pending.span, record.partition, record.offset)
        self._waiting.sent(pending, Source(topic=record.topic, partition=record.partition, offset=record.offset))

    def _not_sent(self, pending: Pending, producer: Any, error: Exception) -> None:
        self._failed = producer
        self._tracing.fail_send(pending.span, error)
        problem = f"request {pending.request_id} was not acknowledged, and may be there all the same"
        pending.fail(PublishError(f"{problem}: {type(error).__name__}: {error}"))

    def _done(self, pending: Pending) -> None:
        self._waiting.discard(pending)
        self._slots.release()

    def close(self) -> None:
        """Send what was submitted, wait for no answer, and fail what has none."""
        with self._opening:
            self._waiting.end(ClientClosedError("it was closed before the answer came"))
            self._close_producer(kafka_clients.CLOSE_TIMEOUT)
        self._replies.close()
