"""A record that ends the process, on fakes: it does so six times at most, and its neighbours are answered."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from fakes import REQUESTS, Bench, FakeConsumer, FakeExecutor
from nlp_schemas import DeadLetter, ErrorCode
from nlp_worker.parts import Limits
from nlp_worker.poll import Partition
from nlp_worker.quarantine import MAX_ATTEMPTS, SUSPICIOUS_STARTS, Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fakes import FakeTask
    from nlp_schemas import Request
    from nlp_worker.errors import RequestError
    from nlp_worker.tasks.base import Prepared

P0 = Partition(REQUESTS, 0)

#: The one whose mark its own progress had cleared, the starts that are marked, and the attempts alone.
MOST_ENDS = 1 + SUSPICIOUS_STARTS + MAX_ATTEMPTS


class ProcessEnded(BaseException):
    """What SIGSEGV is to a process, as far as one process can have it."""


class Crashing(FakeExecutor):
    """Ends the process over a text that says so."""

    def run_next(self) -> None:
        batch, _ = self.queue[0]
        if any(text.startswith("crash") for text in batch.task.collate(batch)):
            raise ProcessEnded
        super().run_next()


class CrashBench(Bench):
    """A worker that is started again whenever it ended."""

    ends = 0

    def restart(self) -> None:
        self.ends += 1
        self.consumer, self.executor = FakeConsumer(self.kafka), Crashing()
        self.worker = self.start(self.consumer, self.executor)

    def run_until_answered(self) -> None:
        self.restart()
        self.ends = 0
        for _ in range(2000):
            try:
                self.worker.run_once()
            except ProcessEnded:
                self.restart()
            if all(self.kafka.committed[p] == len(log) for p, log in self.kafka.logs.items()):
                return
        pytest.fail("the worker is stuck")

    def codes(self) -> dict[str, str]:
        """Return the code of each error answer, by id."""
        return {a["id"]: a["error"]["code"] for a in self.publisher.answers() if a["status"] == "error"}


@pytest.mark.parametrize("position", [0, 3, 40, 99])
def test_a_record_that_ends_the_process_is_quarantined(position: int) -> None:
    """Wherever it is in the poll; what shares its poll, and its partition, is answered."""
    bench = CrashBench(partitions=2, limits=Limits(records=50))
    for number in range(100):
        bench.kafka.send({"id": str(number), "inputs": "crash" if number == position else "x"}, partition=number % 2)
    bench.run_until_answered()
    assert bench.ends <= MOST_ENDS
    assert bench.codes() == {str(position): ErrorCode.QUARANTINED}
    assert {answer["id"] for answer in bench.publisher.answers()} == {str(number) for number in range(100)}
    (letter,) = bench.publisher.dead_letters()
    reason = DeadLetter.from_headers(letter.headers)
    assert (reason.code, reason.attempt) == (ErrorCode.QUARANTINED, MAX_ATTEMPTS)
    assert json.loads(letter.value or b"")["id"] == str(position)


def test_several_records_that_end_the_process_cost_three_ends_each_once_they_are_suspects() -> None:
    """What is behind the first of them runs alone already."""
    bench = CrashBench(limits=Limits(records=50))
    for number in range(50):
        bench.kafka.send({"id": str(number), "inputs": "crash" if number in (7, 30, 31) else "x"})
    bench.run_until_answered()
    assert bench.ends <= MOST_ENDS + 2 * (MAX_ATTEMPTS + 1)
    assert set(bench.codes()) == {"7", "30", "31"}


def test_a_text_that_ends_the_process_while_it_is_tokenized_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preprocess runs in the control thread, before anything is on the device."""
    bench = CrashBench(limits=Limits(records=50))

    def preprocess(task: FakeTask, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        if any(getattr(request, "inputs", "") == "crash" for request in requests):
            raise ProcessEnded
        return original(task, requests)

    original = type(bench.task).preprocess
    monkeypatch.setattr(type(bench.task), "preprocess", preprocess)
    for number in range(20):
        bench.kafka.send({"id": str(number), "inputs": "crash" if number == 11 else "x"})
    bench.run_until_answered()
    assert (bench.codes(), bench.ends <= MOST_ENDS) == ({"11": ErrorCode.QUARANTINED}, True)


@pytest.mark.parametrize("seed", range(5))
def test_kills_of_healthy_workers_quarantine_nothing(seed: int) -> None:
    """However often: what is answered between two kills moves the offset, and that clears the marks."""
    steps = random.Random(seed)  # noqa: S311 - a test's times, not a secret
    bench = CrashBench(limits=Limits(records=3))
    for number in range(60):
        bench.kafka.send({"id": str(number), "inputs": "x"})
    for _ in range(200):
        bench.restart()
        bench.settle(steps.randint(1, 8))
    bench.run_until_answered()
    assert bench.codes() == {}


def test_a_suspect_runs_when_nothing_else_does() -> None:
    """Else its end would be another's blame too: a poll of one record, and none beside it."""
    bench = CrashBench(partitions=2)
    for number in range(10):
        bench.kafka.send({"id": str(number), "inputs": "crash" if number == 4 else "x"}, partition=number % 2)
    bench.restart()
    for _ in range(SUSPICIOUS_STARTS):
        with pytest.raises(ProcessEnded):
            bench.settle()
        bench.restart()
    bench.executor.at_once = False
    while bench.kafka.committed[P0] < 2:
        bench.worker.run_once()
        assert sum(len(batch.rows) for batch, _ in bench.executor.queue) <= 1
        if bench.executor.queue and bench.kafka.committed[P0] < 2:
            bench.executor.run_next()


def test_a_drain_that_gives_work_up_leaves_no_mark() -> None:
    """Stopping in peace is no start without progress."""
    bench = Bench(at_once=False)
    bench.kafka.send({"inputs": "x"})
    bench.worker.run_once()
    assert Mark.decode(bench.kafka.metadata[P0]) == Mark(starts=1)
    bench.worker.drain(0)
    assert (bench.kafka.committed[P0], bench.kafka.metadata[P0]) == (0, "")


@pytest.mark.parametrize(
    "metadata", ["", "a note of mine", "[]", '{"starts": "2"}', '{"starts": -1}', '{"starts": true}']
)
def test_what_another_tool_wrote_there_is_no_mark(metadata: str) -> None:
    """The metadata of an offset is anybody's."""
    assert Mark.decode(metadata) == Mark()


def test_a_mark_reads_as_it_was_written() -> None:
    """And none is no text: a commit that clears it costs nothing."""
    mark = Mark(starts=2, attempts=1, alone_until=3072)
    assert (Mark.decode(mark.encode()), Mark().encode()) == (mark, "")
