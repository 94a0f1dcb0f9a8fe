"""The pace of a redrive, and how far it got when it fails: without a broker, on a clock that is moved by sleeping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kafka.errors import KafkaTimeoutError

from fakes import FakeRecord, ManualClock
from nlp_schemas import DeadLetter, ErrorCode, Stage, TaskName, dead_letter_topic, requests_topic
from nlp_worker.dead_letters import Letter, Topic
from nlp_worker.errors import PublishError
from nlp_worker.redrive import Judge, Skip, redrive

if TYPE_CHECKING:
    from collections.abc import Callable

    from nlp_worker.redrive import Redriven

TASK = TaskName.TEXT_CLASSIFICATION

JUDGE = Judge({TASK: Topic(requests_topic(TASK), TASK, 1, 1_000_000)}, {ErrorCode.INFERENCE_FAILED}, 3)


def refuse(_: Redriven) -> Callable[[], Any]:
    pytest.fail("it was sent")


class SleepingClock(ManualClock):
    """Moves by sleeping, and by nothing else."""

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


def letters(count: int, code: ErrorCode = ErrorCode.INFERENCE_FAILED) -> list[Letter]:
    source = {"topic": requests_topic(TASK), "partition": 0, "offset": 0, "timestamp": 0}
    reason = {"code": code, "message": "", "exception": "", "stage": Stage.FORWARD, "worker": ""}
    headers = DeadLetter.model_validate(source | reason).to_headers()
    return [
        Letter.of(FakeRecord(dead_letter_topic(TASK), 0, offset, 0, b"k", b"v", headers), TASK)
        for offset in range(count)
    ]


@pytest.mark.parametrize("rate", [1, 10, 100, 10_000])
def test_the_rate_is_kept_over_any_second(rate: int) -> None:
    """Whatever the rate, and however long the first acknowledgement took: time that was lost is not made up for."""
    clock, sent = SleepingClock(), []

    def send(_: Redriven) -> Callable[[], Any]:
        sent.append(clock.now)

        def acknowledged() -> None:
            if len(sent) <= 1:
                clock.now += 5

        return acknowledged

    count = rate * 3 + 1
    assert len(list(redrive(letters(count), JUDGE, send, rate, clock))) == count
    # A slice goes out at once, so a second may have one more.
    most = max(sum(start <= each < start + 0.999 for each in sent) for start in sorted(set(sent)))
    assert rate <= most <= rate + max(rate // 10, 1)
    assert 2 <= sent[-1] - sent[0] <= 9


def test_what_is_skipped_takes_no_time() -> None:
    """Thousands of another code stand between two that are sent."""
    clock = SleepingClock()
    start = clock.now
    outcomes = list(redrive(letters(10_000, ErrorCode.INVALID_REQUEST), JUDGE, refuse, 1, clock))
    assert {verdict for _, verdict in outcomes} == {Skip.CODE}
    assert clock.now == start


def test_what_was_acknowledged_before_a_failure_is_known() -> None:
    """Each of them is yielded, in order; the error names the first that was not."""
    acknowledged: list[int] = []

    def send(_: Redriven) -> Callable[[], Any]:
        def acknowledge() -> None:
            if len(acknowledged) == 25:
                raise KafkaTimeoutError("too late")
            acknowledged.append(1)

        return acknowledge

    done: list[int] = []

    def run() -> None:
        for letter, _ in redrive(letters(40), JUDGE, send, 100, SleepingClock()):
            done.append(letter.record.offset)

    with pytest.raises(PublishError, match=r"dead-letter-0-25 cannot be sent back: .*too late"):
        run()
    assert done == list(range(25))


def test_a_send_that_fails_at_once_is_told_with_the_first_of_its_slice() -> None:
    """Of those that were sent before it in the slice nobody knows yet."""
    sent: list[Redriven] = []

    def send(message: Redriven) -> Callable[[], Any]:
        if len(sent) == 5:
            raise KafkaTimeoutError("no metadata")
        sent.append(message)
        return lambda: None

    outcomes = redrive(letters(40), JUDGE, send, 100, SleepingClock())
    with pytest.raises(PublishError, match=r"dead-letter-0-0 cannot be sent back: .*no metadata"):
        next(outcomes)
