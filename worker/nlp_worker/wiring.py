"""Builds a worker of its parts, cheapest check first, and takes them down in order."""

from __future__ import annotations

import contextlib
import gc
import math
import secrets
import sys
import time
from typing import TYPE_CHECKING, Final

from nlp_schemas import dead_letter_topic, requests_topic, results_topic
from nlp_worker import connection, metrics
from nlp_worker.answering import Answering
from nlp_worker.consumer import Consumer
from nlp_worker.delivery import AtLeastOnce, ExactlyOnce
from nlp_worker.errors import BrokerError, PublishError
from nlp_worker.intake import Intake
from nlp_worker.loop import Worker
from nlp_worker.parts import Limits
from nlp_worker.planner import Planner
from nlp_worker.publisher import Publisher
from nlp_worker.tracing import open_tracing
from nlp_worker.transactions import TransactionalPublisher

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from nlp_worker.parts import Delivery, Executor
    from nlp_worker.settings import Settings
    from nlp_worker.tasks.base import Task

    Tasks = Mapping[str, Mapping[str, Task]]


#: Seconds after which the control thread lets the device thread have the interpreter. That asks for it at each of some
#: hundred operations of a forward, and Python's own 5 ms each time would be most of the time of a GPU.
SWITCH_SECONDS: Final = 1e-4


@contextlib.contextmanager
def wired(
    settings: Settings,
    worker_id: str,
    task_names: Collection[str],
    load: Callable[[], tuple[Tasks, int]],
    executor: Executor,
) -> Iterator[Worker]:
    """Give a worker that is ready to run; at the end of the block it has left its group.

    Args:
        settings: Of the worker.
        worker_id: Goes into dead letters.
        task_names: What is served.
        load: Returns the checkpoints that are served, and the planner's ``cache_tokens``; called when the topics are
            known to be there.
        executor: The device thread.

    Raises:
        FatalError: something that the worker needs is not there.
    """
    metrics.begin_at_0(task_names)
    topics = {requests_topic(task, settings.topic_prefix): task for task in task_names}
    outputs = [name(task, settings.topic_prefix) for task in task_names for name in (results_topic, dead_letter_topic)]
    outputs += settings.reply_topic
    with contextlib.closing(connection.connect(settings)) as admin:
        connection.check_topics(admin, read=topics, write=outputs)
        reply_topics = connection.count_partitions(admin, settings.reply_topic)
    # Before anything that takes long: it may be refused.
    tracing = open_tracing(settings.group, worker_id) if settings.traces == "otlp" else None
    tasks, cache_tokens = load()
    planner = Planner(settings.batch_tokens, cache_tokens)
    # When all are loaded: what fits into the memory then is what will fit.
    for task in (task for served in tasks.values() for task in served.values()):
        planner.warm_up(task, executor)

    def read_limits() -> dict[str, int]:
        with contextlib.closing(connection.connect(settings)) as admin:
            return connection.max_message_bytes(admin, outputs)

    with contextlib.ExitStack() as parts:
        if tracing is not None:
            parts.callback(tracing.close)
        publisher = _publisher(settings, read_limits)
        parts.callback(publisher.close)
        # Closed first: its partitions go to the others of the group while the rest is taken down.
        consumer = Consumer(settings, topics)
        parts.callback(consumer.close)
        worker = Worker(
            consumer,
            _delivery(publisher, consumer),
            executor,
            Intake(topics, tasks, time, settings.max_age_seconds or math.inf, reply_topics),
            Answering(settings.topic_prefix, worker_id, publisher.fits),
            planner=planner,
            tracing=tracing,
            limits=Limits(
                records=settings.poll_records,
                device_seconds=settings.poll_seconds,
                failures_in_a_row=settings.failures_in_a_row,
            ),
        )
        sys.setswitchinterval(SWITCH_SECONDS)
        # What is there now stays: the garbage collector would look through all of it, torch's and the models' objects,
        # again and again while requests come and go.
        gc.collect()
        gc.freeze()
        try:
            yield worker
        except PublishError:
            # A send to a topic that was deleted only takes too long: here it gets its name.
            with contextlib.suppress(BrokerError), contextlib.closing(connection.connect(settings)) as admin:
                connection.check_topics(admin, read=topics, write=outputs)
            raise


def _publisher(settings: Settings, read_limits: Callable[[], dict[str, int]]) -> Publisher:
    if settings.delivery == "at-least-once":
        return Publisher(settings, read_limits)
    # The same after a restart where there is an instance id: what a killed worker left open is ended at once.
    slot = settings.instance_id or secrets.token_hex(8)
    return TransactionalPublisher(settings, read_limits, f"{settings.group}/{slot}")


def _delivery(publisher: Publisher, consumer: Consumer) -> Delivery:
    if isinstance(publisher, TransactionalPublisher):
        return ExactlyOnce(publisher, consumer)
    return AtLeastOnce(publisher, consumer)
