"""`nlp-worker lag`, before, while and after a worker answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from clients import unique
from nlp_worker.cli import main
from nlp_worker.errors import ExitCode
from nlp_worker.lag_cli import duration
from processes import PATIENCE, TASK, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)


def lag(topics: Topics, *arguments: str) -> Result:
    options = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix, "--group", topics.prefix]
    return CliRunner().invoke(main, ["lag", *options, *arguments])


def row(topics: Topics) -> dict[str, Any]:
    ran = lag(topics, "--json")
    assert ran.exit_code == 0, ran.output
    (line,) = ran.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found.pop("time") > 1e9
    return found


def test_what_waits_is_counted_and_timed(kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Requests, the age of the oldest, what a device takes for them, and by when the workers will be through."""
    with Topics(kafka_broker, 3) as topics:
        nothing = {"task": TASK, "workers": 0, "records": 0, "oldest_seconds": None, "device_seconds": 0.0}
        assert row(topics) == {**nothing, "deleted": 0, "drain_seconds": 0.0}
        topics.send([{"inputs": "a good day"}] * 5)
        before = row(topics)
        assert 0 <= before.pop("oldest_seconds") < PATIENCE
        unknown = {"device_seconds": None, "drain_seconds": None}
        assert before == {"task": TASK, "workers": 0, "records": 5, "deleted": 0, **unknown}
        shown = lag(topics).stdout.splitlines()
        assert shown[0].split() == ["task", "workers", "requests", "oldest", "device", "seconds", "to", "drain"]
        assert (shown[1].split()[:3], shown[1].split()[-1]) == ([TASK, "0", "5"], "never")
        with WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker:
            topics.read_until(lambda: len(topics.answers) == 5, worker)
            while (now := row(topics))["records"]:  # an answer is there before it is committed
                pass
            assert (now["workers"], now["drain_seconds"]) == (1, 0.0)
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end() == 0
        topics.send([{"inputs": "a bad day"}] * 7)
        after = row(topics)
        assert (after["records"], after["workers"], after["drain_seconds"]) == (7, 0, None)
        assert 0 < after["device_seconds"] < 60


def test_a_watch_looks_again(embedded_kafka: RunningKafka) -> None:
    """Until it is interrupted; in a pipe a line for each look."""
    with Topics(embedded_kafka, 1) as topics:
        options = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix, "--task", TASK]
        command = [sys.executable, "-m", "nlp_worker", "lag", *options, "--json", "--watch", "0.1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(3):
                assert json.loads(process.stdout.readline())["records"] == 0
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("arguments", [[], ["--task", TASK]])
def test_topics_that_are_missing_are_told(embedded_kafka: RunningKafka, arguments: list[str]) -> None:
    """Of one task, or of all."""
    options = ["--bootstrap-servers", embedded_kafka.bootstrap_servers, "--topic-prefix", unique("none"), *arguments]
    ran = CliRunner().invoke(main, ["lag", *options])
    assert ran.exit_code == ExitCode.TOPICS
    assert "exist" in ran.output


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "?"), (0, "0.0 s"), (1.26, "1.3 s"), (119, "119.0 s"), (120, "2 min"), (7200, "2 h"), (260_000, "3 d")],
)
def test_a_time_is_told_as_people_say_it(seconds: float | None, told: str) -> None:
    """In the largest unit of which there are two."""
    assert duration(seconds) == told
