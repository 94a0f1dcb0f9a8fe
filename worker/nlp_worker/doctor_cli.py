"""`nlp-worker doctor`: whether a worker with these settings would run, and if not, why."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from nlp_worker.command_options import every_setting, printable, settings_of

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CODES: Final = (
    "Exit codes: 0 a worker would run, warnings included (without --model as far as was looked); else that with which "
    "it would end."
)
COLOURS: Final = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command(epilog=EXIT_CODES)
@every_setting
@click.option("--json", "as_json", is_flag=True, help="A JSON object for each finding, on a line of its own.")
def doctor(*, config: Path | None, as_json: bool, **options: Any) -> None:
    """Look at all that a worker with these settings needs, and say what is wrong and what to do.

    The settings are those of `nlp-worker run`. Without --model the checkpoints and the device are left out, and the
    topics of all tasks that have some are looked at. Example: nlp-worker doctor --config worker.toml
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    code = 0
    with settings_of(given, config) as settings:
        from nlp_worker.doctor import Doctor  # noqa: PLC0415 - `--help` does without Kafka's client

        for finding in Doctor(settings).findings():
            click.echo(_told(finding, as_json=as_json))
            code = code or finding.exit_code
    sys.exit(code)


def _told(finding: Any, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(finding))
    verdict = click.style(f"{finding.verdict:8}", fg=COLOURS[finding.verdict])
    return f"{verdict}{finding.about:13}{printable(finding.told)}"
