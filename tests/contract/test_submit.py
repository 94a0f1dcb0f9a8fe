"""`nlp-worker submit`, as its user runs it: lines in, answers out."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from clients import wait_for
from nlp_worker.errors import ExitCode
from processes import PATIENCE, TASK, Topics

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka
    from served import Served

pytestmark = pytest.mark.timeout(3 * PATIENCE)


def command(topics: Topics, *arguments: object) -> list[str]:
    options = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix]
    return [sys.executable, "-m", "nlp_worker", "submit", *options, *map(str, arguments)]


def submit(topics: Topics, *arguments: object, lines: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command(topics, *arguments), input=lines, capture_output=True, timeout=PATIENCE, check=False)


def answers(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_lines_of_text_are_answered_in_their_order(served: Served) -> None:
    """From a pipe; empty lines are left out, spaces belong to the text, and the last line needs no end."""
    ran = submit(served.topics, TASK, "-p", "top_k=2", lines="a good day\n\n  Grüße \r\n{not json}\nlast".encode())
    found = answers(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    assert [answer["id"] for answer in found] == ["line-1", "line-3", "line-4", "line-5"]
    assert all(len(answer["outputs"]) == 2 for answer in found)
    assert b"4 answered; " in ran.stderr


def test_lines_of_json_are_requests(served: Served, tmp_path: Path) -> None:
    """From a file; what a line says itself wins, and a line that is wrong is a line of its own in the output."""
    lines = [
        b'{"inputs": "a good day", "id": "mine", "parameters": {"top_k": 3}}',
        b'{"inputs": {"text": "a good day", "text_pair": "a bad day"}, "id": null}',
        b"{",
        b"[1]",
        b'"\xff"',
        b'{"inputs": "a good day", "parameters": 5}',
        b'{"inputs": "a good day", "id": 5}',
        b'{"inputs": "a good day", "model": "other"}',
        b'{"inputs": "' + b"x" * 2_000_000 + b'"}',
    ]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    ran = submit(served.topics, "sentiment-analysis", tmp_path / "lines", "-p", "top_k=2", "-p", "max_length=9")
    found = answers(ran.stdout)
    assert ran.returncode == 1
    ids = [answer["id"] for answer in found]
    assert ids.pop(6).startswith(served.topics.name("requests"))  # of one whose own is none
    assert ids == ["mine", *(f"line-{number}" for number in (2, 3, 4, 5, 6, 8, 9))]
    assert [len(answer["outputs"]) for answer in found[:2]] == [3, 2]
    told = [(answer["error"]["code"], answer["error"]["message"]) for answer in found[2:]]
    assert [code for code, _ in told] == [*["invalid_request"] * 5, "unknown_model", "invalid_request"]
    for (_, message), start in zip(
        told,
        (
            "line 3 is not JSON: Expecting",
            'line 4 is no JSON object: write {"inputs": ...}',
            "line 5 is not UTF-8: invalid start byte at byte 1",
            "parameters: Input should be",
            "id: Input should be a valid string",
            "no checkpoint named 'other'",
            "the request has 20",
        ),
        strict=True,
    ):
        assert message.startswith(start)
    assert b"9 answered, of these invalid_request 6, unknown_model 1; " in ran.stderr


def test_what_a_line_is_can_be_said(served: Served) -> None:
    """A text that looks like a request is a text where that is asked for; and a text is no request."""
    line = b'{"inputs": "a good day", "id": "mine"}'
    (text,) = answers(submit(served.topics, TASK, "--format", "text", lines=line).stdout)
    assert (text["id"], text["usage"]["input_tokens"] > 10) == ("line-1", True)
    ran = submit(served.topics, TASK, "--format", "json", lines=b"a good day")
    assert answers(ran.stdout)[0]["error"]["message"].startswith("line 1 is not JSON")
    assert answers(submit(served.topics, TASK, "--format", "text", lines=b"\xff").stdout)[0]["error"]["message"] == (
        "line 1 is not UTF-8: invalid start byte at byte 0"
    )


def test_an_answer_does_not_wait_for_the_next_line(served: Served) -> None:
    """As where a log is followed."""
    with subprocess.Popen(command(served.topics, TASK), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(1, 4):
            process.stdin.write(b"a good day\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == f"line-{number}"
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


def wait_for_lines(process: subprocess.Popen[bytes], output: Path, count: float) -> None:
    """Wait until a run has written so many."""

    def written() -> int:
        return len(output.read_bytes().splitlines()) if output.exists() else 0

    wait_for(lambda: written() >= count or process.poll() is not None)
    assert written() >= count, process.communicate()


def test_a_killed_run_is_gone_on_with(served: Served, tmp_path: Path) -> None:
    """SIGKILL, again and again, in the middle of a line too: in the end every line stands once, in its order."""
    lines, output = tmp_path / "lines", tmp_path / "answers"
    lines.write_text("\n".join(f"day {number}" for number in range(1, 5_001)), encoding="utf-8")
    arguments = (TASK, lines, "--output", output, "--resume")
    for part in (0.2, 0.5):
        with subprocess.Popen(command(served.topics, *arguments), stderr=subprocess.PIPE) as process:
            wait_for_lines(process, output, part * 5_000)
            process.kill()
        with output.open("ab") as file:
            file.write(b'{"id": "half a li')
    ran = submit(served.topics, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert [answer["id"] for answer in answers(output.read_bytes())] == [f"line-{n}" for n in range(1, 5_001)]
    assert b" before; " in ran.stderr
    # There is nothing left to do, and nothing to lose.
    assert submit(served.topics, *arguments).returncode == 0
    ran = submit(served.topics, TASK, lines, "--output", output)
    assert (ran.returncode, ran.stdout) == (ExitCode.USAGE, b"")
    assert b"is there: go on with it with --resume, or name another" in ran.stderr
    assert len(answers(output.read_bytes())) == 5_000


def test_an_interrupted_run_says_how_to_go_on(served: Served, tmp_path: Path) -> None:
    """SIGINT while it waits for a line: what is answered is kept."""
    output = tmp_path / "answers"
    asked = command(served.topics, TASK, "--output", output, "--in-flight", 1)
    with subprocess.Popen(asked, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"a good day\na bad day\na good day\n")
        process.stdin.flush()
        wait_for_lines(process, output, 1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert b"go on with the same command and --resume" in process.stderr.read()
    assert all(answer["status"] == "ok" for answer in answers(output.read_bytes()))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--resume"], 2, "--resume needs an --output that another run began"),
        (["-p", "top_k"], 2, "'top_k' is not of the form NAME=VALUE"),
        (["--output", "/nowhere/x"], 2, "--output /nowhere/x cannot be written to: No such file or directory"),
        (["--timeout", "0.3"], 1, "no answer to request line-1 within 0.3 s: is a worker running"),
        (["--topic-prefix", "nobody"], 4, "topic nobody.text-classification.results does not exist: nlp-worker topics"),
        (["--bootstrap-servers", "127.0.0.1:1"], 3, "cannot use the broker at 127.0.0.1:1: nothing listens there"),
    ],
)
def test_what_cannot_work_is_told(
    embedded_kafka: RunningKafka, arguments: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a line, with the exit code that it has everywhere."""
    monkeypatch.setenv("NLP_WORKER_KAFKA__BOOTSTRAP_TIMEOUT_MS", "1000")
    with Topics(embedded_kafka, 1) as topics:
        ran = submit(topics, TASK, *arguments, lines=b"a good day\n")
    assert (ran.returncode, ran.stdout) == (code, b"")
    assert told in ran.stderr.decode()
    assert "Traceback" not in ran.stderr.decode()


@pytest.mark.parametrize("line", [b'{"input": "a good day"}', b'{"inputs": "a good day"'], ids=["field", "brace"])
def test_a_request_that_is_misspelt_is_no_text(embedded_kafka: RunningKafka, line: bytes) -> None:
    """It would be answered with all that is written around it; who means it so says that it is a text."""
    with Topics(embedded_kafka, 1) as topics:
        ran = submit(topics, TASK, lines=line + b"\n")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert "line 1 begins with { and is no request" in ran.stderr.decode()


@pytest.mark.slow
@pytest.mark.timeout(6 * PATIENCE)
def test_memory_does_not_grow_with_the_lines(served: Served, tmp_path: Path) -> None:
    """A hundred thousand of them take what a thousand do."""
    peaks = []
    for count in (1_000, 100_000):
        lines = tmp_path / f"{count} lines"
        lines.write_text("\n".join(f"day {number}" for number in range(count)), encoding="utf-8")
        with subprocess.Popen(command(served.topics, TASK, lines, "--output", tmp_path / f"{count}")) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = status
        assert status == 0
        peaks.append(usage.ru_maxrss * resource.getpagesize() / 4096)
    assert peaks[1] < peaks[0] + 20_000  # KiB: twenty of a thousand requests in flight
