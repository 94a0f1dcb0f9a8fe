"""Exactly once, as the reader of the answers has it: processes, both brokers, and a client of its own."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

EXACTLY_ONCE = ("--delivery", "exactly-once")


def test_every_request_has_one_answer_when_a_worker_is_killed_mid_stream(
    real_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """5,000 requests, some of them bad, two workers, SIGKILL for one half-way: each has one answer, none has two."""
    with contextlib.ExitStack() as stack:
        topics = stack.enter_context(Topics(real_kafka))
        first, second = (
            stack.enter_context(WorkerProcess(topics, tiny_checkpoint, tmp_path, *EXACTLY_ONCE)) for _ in range(2)
        )
        requests = [{"id": f"r-{number}", "inputs": "a good day" if number % 100 else 5} for number in range(5000)]
        topics.send(requests[:1000])
        topics.read_until(lambda: len(topics.answers) >= 500, first, second)
        topics.send(requests[1000:])
        first.process.kill()
        topics.read_until(lambda: len(topics.answers) == 5000 and len(topics.dead_letters) >= 50, second)
        second.process.send_signal(signal.SIGTERM)
        assert second.end() == 0
        topics.read_rest()
        assert [name for name, answers in topics.answers.items() if len(answers) != 1] == []
        assert len(topics.dead_letters) == 50
