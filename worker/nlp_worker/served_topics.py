"""Which tasks have topics."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from nlp_schemas import TaskName
from nlp_worker.errors import TopicError

if TYPE_CHECKING:
    from nlp_worker.settings import Settings


def existing(settings: Settings, kind: Literal["requests", "results", "dead-letter"]) -> list[TaskName]:
    """Return the tasks that have a topic of this kind.

    Raises:
        BrokerError: the broker cannot be reached.
        TopicError: there is none.
    """
    from nlp_worker import connection  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client

    names = {f"{settings.topic_prefix}.{task}.{kind}": task for task in TaskName}
    with contextlib.closing(connection.connect(settings)) as admin:
        found = [names[topic] for topic in connection.existing_topics(admin, names)]
    if not found:
        raise TopicError(f"no topic {settings.topic_prefix}.<task>.{kind} exists, or none may be seen")
    return found
