"""Looks at all that a worker needs, one thing after the other, and says of each what is wrong and what to do."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kafka import KafkaAdminClient
from kafka import errors as kafka_errors
from kafka.admin import OffsetSpec

from nlp_schemas import requests_topic, results_topic
from nlp_worker import connection, topics
from nlp_worker.cores import usable_cores
from nlp_worker.errors import ExitCode, FatalError, TopicError
from nlp_worker.kafka_clients import open_producer, producer_arguments
from nlp_worker.memory import free_memory
from nlp_worker.plugins import load_plugin
from nlp_worker.settings import ENVIRONMENT_PREFIX, Settings, unknown_environment
from nlp_worker.transactions import OWN_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What the worker is made of, and what of it the producer's and operator's commands do without.
PACKAGES: Final = ("nlp-worker", "kafka-python", "pydantic")
INFERENCE: Final = ("torch", "transformers", "tokenizers", "sentencepiece")

#: `run` ends without one, with exit code 2.
NO_MODEL: Final = "no checkpoint is given: run needs --model TASK=CHECKPOINT; checkpoints and device were not looked at"

#: Seconds that clocks may be apart: a request's age is told by them.
SKEW_SECONDS: Final = 2.0


class Verdict(StrEnum):
    """Of one thing."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    """No worker runs with it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, and what was seen."""

    about: str
    verdict: Verdict
    told: str
    exit_code: int = ExitCode.DRAINED
    """Of the worker that would run into it."""


class Doctor:
    """Looks with a worker's own settings.

    Args:
        settings: As ``nlp-worker run`` has them. Without checkpoints the topics of all tasks that have some are
            looked at.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks = list(dict.fromkeys(spec.task for spec in settings.models))

    def findings(self) -> Iterator[Finding]:
        """Look; what cannot be seen because of an error is left out."""
        yield self._versions("versions", PACKAGES)
        yield from (Finding("environment", Verdict.WARNING, _no_setting(name)) for name in unknown_environment())
        yield from self._looked("broker", self._broker)
        plugins = [found for file in self._settings.plugin for found in self._looked("plugins", partial(_plugin, file))]
        yield from plugins
        if not self._settings.models:
            yield Finding("models", Verdict.WARNING, NO_MODEL)
            return
        inference = self._versions("inference", INFERENCE)
        yield inference
        yield _memory(self._settings)
        if inference.verdict is Verdict.OK:
            yield from self._looked("device", self._device)
            if all(found.verdict is Verdict.OK for found in plugins):  # else no checkpoint is loaded
                yield from self._looked("models", self._models)

    def _looked(self, about: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
        """Give what is seen, and an error that ends the look."""
        try:
            yield from look()
        except FatalError as error:
            yield Finding(about, Verdict.ERROR, str(error), error.exit_code)
        except kafka_errors.KafkaError as error:
            yield Finding(about, Verdict.ERROR, f"{type(error).__name__}: {error}", ExitCode.BROKER)

    def _versions(self, about: str, names: tuple[str, ...]) -> Finding:
        found = {}
        for name in names:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
        python = f"python {sys.version.partition(' ')[0]}"
        told = ", ".join([python, *(f"{name} {version}" for name, version in found.items())])
        if missing := [name for name in names if name not in found]:
            problem = f"{', '.join(missing)} is not installed: pip install 'nlp-worker[inference]'"
            return Finding(about, Verdict.ERROR, problem, ExitCode.CHECKPOINT)
        return Finding(about, Verdict.OK, told)

    def _broker(self) -> Iterator[Finding]:
        with contextlib.closing(connection.connect(self._settings)) as admin:
            brokers = admin.describe_cluster()["brokers"]
            version = ".".join(map(str, admin.get_broker_version_data(brokers[0]["broker_id"]).broker_version))
            told = f"Kafka {version} at {self._settings.bootstrap_servers}, brokers: {len(brokers)}"
            yield Finding("broker", Verdict.OK, told)
            yield from self._looked("group", lambda: self._group(admin))
            yield from self._looked("topics", lambda: self._topics(admin))
            if self._tasks:
                yield from self._looked("clock", lambda: self._clock(admin))
        if self._settings.delivery == "exactly-once":
            yield from self._looked("transactions", self._transactions)

    def _group(self, admin: KafkaAdminClient) -> Iterator[Finding]:
        group = self._settings.group
        found = connection.of_group(lambda: admin.describe_groups([group])[group], group)
        workers = len(found["members"])
        yield Finding("group", Verdict.OK, f"{group} has {workers} worker{'' if workers == 1 else 's'} now")

    def _topics(self, admin: KafkaAdminClient) -> Iterator[Finding]:
        prefix = self._settings.topic_prefix
        self._tasks = self._tasks or list(topics.tasks_by_topic(admin, prefix, topics.Kind.REQUESTS).values())
        problems = topics.check(admin, prefix, self._tasks)
        for problem in problems:
            error = problem.verdict is topics.Verdict.ERROR
            told = f"{problem.topic}: {problem.told}"
            yield Finding("topics", Verdict(problem.verdict), told, ExitCode.TOPICS if error else ExitCode.DRAINED)
        if not problems:
            yield Finding("topics", Verdict.OK, f"of {', '.join(self._tasks)}")

    def _clock(self, admin: KafkaAdminClient) -> Iterator[Finding]:
        """Whether a record comes from the future; that clocks are behind nothing in Kafka tells."""
        prefix = self._settings.topic_prefix
        names = [name(task, prefix) for task in self._tasks for name in (requests_topic, results_topic)]
        wanted = connection.partitions_of(admin, connection.existing_topics(admin, names))
        newest = admin.list_partition_offsets(dict.fromkeys(wanted, OffsetSpec.MAX_TIMESTAMP)) if wanted else {}
        ahead = max((found.timestamp / 1000 for found in newest.values()), default=0.0) - time.time()
        if ahead > SKEW_SECONDS:
            told = f"a record is {ahead:.1f} s ahead of this machine's clock, and timeout_ms is wrong by it"
            yield Finding("clock", Verdict.WARNING, f"{told}: see the clocks of producers and workers")
        else:
            yield Finding("clock", Verdict.OK, "no record is ahead of this machine's")

    def _transactions(self) -> Iterator[Finding]:
        name = f"{self._settings.group}/doctor-{os.getpid()}"
        arguments = producer_arguments(self._settings, [2**20], **OWN_SETTINGS, transactional_id=name)
        with contextlib.closing(open_producer(arguments)) as producer:
            try:
                producer.init_transactions()
            except kafka_errors.KafkaError as error:
                told = f"transactional id {name}: {type(error).__name__}"
                raise TopicError(f"{told}: allow WRITE on {self._settings.group}/*") from None
        yield Finding("transactions", Verdict.OK, f"transactional ids {self._settings.group}/* are allowed")

    def _device(self) -> Iterator[Finding]:
        from nlp_worker import models  # noqa: PLC0415 - imports torch, which the other looks do without

        threads = self._settings.threads or usable_cores()
        yield Finding("device", Verdict.OK, f"{models.describe_device(self._settings)}; {threads} cores are used")

    def _models(self) -> Iterator[Finding]:
        from nlp_worker import device_errors, models  # noqa: PLC0415 - as in `_device`
        from nlp_worker.executor import Executor  # noqa: PLC0415 - as in `_device`
        from nlp_worker.planner import Planner  # noqa: PLC0415 - as in `_device`

        with contextlib.closing(Executor(device_errors.translate)) as executor:
            planner = Planner(self._settings.batch_tokens, models.cache_tokens(self._settings))
            for served in models.load(self._settings).values():
                for name, task in served.items():
                    began = time.monotonic()
                    planner.warm_up(task, executor)
                    told = f"{name} runs for {task.name}, warmed up in {time.monotonic() - began:.1f} s"
                    yield Finding("models", Verdict.OK, f"{told}, {'packed' if task.packs else 'padded'}")


def _plugin(file: str) -> Iterator[Finding]:
    yield Finding("plugins", Verdict.OK, f"{file} adds {load_plugin(file).name}")


def _no_setting(name: str) -> str:
    """Say that a name of the environment is no setting, and which one may be meant."""
    own, *inner = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
    names = [field.upper() for field in (*Settings.model_fields, "config")]
    meant = ["__".join([near, *inner]) for near in difflib.get_close_matches(own.upper(), names, n=1)]
    return f"{name} is no setting" + "".join(f": did you mean {ENVIRONMENT_PREFIX}{near}?" for near in meant)


def _memory(settings: Settings) -> Finding:
    """Whether the checkpoints that are folders fit into what is free."""
    free = free_memory()
    folders = [Path(spec.checkpoint).expanduser() for spec in settings.models]
    weights = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    free_told = "nothing tells what is free" if free is None else f"{free / 2**30:.1f} GiB are free"
    told = f"{free_told}, the weights in folders have {weights / 2**30:.1f} GiB"
    return Finding("memory", Verdict.OK if free is None or weights <= free else Verdict.WARNING, told)
