"""What the producer's and operator's commands share: options, settings, how they show things and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from nlp_schemas import ALIASES, ErrorCode, TaskName
from nlp_schemas.task import task_name
from nlp_worker import logging as worker_logging
from nlp_worker.errors import FatalError
from nlp_worker.settings import ENVIRONMENT_PREFIX, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic.fields import FieldInfo

#: How a command ends that was interrupted, as shells have it.
INTERRUPTED: Final = 130

#: Seconds of the units of an age.
UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _seconds(text: str) -> int | None:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    return None if found is None else int(found[1]) * UNITS[found[2]]


def age(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Read an age as seconds."""
    if text is not None and _seconds(text) is None:
        raise click.BadParameter(f"{text!r} is no age such as 30m, 36h or 7d")
    return None if text is None else _seconds(text)


def moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Read a time, or an age, as milliseconds since 1970."""
    if text is None:
        return None
    if (seconds := _seconds(text)) is not None:
        return max(int((time.time() - seconds) * 1_000), 0)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a time such as 2026-11-25T19:00 nor an age such as 2h") from None
    return max(int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000), 0)


def _codes(_context: click.Context, _parameter: click.Parameter, names: tuple[str, ...]) -> frozenset[ErrorCode]:
    return frozenset(map(ErrorCode, names))


def parameters_of(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE of each, where VALUE is JSON or else a text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def option_of(name: str, field: FieldInfo) -> Callable[..., Any]:
    """Return the option of a field of settings, with the field's own help, choices and default."""
    kind = field.annotation
    repeats = get_origin(kind) is tuple
    choices = [str(choice) for choice in get_args(kind)] if "Literal" in str(kind) else None
    shown = "" if field.default in (None, ()) else f"  [default: {field.default}]"
    return click.option(
        "--" + name.replace("_", "-"),
        name,
        multiple=repeats,
        default=() if repeats else None,
        metavar=None if choices else name.upper(),
        type=click.Choice(choices) if choices else str,
        help=f"{field.description}{shown}",
    )


def setting(name: str) -> Callable[..., Any]:
    """Give a command the option of a setting of the worker."""
    return option_of(name, Settings.model_fields[name])


def every_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting, and --config."""
    command = click.option(
        "--config",
        type=click.Path(path_type=Path),
        envvar=ENVIRONMENT_PREFIX + "CONFIG",
        help="A TOML file with settings, and kafka-python's own under [kafka], [kafka.consumer] and [kafka.producer].",
    )(command)
    for name in reversed(Settings.model_fields):
        if name != "kafka":  # a table of the configuration file, with names that are kafka-python's
            command = setting(name)(command)
    return command


@contextlib.contextmanager
def settings_of(options: dict[str, Any], config: Path | None) -> Iterator[Settings]:
    """Read the settings; what ends the command within the block becomes a line and an exit code."""
    try:
        settings = load_settings({name: value for name, value in options.items() if value is not None}, config)
        worker_logging.configure(level=settings.log_level, log_format=settings.log_format)
        yield settings
    except FatalError as error:
        click.echo(f"nlp-worker: {error}", err=True)
        sys.exit(error.exit_code)


@contextlib.contextmanager
def interruptible(advice: str = "") -> Iterator[None]:
    """End with the code that shells have for Ctrl-C, where a command would else end with that of a failure."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"nlp-worker: interrupted{advice}", err=True)
        sys.exit(INTERRUPTED)


class _Task(click.ParamType[str]):
    """A task's name or alias; one that is not built in may be a plugin's."""

    name = "task"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        try:
            return task_name(value)
        except ValueError as error:
            self.fail(str(error), parameter, context)

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del context, parameter
        return [CompletionItem(name) for name in (*TaskName, *ALIASES) if name.startswith(incomplete)]


TASK: Final = _Task()

connected = _options(
    setting("bootstrap_servers"),
    setting("topic_prefix"),
    click.option("--config", type=click.Path(path_type=Path), envvar=ENVIRONMENT_PREFIX + "CONFIG",
                 help="A TOML file with settings, as of `nlp-worker run`."),
)  # fmt: skip
of_a_task = click.option("--task", type=TASK,
                         help="Only this task; without it all tasks that have their topics.")  # fmt: skip
filtered = _options(
    click.option("--code", "codes", type=click.Choice([*map(str, ErrorCode)]), multiple=True, callback=_codes,
                 metavar="CODE", help="Only dead letters of this code. May repeat."),
    click.option("--since", callback=moment, metavar="TIME",
                 help="Only those written since: ISO 8601 (UTC if it names no zone), or an age: 30m, 2h, 7d."),
    click.option("--until", callback=moment, metavar="TIME", help="Only those written before this time, or age."),
)  # fmt: skip


def leave(code: int) -> NoReturn:
    """End the process now, whatever its threads do."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def time_of(timestamp: int) -> str:
    """Say milliseconds since 1970 as ISO 8601."""
    try:
        return datetime.fromtimestamp(timestamp / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # whoever wrote the record may have written any number
        return str(timestamp)


def printable(text: str) -> str:
    """Escape what a terminal would obey, or could not show: the text is anybody's."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
