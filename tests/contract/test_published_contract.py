"""The published documents are all that a producer needs: from kafkajs and from librdkafka, of every task."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jsonschema
import pytest
from click.testing import CliRunner

from clients import rd_consumer, rd_producer
from drawn_requests import SERVED
from javascript import FOLDER, PACKAGES, node
from nlp_schemas import TaskName
from nlp_worker.cli import main
from processes import PATIENCE, Topics, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

TASKS: Final = [str(task) for task in TaskName]

#: Of each task the first checkpoint whose masks and languages are those of the examples.
CHECKPOINTS: Final = {
    task: (family, head, options)
    for task, family, head, options in reversed(SERVED)
    if task != "translation" or family == "t5"
}


def published(folder: Path, prefix: str) -> dict[str, Any]:
    """Return the documents as the command writes them, by the files' names."""
    ran = CliRunner().invoke(main, ["schema", "--folder", str(folder), "--topic-prefix", prefix])
    assert ran.exit_code == 0, ran.output
    return {Path(line).name: json.loads(Path(line).read_text(encoding="utf-8")) for line in ran.output.splitlines()}


def find(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part]
    return document


def references(document: Any) -> Iterator[str]:
    for name, part in document.items() if isinstance(document, dict) else enumerate(document):
        if name == "$ref":
            yield part
        elif isinstance(part, (dict, list)):
            yield from references(part)


def test_the_document_fits_asyncapi_s_own_schema(tmp_path: Path) -> None:
    """AsyncAPI 3.0's, from the package that its tools use; and every reference in it leads somewhere."""
    document = published(tmp_path, "nlp")["asyncapi.json"]
    node()
    schema = json.loads((PACKAGES / "@asyncapi" / "specs" / "schemas" / "3.0.0.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    assert list(validator.iter_errors(document)) == []
    assert not validator.is_valid({**document, "operations": {"x": {"action": "eat"}}})
    assert all(find(document, reference) for reference in references(document))


def ask_from_javascript(broker: RunningKafka, document: Path) -> list[dict[str, Any]]:
    """Send the examples with kafkajs; return for each its topic and its answer."""
    command = [node(), str(FOLDER / "ask.mjs"), broker.bootstrap_servers, str(document)]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert asked.returncode == 0, asked.stderr
    return [json.loads(line) for line in asked.stdout.splitlines()]


def ask_from_librdkafka(broker: RunningKafka, document: Path) -> list[dict[str, Any]]:
    """Do the same with confluent-kafka."""
    contract = json.loads(document.read_text(encoding="utf-8"))
    producer = rd_producer(broker)
    waiting: dict[bytes, tuple[str, str]] = {}
    for operation in contract["operations"].values():
        if "reply" not in operation:
            continue
        channel = find(contract, operation["channel"]["$ref"])
        results = find(contract, operation["reply"]["channel"]["$ref"])["address"]
        ((_, message),) = channel["messages"].items()
        value = find(contract, message["$ref"])["examples"][0]["payload"]
        correlation = f"question {len(waiting)}".encode()
        headers = {"kafka_correlationId": correlation}
        producer.produce(channel["address"], json.dumps(value), key=correlation, headers=headers)
        waiting[correlation] = (channel["address"], results)
    assert producer.flush(PATIENCE) == 0
    consumer, answers = rd_consumer(broker), []
    consumer.subscribe([results for _, results in waiting.values()])
    while waiting:
        for record in consumer.consume(100, timeout=0.2):
            topic, results = waiting.pop(dict(record.headers())["kafka_correlationId"], (None, None))
            if topic is not None:
                assert (record.topic(), record.error()) == (results, None)
                answers.append({"topic": topic, "answer": json.loads(record.value())})
    consumer.close()
    return answers


def test_unrelated_clients_need_nothing_but_the_document(
    kafka_broker: RunningKafka, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """They send the examples to the addresses of the document, and every answer fits the task's published schema."""
    models = [f"{task}={folder_of(family, head, **options)}" for task, (family, head, options) in CHECKPOINTS.items()]
    arguments = [argument for model in models for argument in ("--model", model)]
    with Topics(kafka_broker, 1, tasks=TASKS) as topics, WorkerProcess(topics, None, tmp_path, *arguments):
        documents = published(tmp_path / "schemas", topics.prefix)
        document = tmp_path / "schemas" / "asyncapi.json"
        asked = [ask(kafka_broker, document) for ask in (ask_from_javascript, ask_from_librdkafka)]
    for answers in asked:
        assert sorted(each["topic"] for each in answers) == sorted(topics.name("requests", task) for task in TASKS)
    for answer in (each["answer"] for answers in asked for each in answers):
        assert answer["status"] == "ok", answer
        jsonschema.validate(answer, documents[f"{answer['task']}.result.json"])


def test_the_document_on_standard_output_is_the_same(tmp_path: Path) -> None:
    """Without a folder, for a pipe; a folder that cannot be written to is named."""
    printed = CliRunner().invoke(main, ["schema", "--topic-prefix", "shop"])
    assert json.loads(printed.output) == published(tmp_path, "shop")["asyncapi.json"]
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "nlp_worker", "schema", "--folder", str(tmp_path / "file" / "x")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"{tmp_path / 'file' / 'x'} cannot be written to: Not a directory" in refused.stderr
