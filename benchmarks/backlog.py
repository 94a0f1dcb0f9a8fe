"""How much memory a worker has while it answers a long backlog, with a model that answers at once.

The backlog is there at once, when the worker has joined its group and is idle: that is what it starts with.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

import click

from apache_kafka import ApacheKafka, why_not
from benchmarks.rate import NO_MODEL, TEXT, Topics
from benchmarks.report import Panel, Report, Spread

#: Parts of the answers at which the table tells the memory.
SHARES: Final = (0.1, 0.25, 0.5, 0.75, 1.0)

#: Seconds between two samples: hundreds of requests.
SAMPLE_SECONDS: Final = 0.5


class Sample(NamedTuple):
    """Of a worker."""

    answers: int
    mib: float
    """Resident memory."""


@click.command(context_settings={"show_default": True})
@click.option("--requests", default=200_000)
def main(requests: int) -> None:
    """Sample the memory of one worker on Apache Kafka."""
    if (reason := why_not()) is not None:
        sys.exit(f"no Apache Kafka: {reason}")
    with ApacheKafka() as broker, Topics(broker) as topics, topics.worker(NO_MODEL) as pid:
        topics.joined()
        samples = [Sample(0, resident(pid))]
        topics.send_at_once(TEXT for _ in range(requests))
        while samples[-1].answers < requests:
            time.sleep(SAMPLE_SECONDS)
            topics.check()
            samples.append(Sample(topics.answered(), resident(pid)))
        topics.wait(requests)
    memory = at_shares(samples, requests)
    report = Report(
        name="backlog",
        title="Memory of a worker over a backlog",
        settings={"requests": requests, "samples": len(samples)},
        rows=[{"when": when, "MiB": mib, "of the start": mib / samples[0].mib} for when, mib in memory.items()],
        panels=[Panel("", {when: Spread(mib, mib, mib) for when, mib in memory.items()})],
        axis="resident MiB",
    )
    report.show()
    report.write()


def at_shares(samples: list[Sample], requests: int) -> dict[str, float]:
    """Return the memory at the start, when each share was answered, and at most."""
    told = {"start": samples[0].mib}
    for share in SHARES:
        told[f"{share:.0%} answered"] = next(mib for answers, mib in samples if answers >= share * requests)
    return {**told, "most": max(mib for _, mib in samples)}


def resident(pid: int) -> float:
    """Return a process's resident memory in MiB."""
    told = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", told, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"process {pid} ended: run the worker by hand to see why")
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
