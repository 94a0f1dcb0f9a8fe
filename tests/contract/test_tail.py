"""`nlp-worker tail`: what comes is shown, and nothing else."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from clients import unique
from nlp_worker.errors import ExitCode
from processes import PATIENCE, TASK, Topics

if TYPE_CHECKING:
    from apache_kafka import RunningKafka
    from served import Served

pytestmark = pytest.mark.timeout(3 * PATIENCE)


def command(topics: Topics, *arguments: str) -> list[str]:
    options = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix]
    return [sys.executable, "-m", "nlp_worker", "tail", *options, *arguments]


def tail(topics: Topics, *arguments: str) -> list[str]:
    """Return the lines of a run that ends by itself."""
    ran = subprocess.run(command(topics, *arguments), capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_answers_and_dead_letters_are_shown(served: Served) -> None:
    """Of the last hour; by code, by id, with and without dead letters, as lines and as JSON."""
    topics, name = served.topics, unique("shown")
    topics.send([{"id": name, "inputs": "a good day"}, {"id": f"{name}-bad", "inputs": 5}, b"\xff"])
    topics.read_until(lambda: name in topics.answers and f"{name}-bad" in topics.answers, served.worker)
    since = ("--since", "1h", "--json")
    (answer,) = map(json.loads, tail(topics, *since, "--id", name, "--limit", "1"))
    assert (answer["code"], answer["task"], answer["answer"]["id"]) == ("ok", TASK, name)
    assert answer["topic"] == topics.name("results")
    (failed,) = map(json.loads, tail(topics, *since, "--id", f"{name}-bad", "--errors", "--limit", "1"))
    assert (failed["code"], failed["answer"]["status"]) == ("invalid_request", "error")
    found: list[dict[str, Any]] = list(
        map(json.loads, tail(topics, *since, "--code", "invalid_request", "--limit", "4"))
    )
    assert {each["code"] for each in found} == {"invalid_request"}
    assert any("dead_letter" in each for each in found)
    found = list(map(json.loads, tail(topics, *since, "--errors", "--no-dead-letters", "--limit", "2")))
    assert all(each["answer"]["status"] == "error" for each in found)
    (line,) = tail(topics, "--since", "1h", "--id", f"{name}-bad", "--limit", "1")
    assert line.split(" ", 1)[1] == f"invalid_request {TASK} {name}-bad inputs: Input should be a valid string"


def test_without_a_time_only_what_comes_now_is_shown(served: Served) -> None:
    """From when it has begun, until Ctrl-C."""
    topics, name = served.topics, unique("now")
    with subprocess.Popen(command(topics, "--code", "ok"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        shown = ""
        for number in range(100):  # until one is sent after it has begun
            request_id = f"{name}-{number}"
            topics.send([{"id": request_id, "inputs": "a good day"}])
            topics.read_until(partial(topics.answers.__contains__, request_id), served.worker)
            if number == 0:
                continue
            if shown := _line_of(process):
                break
        assert f" ok {TASK} {name}-" in shown
        assert '[{"label": ' in shown
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


def _line_of(process: subprocess.Popen[str]) -> str:
    """Return a line if there is one within a second."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 1.0)
    return process.stdout.readline() if ready else ""


@pytest.mark.parametrize("arguments", [[], ["--task", TASK]])
def test_topics_that_are_missing_are_told(embedded_kafka: RunningKafka, arguments: list[str]) -> None:
    """Of one task, or of all."""
    options = ["--bootstrap-servers", embedded_kafka.bootstrap_servers, "--topic-prefix", unique("none"), *arguments]
    ran = subprocess.run(
        [sys.executable, "-m", "nlp_worker", "tail", *options], capture_output=True, text=True, check=False
    )
    assert ran.returncode == ExitCode.TOPICS
    assert "exist" in ran.stderr
