"""What was asked and what was answered, kept by clients that share no code with the worker, and the verdict on both.

with Ledger(broker) as ledger, FaultyWorker(ledger, tmp_path):
    ledger.send(1_000)
    assert ledger.verdict() == CLEAN
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException
from confluent_kafka.admin import AdminClient, OffsetSpec

from clients import PATIENCE, rd_producer, unique
from faults.reading import LOOK_SECONDS, Reader, partitions, read_all
from faults.verdict import Source, Verdict, asked, lost, out_of_order, repeated, source_of
from processes import KINDS, TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from types import TracebackType

    from apache_kafka import RunningKafka
    from processes import WorkerProcess

#: Seconds for the group to have committed everything, faults and their time-outs included.
QUIET_SECONDS: Final = 60.0


class Ledger:
    """The topics of one task, a producer that remembers what was acknowledged, and a reader that never stops.

    Args:
        broker: Where the topics are created and read, around any proxy.
        partitions: Of the requests topic.
        result_partitions: Of the others; as many if None.
        keys: How many keys the requests share.
        configs: Of all topics, with underscores for the dots.
    """

    def __init__(
        self,
        broker: RunningKafka,
        partitions: int = 4,
        *,
        result_partitions: int | None = None,
        keys: int = 16,
        **configs: object,
    ) -> None:
        self.prefix = unique("faults")
        self.requests, self.results, self.dead_letters = (f"{self.prefix}.{TASK}.{kind}" for kind in KINDS)
        for name, count in (
            (self.requests, partitions),
            *((name, result_partitions or partitions) for name in self._outputs),
        ):
            broker.create_topic(name, count, **configs)
        self._broker = broker
        self.servers = broker.bootstrap_servers
        self.client = broker.client
        self._keys = keys
        self._sent = 0
        self._producer = rd_producer(
            broker, **{"enable.idempotence": True, "linger.ms": 5, "message.max.bytes": 20_000_000}
        )
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 2})
        self._reader = Reader(broker, self._outputs)
        self._looked = 0
        self._answered: set[Source] = set()
        self.acknowledged: set[Source] = set()

    @property
    def _outputs(self) -> tuple[str, str]:
        return self.results, self.dead_letters

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, traceback)
        self._producer.flush(PATIENCE)

    def send(self, count: int, **fields: Any) -> None:
        """Send so many requests, each with an id and a text of its own and one of the keys, until acknowledged."""
        self._produce(count, fields)
        self._flush()

    def send_value(
        self, value: bytes | None, key: bytes | None = b"k-0", headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """Send a record as it is, until acknowledged."""
        self._producer.produce(self.requests, value, key, headers=list(headers), on_delivery=self._acknowledge)
        self._flush()

    @contextlib.contextmanager
    def traffic(self, per_second: float, **fields: Any) -> Iterator[None]:
        """Send so many requests a second while the block lasts; at its end all are acknowledged."""
        stopping = threading.Event()

        def run() -> None:
            while not stopping.wait(LOOK_SECONDS):
                self._produce(round(per_second * LOOK_SECONDS), fields)

        sender = threading.Thread(target=run, name="traffic", daemon=True)
        sender.start()
        try:
            yield
        finally:
            stopping.set()
            sender.join(PATIENCE)
            self._flush()

    def _produce(self, count: int, fields: dict[str, Any]) -> None:
        for number in range(self._sent, self._sent + count):
            value = {"id": f"r-{number}", "inputs": f"text {number}"} | fields
            key = f"k-{number % self._keys}".encode()
            self._producer.produce(self.requests, json.dumps(value), key, on_delivery=self._acknowledge)
            self._producer.poll(0)
        self._sent += count

    def _flush(self) -> None:
        assert self._producer.flush(PATIENCE) == 0, "the ledger's own requests are not acknowledged"

    def _acknowledge(self, error: object, message: Any) -> None:
        if error is None:
            self.acknowledged.add(Source(message.topic(), message.partition(), message.offset()))

    @property
    def answered(self) -> int:
        """How many requests have an answer that was read by now."""
        unlooked = self._reader.seen[self._looked :]
        self._looked += len(unlooked)
        self._answered.update(source_of(seen) for seen in unlooked if seen.topic == self.results)
        return len(self._answered)

    def wait_for(self, answers: int, *workers: WorkerProcess, seconds: float = QUIET_SECONDS) -> None:
        """Return when so many requests are answered; the workers that are named must live meanwhile."""

        def answered() -> bool:
            for worker in workers:
                assert worker.process.poll() is None, worker.log()[-2_000:]
            return self.answered >= answers

        assert _reached(answered, seconds), f"{self.answered} answers of {answers}"

    def verdict(self, group: str | None = None, seconds: float = QUIET_SECONDS) -> Verdict:
        """Wait until the group has committed everything and no transaction is open, and judge.

        Args:
            group: Which one; the one named as the topics' prefix if None.
            seconds: At most; what is missing then is part of the verdict.
        """
        group = group or self.prefix
        _reached(lambda: self._is_quiet(group), seconds)
        lag, unstable = self._lag(group), tuple(self._unstable())
        inputs = {Source(*seen[:3]): seen for seen in read_all(self._broker, [self.requests])}
        outputs = read_all(self._broker, self._outputs)
        _reached(lambda: len(self._reader.seen) >= len(outputs), PATIENCE)
        disagreed = sorted(str(Source(*seen[:3])) for seen in set(outputs) ^ set(self._reader.seen))
        answers = [seen for seen in outputs if seen.topic == self.results]
        letters = [seen for seen in outputs if seen.topic == self.dead_letters]
        return Verdict(
            lost=tuple(lost(self.acknowledged, answers, letters)),
            invented=tuple(f"{seen.topic} {source_of(seen)}" for seen in outputs if not asked(seen, inputs)),
            lag=lag,
            dup=tuple(repeated(outputs)),
            order=tuple(out_of_order(answers)),
            unstable=unstable,
            disagreed=tuple(disagreed),
        )

    def _is_quiet(self, group: str) -> bool:
        try:
            return self._lag(group) == 0 and not self._unstable()
        except KafkaException:  # a leader is away, or new
            return False

    def _lag(self, group: str) -> int:
        """Return how much of the requests is not committed; what a transaction is about to commit is not, yet."""
        parts = partitions(self._admin, [self.requests])
        ends = self._ends(parts, IsolationLevel.READ_UNCOMMITTED)
        try:
            listed = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, parts)])[
                group
            ].result()
        except KafkaException:  # its coordinator is away
            return sum(ends.values())
        committed = {(part.topic, part.partition): max(part.offset, 0) for part in listed.topic_partitions}
        return sum(end - committed[part] for part, end in ends.items())

    def _unstable(self) -> list[str]:
        written = partitions(self._admin, self._outputs)
        stable = self._ends(written, IsolationLevel.READ_COMMITTED)
        ends = self._ends(written, IsolationLevel.READ_UNCOMMITTED)
        return [f"{topic}-{number}" for (topic, number), end in ends.items() if stable[topic, number] != end]

    def _ends(self, parts: Collection[Any], isolation: Any) -> dict[tuple[str, int], int]:
        listed = self._admin.list_offsets({part: OffsetSpec.latest() for part in parts}, isolation_level=isolation)
        return {(part.topic, part.partition): future.result().offset for part, future in listed.items()}


def _reached(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True
