"""`nlp-worker doctor`: what is wrong is said with what to do, and the exit code is the worker's own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from clients import producer
from nlp_worker.cli import main
from nlp_worker.doctor import NO_MODEL
from nlp_worker.errors import ExitCode
from processes import TASK, Topics

if TYPE_CHECKING:
    from apache_kafka import RunningKafka


def doctor(topics: Topics, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and what was found."""
    options = ["--bootstrap-servers", topics.servers, "--topic-prefix", topics.prefix, "--log-level", "error"]
    ran = CliRunner().invoke(main, ["doctor", *options, *arguments, "--json"])
    assert isinstance(ran.exception, SystemExit | None), ran.exc_info
    return ran.exit_code, [json.loads(line) for line in ran.stdout.splitlines()]


def told(found: list[dict[str, Any]], about: str, verdict: str) -> list[str]:
    return [each["told"] for each in found if (each["about"], each["verdict"]) == (about, verdict)]


def test_all_is_well_where_a_worker_would_run(kafka_broker: RunningKafka, tiny_checkpoint: Path) -> None:
    """Versions, broker, group, topics, clock, memory, device and models; one broker or no checkpoint is a warning."""
    with Topics(kafka_broker, 2) as topics:
        code, found = doctor(topics, "--model", f"tiny:{TASK}={tiny_checkpoint}", "--device", "cpu")
        assert code == 0
        assert {each["about"] for each in found if each["verdict"] == "ok"} >= {
            "versions", "broker", "group", "clock", "inference", "memory", "device", "models"}  # fmt: skip
        assert told(found, "models", "ok")[0].startswith(f"tiny runs for {TASK}, warmed up in ")
        assert [each["verdict"] for each in found].count("error") == 0
        assert all("replica" in line or "dead letter" in line for line in told(found, "topics", "warning"))
        code, found = doctor(topics)
        assert (code, {each["about"] for each in found}) == (
            0, {"versions", "broker", "group", "topics", "clock", "models"})  # fmt: skip
        assert told(found, "models", "warning") == [NO_MODEL]
        assert told(found, "group", "ok") == ["nlp-worker has 0 workers now"]


def test_one_error_hides_no_other(kafka_broker: RunningKafka) -> None:
    """A topic that is missing, and a checkpoint that is not there: both are told, and the first gives the code."""
    with Topics(kafka_broker, 2) as topics:
        models = ("--model", "fill-mask=/nowhere")
        code, found = doctor(topics, *models)
        assert code == ExitCode.TOPICS
        create = f"nlp-worker topics create --task fill-mask --topic-prefix {topics.prefix}"
        assert f"{topics.prefix}.fill-mask.requests: does not exist: {create}" in told(found, "topics", "error")
        assert told(found, "models", "error") == [
            "checkpoint /nowhere for fill-mask cannot be loaded: there is no such folder"
        ]
        assert told(found, "clock", "ok")


def test_a_broker_that_is_away_is_told_and_the_rest_looked_at(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models need none, and without any the rest is told all the same."""
    monkeypatch.setenv("NLP_WORKER_KAFKA__BOOTSTRAP_TIMEOUT_MS", "1000")
    with Topics(embedded_kafka, 1) as topics:
        topics.servers = "127.0.0.1:1"
        code, found = doctor(topics, "--model", f"tiny:{TASK}={tiny_checkpoint}", "--device", "cpu")
        without, shown = doctor(topics)
    assert (code, without) == (ExitCode.BROKER, ExitCode.BROKER)
    for each in found, shown:
        assert "nothing listens there" in told(each, "broker", "error")[0]
    assert told(found, "models", "ok")
    assert [each["about"] for each in shown] == ["versions", "broker", "models"]


def test_a_clock_that_is_behind_is_a_warning(kafka_broker: RunningKafka) -> None:
    """A record from the future: somebody's clock is wrong."""
    with Topics(kafka_broker, 1) as topics, producer(kafka_broker) as client:
        later = int((time.time() + 60) * 1000)
        client.send(topics.name("requests"), b"{}", timestamp_ms=later).get(timeout=30)
        _, found = doctor(topics)
    (warning,) = told(found, "clock", "warning")
    assert "s ahead of this machine's clock, and timeout_ms is wrong by it" in warning


def test_transactions_are_tried_where_they_are_needed(
    kafka_broker: RunningKafka, request: pytest.FixtureRequest
) -> None:
    """The embedded broker has none."""
    with Topics(kafka_broker, 1) as topics:
        code, found = doctor(topics, "--delivery", "exactly-once")
    if request.node.callspec.params["kafka_broker"] == "embedded":
        (error,) = told(found, "transactions", "error")
        assert (code, "allow WRITE on nlp-worker/*" in error) == (ExitCode.TOPICS, True)
    else:
        assert (code, told(found, "transactions", "ok")) == (0, ["transactional ids nlp-worker/* are allowed"])


def test_without_topics_that_is_told(embedded_kafka: RunningKafka) -> None:
    """And the broker is looked at all the same."""
    with Topics(embedded_kafka, 1) as topics:
        topics.prefix = "nobody"
        code, found = doctor(topics)
    assert code == ExitCode.TOPICS
    assert told(found, "topics", "error")[0].startswith("no topic nobody.<task>.requests exists")
    assert told(found, "broker", "ok")
    assert told(found, "topics", "ok") == []


@pytest.mark.parametrize("models", [(), ("--model", "shouting=/nowhere", "--device", "cpu")], ids=["none", "one"])
def test_a_plugin_that_cannot_be_used_is_an_error(
    embedded_kafka: RunningKafka, tmp_path: Path, models: tuple[str, ...]
) -> None:
    """With or without a checkpoint for it, and once: with the exit code of `run`. One that can be used is told too."""
    (tmp_path / "broken.py").write_text("TASK = 1\n", encoding="utf-8")
    with Topics(embedded_kafka, 1, tasks=["shouting"]) as topics:
        code, found = doctor(topics, "--plugin", str(tmp_path / "broken.py"), *models)
    assert code == ExitCode.USAGE
    assert [each["told"] for each in found if each["verdict"] == "error"] == [
        f"plugin {tmp_path}/broken.py: it has no TASK: set it to the class of the task"
    ]


@pytest.mark.usefixtures("plugins_end_here")
def test_a_plugin_is_named_with_its_task(embedded_kafka: RunningKafka) -> None:
    """Without a checkpoint too: which task it adds is what --model needs."""
    file = Path(__file__).parents[2] / "examples" / "sentence_similarity.py"
    with Topics(embedded_kafka, 1) as topics:
        code, found = doctor(topics, "--plugin", str(file))
    assert (code, told(found, "plugins", "ok")) == (0, [f"{file} adds sentence-similarity"])


def test_a_mistyped_environment_name_is_a_warning(
    embedded_kafka: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the name that may be meant, where one is near."""
    for name in ("GRUOP", "KAFAK__SSL_CAFILE", "MODELS", "XYZZY"):
        monkeypatch.setenv(f"NLP_WORKER_{name}", "x")
    with Topics(embedded_kafka, 1) as topics:
        code, found = doctor(topics)
    assert (code, told(found, "environment", "warning")) == (0, [
        "NLP_WORKER_GRUOP is no setting: did you mean NLP_WORKER_GROUP?",
        "NLP_WORKER_KAFAK__SSL_CAFILE is no setting: did you mean NLP_WORKER_KAFKA__SSL_CAFILE?",
        "NLP_WORKER_MODELS is no setting: did you mean NLP_WORKER_MODEL?",
        "NLP_WORKER_XYZZY is no setting",
    ])  # fmt: skip
