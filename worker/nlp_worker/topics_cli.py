"""`nlp-worker topics`: the topics of a task, made and looked at."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from nlp_schemas import TaskName
from nlp_schemas.task import BUILT_IN
from nlp_worker.command_options import TASK, age, connected, settings_of
from nlp_worker.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CODES: Final = (
    "Exit codes: 0 done, warnings included · 2 usage or settings · 3 broker unreachable · 4 a topic is missing, not "
    "allowed, or loses records"
)


def _once(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(names))


_of_tasks = click.option("--task", "tasks", type=TASK, multiple=True, required=True, callback=_once,
                         help="Whose topics: requests, results and dead letters. May repeat.")  # fmt: skip
_as_json = click.option("--json", "as_json", is_flag=True, help="A JSON object for each, on a line of its own.")


@click.group()
def topics() -> None:
    """Create the topics of a task, or see what is wrong with them."""


@topics.command(epilog=EXIT_CODES)
@connected
@_of_tasks
@click.option("--partitions", type=click.IntRange(min=1), default=6, show_default=True,
              help="Of each topic: the most workers that answer a task.")  # fmt: skip
@click.option(
    "--replication-factor", type=click.IntRange(min=1), help="Of each topic; without it the broker's default."
)
@click.option(
    "--retention", callback=age, metavar="AGE", help="How long records are kept: 36h, 7d. Without it the broker's."
)
@click.option("--labels", is_flag=True, help="Also the topic of labels, kept for ever, that `nlp-worker train` reads.")
@_as_json
def create(
    *, config: Path | None, tasks: list[str], partitions: int, replication_factor: int | None,
    retention: int | None, labels: bool, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Create the topics that are missing, with room in them for what a worker writes; others stay as they are.

    Example: nlp-worker topics create --task text-classification --partitions 12 --replication-factor 3
    """
    with settings_of(options, config) as settings:
        from nlp_worker import connection  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client
        from nlp_worker import topics as of_tasks  # noqa: PLC0415 - as above

        configs = {} if retention is None else {"retention.ms": str(retention * 1000)}
        with contextlib.closing(connection.connect(settings)) as admin:
            done = of_tasks.create(
                admin, settings.topic_prefix, tasks,
                partitions=partitions, replicas=replication_factor, configs=configs, labels=labels,
            )  # fmt: skip
    asked = click.get_current_context().get_parameter_source("partitions") is ParameterSource.COMMANDLINE
    for each in done:
        told = "created" if each.created else "is there:"
        if asked and each.partitions not in {partitions, None}:
            plural = "" if each.partitions == 1 else "s"
            told = f"is there, with {each.partitions} partition{plural} and not {partitions}:"
        click.echo(json.dumps(each._asdict()) if as_json else f"{told} {each.topic}")
    for task in tasks:
        if task not in BUILT_IN:
            there = ", ".join(TaskName)
            click.echo(f"{task!r} is not built in: a worker needs a plugin for it; there is {there}", err=True)


@topics.command(epilog=EXIT_CODES)
@connected
@_of_tasks
@_as_json
def check(*, config: Path | None, tasks: list[str], as_json: bool, **options: Any) -> None:
    """See what is wrong with the topics of a task: what no worker runs with, and what may lose something.

    Example: nlp-worker topics check --task text-classification --json | jq .told
    """
    with settings_of(options, config) as settings:
        from nlp_worker import connection  # noqa: PLC0415 - as in `create`
        from nlp_worker import topics as of_tasks  # noqa: PLC0415 - as in `create`

        with contextlib.closing(connection.connect(settings)) as admin:
            problems = of_tasks.check(admin, settings.topic_prefix, tasks)
    for problem in problems:
        colour = "red" if problem.verdict is of_tasks.Verdict.ERROR else "yellow"
        told = f"{click.style(problem.verdict, fg=colour)} {problem.topic}: {problem.told}"
        click.echo(json.dumps(problem._asdict()) if as_json else told)
    if not problems and not as_json:
        click.echo(f"nothing is wrong with the topics of {', '.join(tasks)}")
    sys.exit(ExitCode.TOPICS if any(each.verdict is of_tasks.Verdict.ERROR for each in problems) else 0)
