"""`nlp-worker dead-letters`: what an operator sees of dead letters, and the way back for them."""

from __future__ import annotations

import contextlib
import heapq
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import Progress

from nlp_schemas import ErrorCode, dead_letter_topic
from nlp_worker.command_options import connected, filtered, of_a_task, printable, settings_of, time_of
from nlp_worker.errors import ExitCode, FatalError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from nlp_worker.dead_letters import Letter, Reader, Topic
    from nlp_worker.record_ranges import Position
    from nlp_worker.redrive import Redriven, Skip
    from nlp_worker.settings import Settings

#: Characters of a message in a list: enough to tell two failures apart.
MESSAGE_CHARACTERS: Final = 100

#: Characters of a key, a header or a value that are shown without --full: a screen.
VALUE_CHARACTERS: Final = 2_000

EXIT_CODES: Final = "Exit codes: " + " · ".join(
    f"{code.value} {told}"
    for code, told in (
        (ExitCode.DRAINED, "done"),
        (ExitCode.USAGE, "usage or settings"),
        (ExitCode.BROKER, "broker unreachable"),
        (ExitCode.TOPICS, "topics missing or not allowed, or a record that cannot be read"),
        (ExitCode.PUBLISH, "a request could not be sent back"),
    )
)


@contextlib.contextmanager
def _reader(settings: Settings, task: str | None) -> Iterator[tuple[Reader, list[Topic]]]:
    from nlp_worker import connection  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client
    from nlp_worker.dead_letters import Reader, find_topics  # noqa: PLC0415 - as above

    with contextlib.closing(connection.connect(settings)) as admin:
        topics = find_topics(admin, settings.topic_prefix, task)
    with contextlib.closing(Reader(settings)) as reader:
        yield reader, topics


def _position(text: str, settings: Settings, task: str | None) -> Position:
    from nlp_worker.record_ranges import Position  # noqa: PLC0415 - as above

    return Position.parse(text, None if task is None else dead_letter_topic(task, settings.topic_prefix))


@click.group("dead-letters")
def dead_letters() -> None:
    """See which requests failed, and send them back when the cause is mended."""


@dead_letters.command("list", epilog=EXIT_CODES)
@connected
@of_a_task
@filtered
@click.option("--limit", type=click.IntRange(min=1), default=1_000, show_default=True, help="Only so many, the newest.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each, on a line of its own.")
def list_(
    *, config: Path | None, task: str | None, codes: frozenset[ErrorCode], since: int | None, until: int | None,
    limit: int, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """List dead letters, the newest last, and count them by code; never the text of a request."""
    counts: Counter[str] = Counter()
    with settings_of(options, config) as settings, _reader(settings, task) as (reader, topics):
        letters = reader.letters(reader.ranges(topics, since), since, until)
        chosen = (each for each in letters if not codes or (each.reason is not None and each.reason.code in codes))
        numbered = enumerate(_counted(counts, each) for each in chosen)
        newest = heapq.nlargest(limit, ((row["timestamp"], number, row) for number, row in numbered))
    for *_, row in reversed(newest):
        click.echo(json.dumps(row) if as_json else _line(row))
    shown = f"; the newest {limit} are shown" if len(newest) < counts.total() else ""
    click.echo(_listed(f"{counts.total()} dead letters", counts) + shown, err=True)


def _counted(counts: Counter[str], letter: Letter) -> dict[str, Any]:
    """Count, and keep what is listed: the values of a long topic do not fit the memory."""
    reason = letter.reason
    counts["not a dead letter" if reason is None else reason.code] += 1
    row = {
        "timestamp": letter.record.timestamp,
        "time": time_of(letter.record.timestamp),
        "task": letter.task,
        "position": str(letter.position),
    }
    if reason is None:
        return row | {"code": None, "problem": letter.problem}
    told = reason.model_dump(mode="json", include={"code", "stage", "message", "exception", "worker", "model"})
    return row | told | {"original": str(letter.original)}


def _line(row: dict[str, Any]) -> str:
    start = [click.style(row["time"], dim=True), row["task"], click.style(row["position"], fg="cyan")]
    if row["code"] is None:
        return " ".join([*start, click.style("not a dead letter:", fg="red"), printable(row["problem"])])
    message = row["message"]
    if len(message) > MESSAGE_CHARACTERS:
        message = message[: MESSAGE_CHARACTERS - 3] + "..."
    code = click.style(row["code"], fg="red")
    return " ".join([*start, code, row["stage"], printable(row["original"]), printable(message)])


def _listed(what: str, counts: Counter[str]) -> str:
    return ": ".join([what, *filter(None, [", ".join(f"{name} {count}" for name, count in counts.most_common())])])


@dead_letters.command(epilog=EXIT_CODES)
@connected
@of_a_task
@click.argument("position")
@click.option("--full", is_flag=True, help="Show long values whole.")
def show(*, config: Path | None, task: str | None, position: str, full: bool, **options: Any) -> None:
    """Show one dead letter with its headers, key and value.

    POSITION is TOPIC-PARTITION-OFFSET, as `list` prints it, or PARTITION:OFFSET with --task.
    """
    with settings_of(options, config) as settings:
        wanted = _position(position, settings, task)
        with _reader(settings, task) as (reader, topics):
            ranges = [
                each._replace(end=min(each.end, wanted.offset + 1))
                for each in reader.ranges(topics, first=wanted)
                if (each.topic.name, each.partition, each.start) == wanted
            ]
            letter = next(reader.letters(ranges), None)
        if letter is None:
            raise SettingsError(f"there is no dead letter at {wanted}: `nlp-worker dead-letters list` names all")
    length = None if full else VALUE_CHARACTERS
    click.echo(f"{letter.position} of {time_of(letter.record.timestamp)}, {letter.task}")
    if letter.reason is None:
        click.echo(printable(f"not a dead letter: {letter.problem}"))
    for name, value in letter.record.headers:
        click.echo(f"header {printable(name)}: {_shown(value, length)}")
    click.echo(f"key: {_shown(letter.record.key, length)}")
    click.echo(f"value: {_shown(letter.record.value, length)}")


def _shown(content: bytes | None, length: int | None) -> str:
    """Text as it is where it is UTF-8, anything else escaped."""
    if content is None:
        return "null"
    text = content.decode(errors="backslashreplace")
    more = "" if length is None or len(text) <= length else f"... ({len(text) - length:,} more: see them with --full)"
    return "\n".join(printable(line) for line in text[:length].split("\n")) + more


@dead_letters.command(epilog=EXIT_CODES)
@connected
@of_a_task
@filtered
@click.option("--from", "start", metavar="POSITION", help="Leave out what comes before: where another run stopped.")
@click.option("--max-redrives", type=click.IntRange(min=1), default=3, show_default=True,
              help="Skip a request that was redriven so often already.")  # fmt: skip
@click.option("--rate", type=click.IntRange(min=1), default=100, show_default=True, help="Most requests a second.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def redrive(
    *, config: Path | None, task: str | None, codes: frozenset[ErrorCode], since: int | None, until: int | None,
    start: str | None, max_redrives: int, rate: int, dry_run: bool, yes: bool, **options: Any,
) -> None:  # fmt: skip
    """Send the requests of dead letters back to their topic, to be answered once more.

    Without --code those of the codes out_of_memory, inference_failed, quarantined, unknown_model and
    result_too_large: another try of the others ends as the first one. The dead letters stay where they are.
    """
    with settings_of(options, config) as settings:
        if not (dry_run or yes or sys.stdin.isatty()):
            raise SettingsError("nobody is there to confirm: say --yes, or --dry-run to see what would be sent")
        first = None if start is None else _position(start, settings, task)
        with _reader(settings, task) as (reader, topics):
            from nlp_worker import redrive as way_back  # noqa: PLC0415 - as in `_reader`

            requests = _requests(settings, topics)
            judge = way_back.Judge(requests, codes or way_back.WORTH_REPEATING, max_redrives)
            # What fails again meanwhile stands behind the ends that are known now.
            ranges = reader.ranges(topics, since, first)
            total = _plan((each, judge(each)) for each in reader.letters(ranges, since, until))
            if dry_run or total == 0:
                return
            if not yes:
                click.confirm("Send them back?", abort=True, err=True)
            with contextlib.closing(way_back.Sender(settings, requests.values())) as sender:
                letters = reader.letters(ranges, since, until)
                _send(way_back.redrive(letters, judge, sender.send, rate), total)


def _requests(settings: Settings, topics: Iterable[Topic]) -> dict[str, Topic]:
    from nlp_worker import connection  # noqa: PLC0415 - as in `_reader`
    from nlp_worker.dead_letters import find_requests  # noqa: PLC0415 - as in `_reader`

    with contextlib.closing(connection.connect(settings)) as admin:
        return find_requests(admin, settings.topic_prefix, [topic.task for topic in topics])


def _plan(judged: Iterable[tuple[Letter, Redriven | Skip]]) -> int:
    """Say what is sent and what is skipped; return how many are sent."""
    from nlp_worker.redrive import Skip  # noqa: PLC0415 - as in `_reader`

    chosen: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for letter, verdict in judged:
        if not isinstance(verdict, Skip):
            chosen[_code(letter)] += 1
            continue
        skipped[f"{verdict} ({_code(letter)})" if verdict is Skip.CODE else verdict] += 1
        if verdict is not Skip.CODE:
            original = "" if letter.original is None else f" of {letter.original}"
            click.echo(printable(f"skipped {letter.position}{original}: {verdict}"))
    click.echo(_listed(f"{chosen.total()} to send back", chosen))
    click.echo(_listed(f"{skipped.total()} skipped", skipped))
    return chosen.total()


def _code(letter: Letter) -> str:
    return "" if letter.reason is None else letter.reason.code


def _send(outcomes: Iterable[tuple[Letter, Redriven | Skip]], total: int) -> None:
    from nlp_worker.redrive import Skip  # noqa: PLC0415 - as in `_reader`

    begun, sent = time_of(int(time.time() * 1_000)), Counter[str]()
    last: Position | None = None
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            shown = bar.add_task("Sending back", total=total)
            for letter, verdict in outcomes:
                last = letter.position
                if not isinstance(verdict, Skip):
                    sent[_code(letter)] += 1
                    bar.advance(shown)
    except (FatalError, KeyboardInterrupt):
        on = "the same command" if last is None else f"--from {last._replace(offset=last.offset + 1)}"
        click.echo(f"{_listed(f'{sent.total()} of {total} sent back', sent)}; go on with {on}", err=True)
        raise
    click.echo(_listed(f"{sent.total()} sent back", sent))
    click.echo(f"the dead letters stay where they are: choose what fails from now on with --since {begun}")
