"""`nlp-worker lag`: how far the workers are behind, and when they will have caught up."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from nlp_worker.command_options import connected, of_a_task, setting, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from nlp_worker.group_lag import TaskLag

EXIT_CODES: Final = "Exit codes: 0 done · 2 usage or settings · 3 broker unreachable · 4 topics missing or not allowed"


@click.command(epilog=EXIT_CODES)
@connected
@setting("group")
@of_a_task
@click.option("--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Look again and again, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each task and look, on a line of its own.")
def lag(*, config: Path | None, task: str | None, watch: float | None, as_json: bool, **options: Any) -> None:
    """Show for each task how many requests wait, how old the oldest is, and how long they will take.

    Device seconds are what one device takes for them, as the workers have measured; the time to drain is that
    divided by the workers. Example: nlp-worker lag --watch 5
    """
    with settings_of(options, config) as settings:
        from nlp_worker import topics  # noqa: PLC0415 - `nlp-worker --help` does without Kafka's client
        from nlp_worker.group_lag import GroupLag  # noqa: PLC0415 - as above

        tasks = [task] if task is not None else topics.existing(settings, topics.Kind.REQUESTS)
        with contextlib.closing(GroupLag(settings, tasks)) as group, contextlib.suppress(KeyboardInterrupt):
            console = Console()
            live = None if watch is None or as_json or not console.is_terminal else Live(console=console)
            with live or contextlib.nullcontext():
                while True:
                    found = group.look()
                    if live is not None:
                        live.update(_table(found))
                    elif as_json:
                        for each in found:
                            click.echo(json.dumps(_row(each)))
                    else:
                        console.print(_table(found))
                    if watch is None:
                        return
                    time.sleep(watch)


def _row(lag_of: TaskLag) -> dict[str, Any]:
    return {**asdict(lag_of), "drain_seconds": lag_of.drain_seconds, "time": round(time.time(), 3)}


def _table(found: Iterable[TaskLag]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("task")
    for name in ("workers", "requests", "oldest", "device seconds", "to drain"):
        table.add_column(name, justify="right")
    for each in found:
        workers = str(each.workers) if each.workers or not each.records else "[red]0[/]"
        seconds = "?" if each.device_seconds is None else f"{each.device_seconds:,.1f}"
        oldest = "" if each.records == 0 else duration(each.oldest_seconds)
        drain = "never" if each.records and not each.workers else duration(each.drain_seconds)
        deleted = f"  [red]{each.deleted:,} deleted before they were answered[/]" if each.deleted else ""
        table.add_row(each.task, workers, f"{each.records:,}", oldest, seconds, drain + deleted)
    return table


def duration(seconds: float | None) -> str:
    """Say a time as an operator reads it; ? where nobody knows."""
    if seconds is None:
        return "?"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
