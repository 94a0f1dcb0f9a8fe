"""How far the worker is behind, in records and in the time that its device will take for them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from nlp_worker.metrics import LAG_DEVICE_SECONDS, LAG_RECORDS, OLDEST_REQUEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nlp_worker.clock import Clock
    from nlp_worker.parts import Consumer
    from nlp_worker.planner import Planner
    from nlp_worker.poll import Entry, Partition

#: Seconds between two looks: each goes through all requests in the worker, a few milliseconds.
LOOK_INTERVAL: Final = 1.0


class Lag:
    """Looks now and then at what is not answered yet.

    Args:
        consumer: Knows what is behind its positions.
        planner: Knows how long the device takes.
        clock: For the time between looks.
    """

    def __init__(self, consumer: Consumer, planner: Planner, clock: Clock) -> None:
        self._consumer = consumer
        self._planner = planner
        self._clock = clock
        self._looked = -math.inf
        self._shown: set[Partition] = set()
        #: Device seconds of a request of each topic, of those that were seen last.
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def request_seconds(self, topic: str) -> float:
        """Return how long the device takes for a request of the topic; 0 while none was seen."""
        return self._seconds[topic]

    def look(self, entries: Iterable[Entry]) -> None:
        """Set the metrics, if it is time to.

        Args:
            entries: What was polled and is not committed.
        """
        now = self._clock.monotonic()
        if now - self._looked < LOOK_INTERVAL:
            return
        self._looked = now
        records: Counter[Partition] = Counter()
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        sent: list[int] = []
        for entry in entries:
            records[entry.partition] += 1
            if entry.record.timestamp >= 0:
                sent.append(entry.record.timestamp)
            if entry.read:
                seconds[entry.record.topic].append(self._planner.device_seconds(entry))
        self._seconds.update({topic: sum(of_it) / len(of_it) for topic, of_it in seconds.items()})
        # What is still in Kafka is younger, partition by partition.
        OLDEST_REQUEST_SECONDS.set(max(self._clock.time() - min(sent) / 1000, 0.0) if sent else 0.0)
        records.update(self._consumer.behind())
        for partition, count in records.items():
            LAG_RECORDS.labels(*partition).set(count)
        for partition in self._shown - records.keys():  # others have them by now
            LAG_RECORDS.remove(*partition)
        self._shown = set(records)
        LAG_DEVICE_SECONDS.set(sum(self._seconds[topic] * count for (topic, _), count in records.items()))
