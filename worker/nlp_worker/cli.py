"""The commands. Wires the parts together, turns signals into a drain and errors into exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
import structlog

from nlp_schemas import DEFAULT_PREFIX, TaskName, requests_topic
from nlp_worker import logging as worker_logging
from nlp_worker import probes
from nlp_worker.command_options import every_setting, leave
from nlp_worker.dead_letters_cli import dead_letters
from nlp_worker.doctor_cli import doctor
from nlp_worker.errors import ExitCode, FatalError, SettingsError
from nlp_worker.evaluate_cli import evaluate
from nlp_worker.lag_cli import lag
from nlp_worker.settings import Settings, load_settings, unknown_environment
from nlp_worker.submit_cli import submit
from nlp_worker.tail_cli import tail
from nlp_worker.topics_cli import topics
from nlp_worker.train_cli import train

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from nlp_worker.loop import Worker
    from nlp_worker.tasks.base import Task

log = structlog.get_logger()

EXIT_CODES: Final = "Exit codes: " + " · ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)

#: Seconds that consumer and producer get to close after a drain.
CLOSE_SECONDS: Final = 10.0

#: Seconds that the log gets for a last event: whoever reads it may be away.
LAST_WORDS_SECONDS: Final = 1.0


@click.group(context_settings={"max_content_width": 120})
@click.version_option(package_name="nlp-worker")
def main() -> None:
    """Answer NLP requests from Kafka topics with Hugging Face models."""


@main.command(epilog=EXIT_CODES)
@every_setting
def run(config: Path | None, **options: Any) -> None:
    """Answer requests until SIGTERM or SIGINT; each setting is also read from NLP_WORKER_<NAME> and the TOML file."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        settings = load_settings(given, config)
        _run(settings)
    except FatalError as error:
        _exit(error)
    # Not sys.exit: a batch that was given up may still be running, and a thread of a pool keeps the interpreter alive.
    leave(ExitCode.DRAINED)


def _run(settings: Settings) -> None:
    worker_id = settings.instance_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    worker_logging.configure(
        level=settings.log_level, log_format=settings.log_format, worker=worker_id, group=settings.group
    )
    if unknown := unknown_environment():
        log.warning("unknown_environment", names=unknown)
    _leave_at_signals()
    health = probes.Health()
    if settings.http_port is not None:
        probes.serve(settings.http_port, health)
    with _wired(settings, worker_id, health) as worker:
        _obey_signals(worker, settings.drain_seconds)
        log.info("ready", topics=sorted({requests_topic(s.task, settings.topic_prefix) for s in settings.models}))
        worker.run()
        health.drain()
        log.info("draining", seconds=settings.drain_seconds)
        worker.drain(settings.drain_seconds)
    log.info("drained")


@contextlib.contextmanager
def _wired(settings: Settings, worker_id: str, health: probes.Health) -> Iterator[Worker]:
    """Wire a worker that serves the checkpoints of the settings.

    What imports torch is imported here: the producer's and operator's commands work without it.
    """
    if not settings.models:
        raise SettingsError("model: no checkpoint is given: use --model TASK=CHECKPOINT, a folder or a hub id")
    from nlp_worker.executor import Executor  # noqa: PLC0415 - beside the others
    from nlp_worker.watchdog import Watchdog, Watched  # noqa: PLC0415
    from nlp_worker.wiring import wired  # noqa: PLC0415

    def load() -> tuple[Mapping[str, Mapping[str, Task]], int]:
        from nlp_worker import models  # noqa: PLC0415

        return models.load(settings), models.cache_tokens(settings)

    def translate(error: Exception) -> Exception:
        from nlp_worker import device_errors  # noqa: PLC0415

        return device_errors.translate(error)

    task_names = {spec.task for spec in settings.models}
    with (
        contextlib.closing(Executor(translate)) as executor,
        wired(settings, worker_id, task_names, load, executor) as worker,
    ):
        watched = [
            Watched("control", lambda: worker.steps, lambda: True),
            Watched("device", lambda: executor.progress.steps, lambda: executor.busy),
        ]
        with contextlib.closing(Watchdog(settings.stuck_seconds, watched, lambda: leave(ExitCode.STUCK))) as watchdog:
            watchdog.start()
            health.started(lambda: worker.joined, watchdog.stuck)
            yield worker


def _leave_at_signals() -> None:
    """End at SIGTERM or SIGINT while nothing is begun yet: the first process of a container would ignore SIGTERM."""

    def obey(number: int, frame: FrameType | None) -> None:
        del number, frame
        _leave_saying("drained", reason="it was not ready yet")

    signal.signal(signal.SIGTERM, obey)
    signal.signal(signal.SIGINT, obey)


def _leave_saying(event: str, **why: str) -> NoReturn:
    """End the process in a signal's handler, with a last event in the log if it can be written."""
    # In a thread: the line that the signal interrupted may hold the log's lock, for as long as nobody reads it.
    last_words = threading.Thread(target=log.warning, args=(event,), kwargs=why, daemon=True)
    last_words.start()
    last_words.join(LAST_WORDS_SECONDS)
    os._exit(ExitCode.DRAINED)


def _obey_signals(worker: Worker, drain_seconds: float) -> None:
    """Drain at the first SIGTERM or SIGINT, leave at the second, or when drain and closing take too long."""
    stopping = False

    def obey(number: int, frame: FrameType | None) -> None:
        del frame
        nonlocal stopping
        if stopping:
            os._exit(128 + number)
        stopping = True
        worker.stop()
        # Whatever the control thread is blocked in, such as publishing to a broker that is away.
        signal.setitimer(signal.ITIMER_REAL, drain_seconds + CLOSE_SECONDS)

    def give_up(number: int, frame: FrameType | None) -> None:
        del number, frame
        _leave_saying("given_up", reason="the drain took too long; what is not committed is answered by another worker")

    signal.signal(signal.SIGALRM, give_up)
    signal.signal(signal.SIGTERM, obey)
    signal.signal(signal.SIGINT, obey)


def _exit(error: FatalError) -> NoReturn:
    click.echo(f"nlp-worker: {error}", err=True)
    leave(error.exit_code)


@main.command()
@click.option("--port", default=9092, show_default=True, help="Of 127.0.0.1; 0 takes a free one.")
@click.option("--topic", "topics", multiple=True, metavar="NAME[:PARTITIONS]", help="Created at start. May repeat.")
def broker(port: int, topics: tuple[str, ...]) -> None:
    """Start the embedded development broker: in memory, on loopback, gone when it stops."""
    from nlp_worker.broker import EmbeddedBroker  # noqa: PLC0415 - the other commands do without

    worker_logging.configure(level="info", log_format="auto")
    try:
        EmbeddedBroker(port=port, topics=dict(map(_topic, topics))).run()
    except OSError as error:
        _exit(SettingsError(f"port {port} of 127.0.0.1 cannot be used: {error.strerror}"))


def _topic(text: str) -> tuple[str, int]:
    name, _, partitions = text.partition(":")
    if partitions and not (partitions.isdigit() and int(partitions)):
        _exit(SettingsError(f"--topic {text}: {partitions!r} is no number of partitions"))
    return name, int(partitions or 1)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False),
              help="Write a JSON Schema of each task's requests and answers here, and asyncapi.json.")  # fmt: skip
@click.option("--topic-prefix", default=DEFAULT_PREFIX, show_default=True, help="What the topics' names start with.")
@click.option("--plugin", multiple=True, metavar="FILE", help="A Python file that adds a task. May repeat.")
def schema(folder: Path | None, topic_prefix: str, plugin: tuple[str, ...]) -> None:
    """Print the contract as an AsyncAPI 3.0 document, or write it and the JSON Schemas of all tasks to a folder."""
    from nlp_schemas.documents import asyncapi, documents  # noqa: PLC0415 - the other commands do without
    from nlp_worker.plugins import load_plugin  # noqa: PLC0415 - as above

    try:
        for file in plugin:
            load_plugin(file)
    except SettingsError as error:
        _exit(error)
    if folder is None:
        click.echo(_json(asyncapi(topic_prefix)))
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents(topic_prefix).items():
            (folder / name).write_text(_json(document) + "\n", encoding="utf-8")
            click.echo(folder / name)
    except OSError as error:
        _exit(SettingsError(f"--folder {folder} cannot be written to: {error.strerror}"))


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


@main.command()
@click.option("--models", type=click.Choice(["miniature", "hub"]), default="miniature", show_default=True,
              help="A miniature that is trained on first use, or the hub's DistilBERT SST-2.")  # fmt: skip
@click.option("--task", type=click.Choice([*map(str, TaskName), "all"]),
              help="Ask toy requests of this task, or of each, and compare the answers.")  # fmt: skip
@click.option("--train", "trains", is_flag=True,
              help="Train a better checkpoint from labels, evaluate it, and roll over to it under load.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path), default=Path(".demo"), show_default=True,
              help="Where the miniatures and the workers' logs are kept.")  # fmt: skip
def demo(models: str, task: str | None, trains: bool, folder: Path) -> None:
    """Watch two workers answer a stream of real sentences through a broker, and one of them die."""
    if task is not None and models == "hub":
        _exit(SettingsError("--task has miniatures only: leave out --models hub"))
    if trains:
        if task is not None or models == "hub":
            _exit(SettingsError("--train has one miniature of its own: leave out --task and --models hub"))
        from nlp_worker.demo.circle import run_circle  # noqa: PLC0415 - the other commands do without

        leave(0 if run_circle(folder) else 1)
    from nlp_worker.demo.run import run_demo  # noqa: PLC0415 - as above

    tasks = list(TaskName) if task == "all" else [TaskName(task)] if task else []
    leave(0 if run_demo(models, folder, tasks) else 1)


for command in (submit, tail, lag, topics, dead_letters, doctor, train, evaluate):
    main.add_command(command)
