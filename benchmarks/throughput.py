"""How many requests a second the loop moves from Kafka to Kafka, with a model that answers at once.

Repeated, brokers in turn; the median is what counts. Run it with `make bench`, alone.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from apache_kafka import ApacheKafka, RunningKafka, why_not
from rate import NO_MODEL, rate

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS: Final = 60_000
ROUNDS: Final = 3


def main() -> None:
    rates: dict[str, list[float]] = {"embedded": [], "Apache Kafka": []}
    with contextlib.ExitStack() as stack:
        brokers: dict[str, RunningKafka] = {"embedded": stack.enter_context(_embedded())}
        if (reason := why_not()) is None:
            brokers["Apache Kafka"] = stack.enter_context(ApacheKafka())
        else:
            print(f"without Apache Kafka: {reason}")
        for number in range(ROUNDS):
            for name, broker in brokers.items():
                rates[name].append(rate(broker, NO_MODEL, REQUESTS))
                print(f"round {number + 1}, {name}: {rates[name][-1]:,.0f} requests/s")
    for name, measured in rates.items():
        if measured:
            spread = f"{min(measured):,.0f} to {max(measured):,.0f}"
            print(f"{name}: median {statistics.median(measured):,.0f} requests/s ({spread}) of {REQUESTS:,} requests")


@contextlib.contextmanager
def _embedded() -> Iterator[RunningKafka]:
    """The embedded broker as a process of its own: in this one it would share a core with nothing, but also a GIL."""
    command = [sys.executable, "-c", "from nlp_worker.broker import EmbeddedBroker as B; b = B(port=29192); b.run()"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield RunningKafka("127.0.0.1:29192")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()
