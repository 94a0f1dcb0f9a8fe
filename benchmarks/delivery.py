"""What exactly once costs: its throughput over that of at least once, with no model and with a small one."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from apache_kafka import ApacheKafka, why_not
from benchmarks.rate import NO_MODEL, rate, run_command
from benchmarks.report import Panel, Report, take_turns
from checkpoints import build_checkpoint

DELIVERIES: Final = ("at-least-once", "exactly-once")

#: So many that a round takes ten seconds or more, and that starting counts for little.
REQUESTS_NO_MODEL: Final = 60_000
REQUESTS_SMALL_MODEL: Final = 1_500

#: MiniLM's.
SIZE: Final[dict[str, Any]] = {"dim": 384, "hidden_dim": 1536, "n_layers": 6, "n_heads": 12}


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3)
def main(rounds: int) -> None:
    """Measure both deliveries on Apache Kafka, in turn."""
    if (reason := why_not()) is not None:
        sys.exit(f"no Apache Kafka: {reason}")
    rows: list[dict[str, str | float]] = []
    panels = []
    with ApacheKafka() as broker, tempfile.TemporaryDirectory() as folder:
        checkpoint = build_checkpoint("distilbert", "sequence-classification", Path(folder), **SIZE)
        for model, command, requests in (
            ("none", NO_MODEL, REQUESTS_NO_MODEL),
            ("DistilBERT, 6 layers of 384", run_command(checkpoint), REQUESTS_SMALL_MODEL),
        ):
            runs = {name: partial(rate, broker, command, requests, delivery=name) for name in DELIVERIES}
            rates = take_turns(runs, rounds)
            at_least = rates["at-least-once"].median
            rows += [
                {
                    "model": model,
                    "delivery": delivery,
                    "requests": requests,
                    **spread.columns("requests/s"),
                    "of at-least-once": spread.median / at_least,
                }
                for delivery, spread in rates.items()
            ]
            panels.append(Panel(f"model: {model}", rates))
    report = Report(
        name="delivery",
        title="What exactly once costs",
        settings={"rounds": rounds, "threads": 1},
        rows=rows,
        panels=panels,
        axis="requests/s",
    )
    report.show()
    report.write()


if __name__ == "__main__":
    main()
