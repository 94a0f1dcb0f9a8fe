"""`nlp-worker tail`: answers, errors and dead letters as they come."""

from __future__ import annotations

import contextlib
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import click

from nlp_schemas import ErrorCode
from nlp_worker.command_options import connected, moment, of_a_task, printable, settings_of, time_of

if TYPE_CHECKING:
    from pathlib import Path

    from nlp_worker.tailing import Seen

#: Characters of an answer's outputs or an error's message that stand in a line.
SHOWN_CHARACTERS: Final = 100

EXIT_CODES: Final = "Exit codes: 0 done · 2 usage or settings · 3 broker unreachable · 4 topics missing or not allowed"


@click.command(epilog=EXIT_CODES)
@connected
@of_a_task
@click.option("--code", "codes", type=click.Choice(["ok", *map(str, ErrorCode)]), multiple=True, metavar="CODE",
              help="Only what has this code; ok is an answer with outputs. May repeat.")  # fmt: skip
@click.option("--errors", is_flag=True, help="Only what failed.")
@click.option("--id", "request_id", help="Only answers to requests of this id.")
@click.option("--dead-letters/--no-dead-letters", default=True, show_default=True, help="Whether they are shown too.")
@click.option("--since", callback=moment, metavar="TIME",
              help="Begin there: ISO 8601 (UTC if it names no zone), or an age: 30m, 2h, 7d; else now.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each, on a line of its own.")
def tail(
    *, config: Path | None, task: str | None, codes: tuple[str, ...], errors: bool, request_id: str | None,
    dead_letters: bool, since: int | None, limit: int | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Show answers and dead letters as they come, until Ctrl-C.

    Example: nlp-worker tail --errors --since 1h
    """

    def wanted(seen: Seen) -> bool:
        return (
            (not codes or seen.code in codes)
            and not (errors and seen.code == "ok")
            and (request_id is None or (seen.answer is not None and seen.answer.get("id") == request_id))
        )

    with settings_of(options, config) as settings:
        from nlp_worker import topics  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client
        from nlp_worker.tailing import Tail  # noqa: PLC0415 - as above

        tasks = topics.existing(settings, topics.Kind.RESULTS) if task is None else [task]
        tail_of = Tail(settings, tasks, dead_letters=dead_letters, since=since)
        with contextlib.closing(tail_of), contextlib.suppress(KeyboardInterrupt):
            for seen in itertools.islice(filter(wanted, tail_of.seen()), limit):
                click.echo(json.dumps(_row(seen)) if as_json else _line(seen))


def _row(seen: Seen) -> dict[str, Any]:
    record = seen.record
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    row = {"time": time_of(record.timestamp), **place, "task": seen.task, "code": seen.code or None}
    if seen.letter is not None:
        return {**row, "dead_letter": seen.letter.model_dump(mode="json")}
    return {**row, "answer": seen.answer}


def _line(seen: Seen) -> str:
    time = click.style(time_of(seen.record.timestamp), dim=True)
    if seen.letter is not None:
        original = f"{seen.letter.topic}-{seen.letter.partition}-{seen.letter.offset}"
        where, told = original, f"dead letter: {seen.letter.message}"
    elif seen.code and seen.answer is not None:
        error = seen.answer.get("error")
        where = str(seen.answer.get("id"))
        told = str(error.get("message")) if isinstance(error, dict) else json.dumps(seen.answer.get("outputs"))
    else:
        where = f"{seen.record.topic}-{seen.record.partition}-{seen.record.offset}"
        told = "it is neither an answer nor a dead letter"
    if len(told) > SHOWN_CHARACTERS:
        told = f"{told[: SHOWN_CHARACTERS - 3]}..."
    code = click.style(seen.code or "?", fg="green" if seen.code == "ok" else "red")
    return " ".join([time, code, seen.task, printable(where), printable(told)])
