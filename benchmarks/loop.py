"""How many requests a second the loop moves from Kafka to Kafka, with a model that answers at once."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from apache_kafka import ApacheKafka, why_not
from benchmarks.rate import NO_MODEL, embedded_broker, rate
from benchmarks.report import Panel, Report, take_turns

if TYPE_CHECKING:
    from apache_kafka import RunningKafka

#: So many that a round takes ten seconds or so, and that starting counts for little.
REQUESTS: Final = 60_000


@click.command(context_settings={"show_default": True})
@click.option("--requests", default=REQUESTS, help="In each round.")
@click.option("--rounds", default=3)
def main(requests: int, rounds: int) -> None:
    """Measure the loop on the embedded broker and, where it can be, on Apache Kafka, in turn."""
    with contextlib.ExitStack() as stack:
        brokers: dict[str, RunningKafka] = {"embedded": stack.enter_context(embedded_broker())}
        if (reason := why_not()) is None:
            brokers["Apache Kafka"] = stack.enter_context(ApacheKafka())
        else:
            click.echo(f"without Apache Kafka: {reason}", err=True)
        runs = {name: partial(rate, broker, NO_MODEL, requests) for name, broker in brokers.items()}
        rates = take_turns(runs, rounds)
    report = Report(
        name="loop",
        title="The loop, with a model that answers at once",
        settings={"requests": requests, "rounds": rounds},
        rows=[{"broker": name, **spread.columns("requests/s")} for name, spread in rates.items()],
        panels=[Panel("", rates)],
        axis="requests/s",
    )
    report.show()
    report.write()


if __name__ == "__main__":
    main()
