"""SIGTERM in the middle of a long generation: the worker ends in time, and the request is another worker's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from clients import wait_for
from nlp_worker.cli import LAST_WORDS_SECONDS
from nlp_worker.quarantine import Mark
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

TASK = "summarization"

#: A minute of a tiny model, far more than a drain of a second allows.
LONG = {"max_new_tokens": 8192, "min_new_tokens": 8192}


def standing(topics: Topics) -> Any:
    """Return what is committed for the requests: offset and metadata."""
    group = {"group_id": topics.prefix, "enable_auto_commit": False}
    with contextlib.closing(KafkaConsumer(bootstrap_servers=topics.servers, **group)) as consumer:
        return consumer.committed(TopicPartition(topics.name("requests"), 0), metadata=True, timeout_ms=5_000)


def test_a_generation_that_outlasts_the_drain_is_stopped_and_given_up(
    kafka_broker: RunningKafka, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """Exit 0 within the drain; nothing is published or committed, and no mark says that a process ended over it."""
    model = (
        "--model",
        f"tiny:{TASK}={folder_of('t5', 'seq2seq-lm')}",
        "--drain-seconds",
        "1",
        "--max-new-tokens",
        "8192",
    )
    with (
        Topics(kafka_broker, 1, tasks=[TASK]) as topics,
        WorkerProcess(topics, None, tmp_path, *model) as worker,
    ):
        topics.send([{"id": "long", "inputs": "a good day", "parameters": LONG}])
        wait_for(
            lambda: worker.process.poll() is not None or ((begun := standing(topics)) is not None and begun.metadata)
        )
        assert Mark.decode(standing(topics).metadata) == Mark(starts=1)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(timeout=10) == 0
        assert [event["records"] for event in worker.events("given_up")] == [1]
        topics.read_rest()
        assert (dict(topics.answers), standing(topics).offset, standing(topics).metadata) == ({}, 0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_still_loading_ends_at_once(
    embedded_kafka: RunningKafka, tmp_path: Path, number: signal.Signals
) -> None:
    """Exit 0: as the first process of a container it would ignore a signal that it has not asked for."""
    plugin, begun = tmp_path / "slow.py", tmp_path / "begun"
    plugin.write_text(f"import pathlib, threading\npathlib.Path({str(begun)!r}).touch()\nthreading.Event().wait()\n")
    arguments = ("--plugin", str(plugin), "--model", f"{TASK}=/nowhere")
    with (
        Topics(embedded_kafka, 1, tasks=[TASK]) as topics,
        WorkerProcess(topics, None, tmp_path, *arguments) as worker,
    ):
        wait_for(begun.exists)
        worker.process.send_signal(number)
        assert worker.end(timeout=10) == 0
        assert worker.events("drained")


#: A worker that is loading, and writes a line that nobody reads.
LOUD = """
from nlp_worker import cli, logging
import structlog
logging.configure(level="info", log_format="json")
cli._leave_at_signals()
print("loading", flush=True)
structlog.get_logger().info("nobody reads this")
"""


def test_a_signal_ends_a_worker_whose_log_nobody_reads() -> None:
    """It comes while the control thread writes a line, and so has the lock of the log."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b" " * 64)
    os.set_blocking(writer, True)
    command = [sys.executable, "-c", LOUD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"loading\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=LAST_WORDS_SECONDS + 10) == 0
        finally:
            process.kill()
            os.close(writer)
            os.close(reader)
