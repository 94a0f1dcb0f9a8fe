"""The worker as its users have it: processes, both brokers, and a client that shares no code with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import urllib.request
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from apache_kafka import free_ports
from nlp_schemas import RESULT, DeadLetter, TextClassificationResult
from nlp_worker.errors import ExitCode
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

TEXTS = ["a good day", "a very bad day for all of them", "it rains", "the best of all possible worlds, they said"]


def requests(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r-{number}", "inputs": TEXTS[number % 4] * (1 + number % 9)} for number in range(count)]


def test_nothing_is_lost_when_a_worker_is_killed_mid_stream(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """5,000 requests, two workers, SIGKILL for one of them half-way, a third one started: every id is answered."""
    with contextlib.ExitStack() as stack:
        topics = stack.enter_context(Topics(kafka_broker))
        first, second = (stack.enter_context(WorkerProcess(topics, tiny_checkpoint, tmp_path)) for _ in range(2))
        topics.send(requests(1000))
        topics.read_until(lambda: len(topics.answers) >= 500, first, second)
        topics.send(requests(5000)[1000:])
        first.process.kill()
        third = stack.enter_context(WorkerProcess(topics, tiny_checkpoint, tmp_path))
        # Ready, or it would have no handler for the signal below yet.
        topics.read_until(lambda: len(topics.answers) == 5000 and bool(third.events("ready")), third)
        assert set(topics.answers) == {f"r-{number}" for number in range(5000)}
        assert topics.dead_letters == []
        for worker in (second, third):
            worker.process.send_signal(signal.SIGTERM)
        assert [worker.end() for worker in (second, third)] == [0, 0]


BAD = {
    "bad-utf-8": b"\xff\xfe",
    "bad-json": b"{",
    "null": None,
    "wrong-type": b'{"inputs": 5}',
    "unknown-field": b'{"inputs": "a", "topk": 1}',
    "ten-megabytes": json.dumps({"inputs": "x" * 10_000_000}).encode(),
    "unknown-model": b'{"inputs": "a", "model": "other"}',
    "too-long": json.dumps({"inputs": "word " * 2000, "parameters": {"truncation": False}}).encode(),
}


def test_every_bad_record_costs_one_error_answer_and_one_dead_letter(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Eight kinds of bad record among 1,000 good ones; dead letters are the original records, and SIGTERM drains."""
    with (
        Topics(kafka_broker, max_message_bytes=12_000_000) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker,
    ):
        good = requests(1000)
        topics.send(good[:500])
        for name, value in BAD.items():
            topics.send([value], key=name.encode(), headers=[("traceparent", b"00-1"), ("mine", name.encode())])
        topics.send(good[500:])
        topics.read_until(lambda: len(topics.answers) == 1008 and len(topics.dead_letters) == len(BAD), worker)
        assert all(len(answers) == 1 for answers in topics.answers.values())
        answers = [answer for (answer,) in topics.answers.values()]
        ok = [answer for answer in answers if answer["status"] == "ok"]
        assert {answer["id"] for answer in ok} == {request["id"] for request in good}
        assert {answer["error"]["code"] for answer in answers if answer["status"] == "error"} == {
            "invalid_request", "unknown_model", "input_too_long"}  # fmt: skip
        letters = {letter.key().decode(): letter for letter in topics.dead_letters}
        assert {name: letter.value() for name, letter in letters.items()} == BAD
        for name, letter in letters.items():
            assert ("mine", name.encode()) in letter.headers()
            assert DeadLetter.from_headers(letter.headers()).worker
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end(timeout=30) == 0
        assert "word word" not in worker.log()


def test_an_answer_has_the_requests_key_and_headers_and_reads_by_the_contract(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A pair, a parameter, a truncated text and a default id."""
    with Topics(kafka_broker, 1) as topics, WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker:
        pair = {"text": "a good day", "text_pair": "a bad day"}
        topics.send([{"id": "pair", "inputs": pair, "parameters": {"top_k": None}}, {"inputs": "word " * 2000}])
        topics.read_until(lambda: len(topics.answers) == 2, worker)
        (first,), (second,) = topics.answers.values()
        pair_answer = RESULT.validate_python(first)
        assert isinstance(pair_answer, TextClassificationResult)
        assert [label.score for label in pair_answer.outputs] == sorted(
            (label.score for label in pair_answer.outputs), reverse=True
        )
        assert sum(label.score for label in pair_answer.outputs) == pytest.approx(1)
        assert pair_answer.model.revision.startswith("sha256:")
        assert second["id"] == f"{topics.name('requests')}-0-1"
        assert (second["truncated"], second["usage"]["input_tokens"]) == (True, 512)


def test_a_second_signal_ends_the_worker_at_once(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """For the operator who cannot wait for the drain."""
    with Topics(embedded_kafka) as topics, WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker:
        topics.send(requests(1))
        topics.read_until(lambda: len(topics.answers) == 1)
        os.kill(worker.process.pid, signal.SIGSTOP)
        for _ in range(2):
            worker.process.send_signal(signal.SIGTERM)
            worker.process.send_signal(signal.SIGINT)
        os.kill(worker.process.pid, signal.SIGCONT)
        assert worker.end(timeout=30) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def end_of(broker: RunningKafka, checkpoint: Path, folder: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the last line of a worker that cannot start."""
    with Topics(broker, 1) as topics, WorkerProcess(topics, checkpoint, folder, *arguments) as worker:
        return worker.end(), worker.log().splitlines()[-1]


def test_topics_that_are_missing_end_the_worker_with_one_line(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """As either broker tells it: a named exit code, and what to do about it."""
    code, line = end_of(kafka_broker, tiny_checkpoint, tmp_path, "--topic-prefix", "missing")
    assert code == ExitCode.TOPICS
    assert (
        "topic missing.text-classification.requests does not exist: nlp-worker topics create --task text-classification"
        in line
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--bootstrap-servers", "127.0.0.1:1"], 3, "nothing listens there: see bootstrap_servers"),
        (["--model", "text-classification=/does/not/exist"], 5, "there is no such folder"),
        (["--model", "nir=x"], 2, "'nir' is no task"),
        (["--drain-seconds", "soon"], 2, "drain_seconds"),
    ],
    ids=["no-broker", "no-checkpoint", "no-task", "bad-number"],
)
def test_what_cannot_start_exits_with_its_code_and_one_line(
    *, embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    """A named exit code, and what to do about it; the broker has no part in these."""
    ended = end_of(embedded_kafka, tiny_checkpoint, tmp_path, *arguments)
    assert ended[0] == code
    assert told in ended[1]


def test_prometheus_reads_what_the_worker_did(
    kafka_broker: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Over HTTP, in its text format: answers by outcome, the device's time, and no lag when all is answered.

    Probes are answered on the same port.
    """
    (port,) = free_ports(1)
    with (
        Topics(kafka_broker) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path, "--http-port", str(port)) as worker,
    ):

        def read() -> dict[str, float]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                families = list(text_string_to_metric_families(response.read().decode()))
            samples = [sample for family in families for sample in family.samples]
            return {
                name: sum(sample.value for sample in samples if sample.name == f"nlp_worker_{name}")
                for name in ("requests_total", "device_seconds_total", "lag_records", "lag_device_seconds")
            }

        topics.send([*requests(1000), {"inputs": 5}])
        topics.read_until(lambda: len(topics.answers) == 1001, worker)
        topics.read_until(lambda: read()["requests_total"] == 1001 and not read()["lag_records"], worker)
        assert read()["lag_device_seconds"] == 0
        assert read()["device_seconds_total"] > 0
        for probe in ("livez", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{probe}", timeout=10) as response:
                assert response.read() == b"ok\n"


def test_the_memory_of_a_worker_does_not_grow_with_the_backlog(
    real_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """200,000 requests wait; while 10,000 of them are worked off the worker's RSS grows by less than 200 MB."""
    with Topics(real_kafka) as topics, WorkerProcess(topics, tiny_checkpoint, tmp_path) as worker:
        topics.send([{"inputs": "warm up"}])
        topics.read_until(lambda: len(topics.answers) == 1)
        process = psutil.Process(worker.process.pid)
        sizes = [process.memory_info().rss]
        topics.send({"inputs": "a good day " * 20} for _ in range(200_000))

        def enough() -> bool:
            sizes.append(process.memory_info().rss)
            return len(topics.answers) > 10_000

        topics.read_until(enough, worker)
        assert max(sizes) - sizes[0] < 200 * 2**20


def test_an_http_port_that_is_taken_is_told(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Before any checkpoint is loaded."""
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, line = end_of(embedded_kafka, tiny_checkpoint, tmp_path, "--http-port", port)
    assert code == ExitCode.USAGE
    assert f"http_port: port {port} cannot be used: Address already in use" in line


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """`nlp-worker broker` on a port that something else has."""
    import subprocess  # noqa: PLC0415 - for this alone
    import sys  # noqa: PLC0415

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "nlp_worker", "broker", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert (done.returncode, f"port {port} of 127.0.0.1 cannot be used" in done.stderr) == (2, True)
