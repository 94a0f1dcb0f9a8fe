"""`nlp-worker submit`: requests from a file or a pipe, and their answers on standard output."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import stat
import sys
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from nlp_worker.command_options import INTERRUPTED, TASK, connected, leave, parameters_of, settings_of
from nlp_worker.errors import ExitCode, FatalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nlp_worker.submitting import Output

#: Seconds without an answer after which it is said what may be wrong.
PATIENCE: Final = 30.0

WHY_NOT: Final = (
    "is a worker running? What one had that was killed waits until its session is over (session_timeout_ms, 45 s); "
    "nlp-worker lag shows what waits"
)

#: How the command ends where an answer is an error.
SOME_FAILED: Final = 1

EXIT_CODES: Final = (
    "Exit codes: 0 all lines were answered with outputs · 1 some with errors · 2 usage or settings · 3 broker "
    "unreachable · 4 topics missing or not allowed · 7 a request could not be sent · 130 interrupted"
)


@click.command(epilog=EXIT_CODES)
@connected
@click.argument("task", type=TASK, metavar="TASK")
@click.argument("source", type=click.File("rb"), default="-", metavar="[FILE]")
@click.option("--format", "lines_are", type=click.Choice(["auto", "text", "json"]), default="auto", show_default=True,
              help='text: a line is a text. json: a line is a request, such as {"inputs": "..."}. auto: json if the '
                   "first line is one.")  # fmt: skip
@click.option("--model", help="The checkpoint to ask, by its served name; else the first of the task.")
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", callback=parameters_of,
              help="Of the task, for each line; VALUE is JSON, or else a text. May repeat.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
              help="A new file for the answers, instead of standard output.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an --output that another run began: its lines stay.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=math.inf,
              help="Seconds until a request is given up, which ends the command; without it never.")  # fmt: skip
@click.option("--in-flight", type=click.IntRange(min=1), default=1_000, show_default=True,
              help="Most requests that wait for their answers.")  # fmt: skip
@click.option("--reply-topic", help="Where the answers go, instead of the results topic; the workers must allow it.")
def submit(
    *, config: Path | None, task: str, source: BinaryIO, lines_are: str, model: str | None,
    parameters: dict[str, Any], output: Path | None, resume: bool, timeout: float, in_flight: int,
    reply_topic: str | None, **options: Any,
) -> None:  # fmt: skip
    """Ask for each line of FILE or of standard input, and write a line of JSON for each, in their order.

    TASK is a task's name, such as text-classification. Lines that are empty are left out. Example:

        nlp-worker submit text-classification reviews.txt -p top_k=2 --output answers.jsonl
    """
    with settings_of(options, config) as settings, _opened(output, resume=resume) as (target, done):
        from nlp_worker import submitting  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client
        from nlp_worker.client import AnswerTimeoutError, Client  # noqa: PLC0415 - as above

        common = {"parameters": parameters, **({} if model is None else {"model": model})}
        lines = submitting.read(source)
        first = next(lines, None)
        as_json = lines_are == "json" or (
            lines_are == "auto" and first is not None and submitting.is_json(first.content)
        )
        if lines_are == "auto" and first is not None and not as_json and first.content.lstrip().startswith(b"{"):
            # A field that is misspelt would be classified with all the rest of its line.
            problem = 'begins with { and is no request, which has "inputs"'
            raise SettingsError(f"line {first.number} {problem}: say --format json, or --format text if it is a text")
        rest = itertools.islice(itertools.chain([] if first is None else [first], lines), done, None)
        answers = submitting.Output(target, task)
        client = Client(
            settings.bootstrap_servers, topic_prefix=settings.topic_prefix, reply_topic=reply_topic,
            max_in_flight=in_flight, timeout=timeout, config=config,
        )  # fmt: skip
        began = time.monotonic()
        try:
            with _progress(source, answers) as show:
                for line, answer in submitting.ask(client, task, rest, common, as_json=as_json, ahead=in_flight):
                    if isinstance(answer, Future) and not wait([answer], PATIENCE).done:
                        click.echo(f"no answer to line {line.number} for {PATIENCE:g} s: {WHY_NOT}", err=True)
                    answers.write(line, answer)
                    show(line.end)
            client.close()
            code = SOME_FAILED if answers.failed else ExitCode.DRAINED
        except (AnswerTimeoutError, FatalError) as error:
            click.echo(f"nlp-worker: {error}", err=True)
            code = error.exit_code if isinstance(error, FatalError) else SOME_FAILED
        except KeyboardInterrupt:
            code = INTERRUPTED
        click.echo(_summary(answers, done, time.monotonic() - began), err=True)
        if code and output is not None:
            click.echo("go on with the same command and --resume", err=True)
    # Not sys.exit: where a line is still waited for, Python would wait for it too.
    leave(code)


@contextlib.contextmanager
def _opened(output: Path | None, *, resume: bool) -> Iterator[tuple[BinaryIO, int]]:
    """Give where answers go, and how many are there already."""
    if output is None:
        if resume:
            raise SettingsError("--resume needs an --output that another run began")
        yield sys.stdout.buffer, 0
        return
    if output.exists() and not resume:
        raise SettingsError(f"--output {output} is there: go on with it with --resume, or name another")
    try:
        file = output.open("r+b" if output.exists() else "x+b")
    except OSError as error:
        raise SettingsError(f"--output {output} cannot be written to: {error.strerror}") from None
    with file:
        from nlp_worker.submitting import end_of_lines  # noqa: PLC0415 - as in `submit`

        yield file, end_of_lines(file) if resume else 0


@contextlib.contextmanager
def _progress(source: BinaryIO, answers: Output) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how much of the input is answered; the function is told the bytes."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("0 answered", total=_size(source))
        yield lambda end: bar.update(shown, completed=end, description=answers.told)


def _size(source: BinaryIO) -> int | None:
    """Return the bytes of a file, None where nobody knows how many will come."""
    try:
        status = os.fstat(source.fileno())
    except OSError:  # no file at all
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _summary(answers: Output, done: int, seconds: float) -> str:
    count = answers.counts.total()
    before = f", {done:,} before" if done else ""
    rate = count / max(seconds, 1e-9)
    return f"{answers.told}{before}; {f'{rate:,.0f} a second' if rate >= 1 else f'in {seconds:.0f} s'}"
