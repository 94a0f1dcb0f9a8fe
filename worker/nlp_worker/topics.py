"""The topics of a task: what they should be like, and what is wrong with those that are there."""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka import errors as kafka_errors

from nlp_schemas import ALIASES, MAX_REQUEST_BYTES, TaskName, dead_letter_topic, requests_topic, results_topic
from nlp_schemas.labels import LABELLED, labels_topic
from nlp_schemas.task import BUILT_IN, TASK_PATTERN
from nlp_worker import connection
from nlp_worker.errors import TopicError
from nlp_worker.topic_problems import topic_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kafka import KafkaAdminClient

    from nlp_worker.settings import Settings

#: Bytes that a dead letter may have more than its request: headers are added.
DEAD_LETTER_ROOM: Final = 64 * 2**10

#: Bytes of an answer of feature extraction: a vector for each token of a long text, in decimal digits.
VECTORS_BYTES: Final = 16 * 2**20

#: Milliseconds, a day: workers that are away for a weekend's night lose nothing.
SHORT_RETENTION_MS: Final = 24 * 3600 * 1000

#: Copies of a topic below which a broker's disk takes it with it, and copies that must have a record before it counts.
SAFE_REPLICAS: Final = 3
SAFE_IN_SYNC: Final = 2


class Kind(StrEnum):
    """Of a task's topics."""

    REQUESTS = "requests"
    RESULTS = "results"
    DEAD_LETTER = "dead-letter"


NAMES: Final[Mapping[Kind, Callable[[str, str], str]]] = {
    Kind.REQUESTS: requests_topic,
    Kind.RESULTS: results_topic,
    Kind.DEAD_LETTER: dead_letter_topic,
}


class Verdict(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """No worker runs with it, or something is lost."""
    WARNING = "warning"
    """It works, until something happens."""


class Problem(NamedTuple):
    """What is wrong with a topic, and what would be right."""

    topic: str
    verdict: Verdict
    told: str


class Topic(NamedTuple):
    """A topic that is there."""

    name: str
    kind: Kind
    partitions: int
    replicas: int
    """Of the partition that has the fewest."""
    configs: Mapping[str, str]

    def number(self, config: str, default: int) -> int:
        return int(self.configs.get(config, default))

    @property
    def max_bytes(self) -> int:
        return self.number("max.message.bytes", connection.DEFAULT_MAX_MESSAGE_BYTES)


class Created(NamedTuple):
    """What became of a topic that is wanted."""

    topic: str
    created: bool
    """False where it was there."""
    partitions: int | None
    """None where it was there and may not be seen."""


def existing(settings: Settings, kind: Kind) -> list[str]:
    """Return the tasks that have a topic of this kind.

    Raises:
        BrokerError: the broker cannot be reached.
        TopicError: there is none.
    """
    with contextlib.closing(connection.connect(settings)) as admin:
        return list(tasks_by_topic(admin, settings.topic_prefix, kind).values())


def tasks_by_topic(admin: KafkaAdminClient, prefix: str, kind: Kind) -> dict[str, str]:
    """Return the topics of this kind that exist, a plugin's too, each with its task.

    Raises:
        TopicError: there is none.
    """
    seen = frozenset(admin.list_topics())
    pattern = re.compile(re.escape(prefix) + rf"\.({TASK_PATTERN.pattern})\.{kind}")
    tasks = {match[0]: match[1] for match in map(pattern.fullmatch, sorted(seen)) if match is not None}

    def is_task(name: str) -> bool:
        # Other topics may have such names too: what has all three topics is a plugin's task.
        whole = seen.issuperset(topic(name, prefix) for topic in NAMES.values())
        return name in BUILT_IN or (whole and name not in ALIASES)

    found = {topic: task for topic, task in tasks.items() if is_task(task)}
    if not found:
        raise TopicError(f"no topic {prefix}.<task>.{kind} exists, or none may be seen")
    return found


def create(
    admin: KafkaAdminClient,
    prefix: str,
    tasks: Iterable[str],
    *,
    partitions: int,
    replicas: int | None = None,
    configs: Mapping[str, str] | None = None,
    labels: bool = False,
) -> list[Created]:
    """Create the topics of the tasks; those that are there stay as they are.

    Args:
        admin: Does it.
        prefix: Of the names.
        tasks: Whose topics.
        partitions: Of each.
        replicas: Of each; None is what the broker has as its default.
        configs: Of each, over what is set here.
        labels: Whether those that can be trained get a topic of labels too.

    Raises:
        TopicError: one cannot be created; those before it are there.
    """
    done = {}
    for task in tasks:
        own = {name_of(task, prefix): _sizes(task, kind) for kind, name_of in NAMES.items()}
        if labels and task in LABELLED:
            # Labels are worth more with each one that is added to them.
            own[labels_topic(task, prefix)] = {"retention.ms": "-1"}
        for name, of_one in own.items():
            wanted = {"num_partitions": partitions, "configs": {**of_one, **(configs or {})}}
            if replicas is not None:
                wanted["replication_factor"] = replicas
            done[name] = _create(admin, name, wanted)
    # Of one that may not be seen there are 0.
    found = connection.count_partitions(admin, [name for name, created in done.items() if not created])
    return [Created(name, created, found.get(name, partitions) or None) for name, created in done.items()]


def _sizes(task: str, kind: Kind) -> dict[str, str]:
    if kind is Kind.DEAD_LETTER:
        return {"max.message.bytes": str(connection.DEFAULT_MAX_MESSAGE_BYTES + DEAD_LETTER_ROOM)}
    if kind is Kind.RESULTS and task == TaskName.FEATURE_EXTRACTION:
        return {"max.message.bytes": str(VECTORS_BYTES)}
    return {}


def _create(admin: KafkaAdminClient, name: str, wanted: dict[str, Any]) -> bool:
    try:
        admin.create_topics({name: wanted}, wait_for_metadata=True)
    except kafka_errors.TopicAlreadyExistsError:
        return False
    except kafka_errors.KafkaError as error:
        raise TopicError(f"topic {name} cannot be created: {type(error).__name__}: {error}") from None
    return True


def check(admin: KafkaAdminClient, prefix: str, tasks: Sequence[str]) -> list[Problem]:
    """Return what is wrong with the topics of the tasks: what no worker runs with, and what may lose something."""
    names = {name_of(task, prefix): (task, kind) for task in tasks for kind, name_of in NAMES.items()}
    described = {topic["name"]: topic for topic in admin.describe_topics(sorted(names))}
    configs = connection.topic_configs(admin, names)
    problems = []
    for task in tasks:
        found: dict[Kind, Topic] = {}
        for kind, name_of in NAMES.items():
            name = name_of(task, prefix)
            right = "READ" if kind is Kind.REQUESTS else "WRITE"
            if told := topic_problem(described.get(name), name, right):
                problems.append(Problem(name, Verdict.ERROR, told.removeprefix(f"topic {name} ")))
                continue
            parts = described[name]["partitions"]
            replicas = min(len(part["replica_nodes"]) for part in parts)
            found[kind] = Topic(name, kind, len(parts), replicas, configs[name])
        problems += [problem for topic in found.values() for problem in problems_of(topic)]
        problems += problems_between(task, found)
    return problems


def problems_of(topic: Topic) -> Iterator[Problem]:
    """Return what is wrong with a topic by itself."""

    def warning(told: str) -> Problem:
        return Problem(topic.name, Verdict.WARNING, told)

    if "compact" in topic.configs.get("cleanup.policy", "delete"):
        told = "cleanup.policy=compact drops all records of a key but the last: set delete"
        yield Problem(topic.name, Verdict.ERROR, told)
    retention = topic.number("retention.ms", -1)
    if 0 <= retention < SHORT_RETENTION_MS:
        yield warning(f"retention.ms={retention}: what is not read within {retention / 3_600_000:g} h is deleted")
    if topic.configs.get("unclean.leader.election.enable") == "true":
        yield warning("unclean.leader.election.enable=true: acknowledged records may be lost: set false")
    if topic.replicas == 1:
        yield warning(f"1 replica: it is lost with its broker's disk; {SAFE_REPLICAS} are safe")
    elif topic.replicas < SAFE_REPLICAS:
        yield warning(f"{topic.replicas} replicas: it goes with the disks of as many brokers; {SAFE_REPLICAS} are safe")
    in_sync = topic.number("min.insync.replicas", 1)
    if in_sync < SAFE_IN_SYNC <= topic.replicas:
        yield warning(f"min.insync.replicas={in_sync}: a record counts that one broker has: set {SAFE_IN_SYNC}")
    if in_sync == topic.replicas > 1:
        yield warning(f"min.insync.replicas={in_sync} of {topic.replicas}: nothing is written while a broker is away")


def problems_between(task: str, found: Mapping[Kind, Topic]) -> Iterator[Problem]:
    """Return what is wrong with a task's topics beside each other."""
    requests, results, letters = (found.get(kind) for kind in Kind)
    if requests is not None and requests.partitions == 1:
        yield Problem(requests.name, Verdict.WARNING, "1 partition: only one worker answers")
    if requests is not None and requests.max_bytes > MAX_REQUEST_BYTES + connection.DEFAULT_MAX_MESSAGE_BYTES:
        told = f"max.message.bytes={requests.max_bytes}: requests above {MAX_REQUEST_BYTES} bytes are answered"
        yield Problem(requests.name, Verdict.WARNING, f"{told} invalid_request")
    if requests is not None and letters is not None and letters.max_bytes < requests.max_bytes + DEAD_LETTER_ROOM:
        told = f"max.message.bytes={letters.max_bytes}: the dead letter of a large request has no value: set"
        yield Problem(letters.name, Verdict.WARNING, f"{told} {requests.max_bytes + DEAD_LETTER_ROOM}")
    if results is not None and task == TaskName.FEATURE_EXTRACTION and results.max_bytes < VECTORS_BYTES:
        told = f"max.message.bytes={results.max_bytes}: vectors of long texts are answered result_too_large: set"
        yield Problem(results.name, Verdict.WARNING, f"{told} {VECTORS_BYTES}")
