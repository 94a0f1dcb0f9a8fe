"""All tasks and families through the worker, from Kafka to Kafka, and what is served under which name."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from checkpoints import SENTENCES, build_checkpoint
from drawn_requests import NLI, SERVED, plain
from nlp_schemas import RESULT
from nlp_worker.errors import ExitCode
from parity import PROBABILITIES, difference
from processes import PATIENCE, Topics, WorkerProcess
from same_answers import assert_same
from task_bench import DEVICE, serve
from task_families import EVERY, TASK_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

#: With the head: (task, family, head).
EVERY_HEAD: Final = [(task, family, TASK_HEADS[task]) for task, family in EVERY]
#: One of each task.
FEW: Final = list({task: (task, family, head) for task, family, head, _ in reversed(SERVED)}.values())

TEXTS: Final = ("I love this film.", SENTENCES[9])


def _labels(head: str) -> dict[str, Any]:
    # For zero-shot classification; the rest takes any labels.
    return {"labels": NLI["labels"]} if head == "sequence-classification" else {}


def asked(task: str, family: str) -> list[dict[str, Any]]:
    """Return requests to a checkpoint; what is drawn is drawn by a seed, for it does not know the topics' names."""
    more = {"do_sample": True, "seed": 7} if task == "text-generation" else {}
    requests = [plain(task, family, text, **more) for text in TEXTS]
    return [{**request, "id": f"{task} {family} {number}"} for number, request in enumerate(requests)]


def assert_served(
    broker: RunningKafka,
    models: Sequence[tuple[str, str, str]],
    folder_of: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """One worker serves all of these, and answers each request by `model` as the task does without it."""
    served = [f"{family}:{task}={folder_of(family, head, **_labels(head))}" for task, family, head in models]
    requests = {request["id"]: request for task, family, _ in models for request in asked(task, family)}
    tasks = sorted({task for task, _, _ in models})
    arguments = ["--device", DEVICE, "--dtype", "float32"]
    arguments += [argument for one in served for argument in ("--model", one)]
    with Topics(broker, 1, tasks=tasks) as topics, WorkerProcess(topics, None, tmp_path, *arguments) as worker:
        for task in tasks:
            topics.send([request for request in requests.values() if request["task"] == task], task=task)
        alone = serve(*served).ask(list(requests.values()))
        topics.read_until(lambda: len(topics.answers) == len(requests), worker)
        loading = worker.events("loading")
    assert [(each["task"], each["model"]) for each in loading] == [one[:2] for one in models]
    assert [(each["number"], each["of"]) for each in loading] == [(n + 1, len(models)) for n in range(len(models))]
    for expected in alone:
        request, (answer,) = requests[expected["id"]], topics.answers[expected["id"]]
        assert (answer["status"], answer["model"]["name"]) == ("ok", request["model"]), answer
        RESULT.validate_python(answer)
        assert_same(request, answer, expected)
    assert topics.dead_letters == []


@pytest.mark.slow
def test_every_family_and_head_is_answered_through_the_worker(
    embedded_kafka: RunningKafka, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """17 families, all their heads, all tasks of these, in one worker; a line of progress for each checkpoint."""
    assert len(EVERY_HEAD) > 100
    assert_served(embedded_kafka, EVERY_HEAD, folder_of, tmp_path)


@pytest.mark.kafka
def test_every_task_is_answered_through_apache_kafka(
    real_kafka: RunningKafka, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """One checkpoint of each of the ten tasks."""
    assert len(FEW) == 10
    assert_served(real_kafka, FEW, folder_of, tmp_path)


def test_a_request_picks_its_checkpoint_by_name(
    embedded_kafka: RunningKafka, folder_of: Callable[..., Path], tmp_path: Path
) -> None:
    """The first of a task is its default, a name that is not served is told those that are; aliases name tasks too."""
    models = {
        "first:text-classification": folder_of("distilbert", "sequence-classification"),
        "second:sentiment-analysis": folder_of("bert", "sequence-classification"),
        "people:ner": folder_of("distilbert", "token-classification"),
    }
    arguments = [part for name, folder in models.items() for part in ("--model", f"{name}={folder}")]
    text = "I love this film."
    requests = [{"id": name, "inputs": text, "model": name} for name in ("first", "second", "third")]
    tasks = ["text-classification", "token-classification"]
    with (
        Topics(embedded_kafka, 1, tasks=tasks) as topics,
        WorkerProcess(topics, None, tmp_path, *arguments) as worker,
    ):
        topics.send([*requests, {"id": "none", "inputs": text, "task": "sentiment-analysis"}])
        topics.send([{"id": "people", "inputs": "Ann", "task": "pos"}], task="token-classification")
        topics.read_until(lambda: len(topics.answers) == 5 and len(topics.dead_letters) == 1, worker)
    answers = {name: answer for name, (answer,) in topics.answers.items()}
    names = {name: answer["model"]["name"] for name, answer in answers.items() if answer["status"] == "ok"}
    assert names == {"first": "first", "second": "second", "none": "first", "people": "people"}
    difference(answers["none"]["outputs"], answers["first"]["outputs"], PROBABILITIES)
    assert answers["first"]["outputs"] != answers["second"]["outputs"]
    assert answers["people"]["task"] == "token-classification"
    told = "no checkpoint named 'third' is served for text-classification: there is first, second"
    assert answers["third"]["error"] == {"code": "unknown_model", "message": told}


@pytest.mark.parametrize(
    ("second", "code", "told"),
    [
        ("tiny:sentiment-analysis=elsewhere", ExitCode.USAGE, "'tiny' is served twice for text-classification"),
        (
            "text-generation={old}",
            ExitCode.CHECKPOINT,
            "left transformers 5, and has no attention mask, so",
        ),
    ],
    ids=["the-same-name", "transformer-xl"],
)
def test_a_checkpoint_that_cannot_be_served_is_refused(
    *, embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path: Path, second: str, code: ExitCode, told: str
) -> None:
    """At start, with a named exit code and one line that says why."""
    old = tmp_path / "transfo-xl-wt103"
    old.mkdir()
    config = {"model_type": "transfo-xl", "architectures": ["TransfoXLLMHeadModel"]}
    (old / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = second.format(old=old)
    with (
        Topics(embedded_kafka, 1, tasks=["text-classification", "text-generation"]) as topics,
        WorkerProcess(topics, tiny_checkpoint, tmp_path, "--model", model) as worker,
    ):
        assert worker.end() == code
    last = worker.log().splitlines()[-1]
    assert told in last
    assert "can be padded" in last or code is ExitCode.USAGE


def test_the_vectors_of_a_long_text_need_a_topic_with_room(embedded_kafka: RunningKafka, tmp_path: Path) -> None:
    """512 vectors of 256 numbers, above 1 MiB: published where the topic takes them, else told; a pooled one always."""
    wide = build_checkpoint("bert", "base", tmp_path / "wide", hidden_size=256)
    text = " ".join([*SENTENCES, *SENTENCES])
    requests = [{"id": "all", "inputs": text}, {"id": "one", "inputs": text, "parameters": {"pooling": "mean"}}]
    with contextlib.ExitStack() as stack:
        sides = []
        for configs in {"max_message_bytes": 16 * 2**20}, {}:
            topics = stack.enter_context(Topics(embedded_kafka, 1, tasks=["feature-extraction"], **configs))
            arguments = "--model", f"feature-extraction={wide}"
            sides.append((topics, stack.enter_context(WorkerProcess(topics, None, tmp_path, *arguments))))
            topics.send(requests)
        for topics, worker in sides:
            topics.read_until(lambda topics=topics: len(topics.answers) == 2, worker)  # type: ignore[misc]
    (whole, pooled), (refused, also_pooled) = (
        [topics.answers[name][0] for name in ("all", "one")] for topics, _ in sides
    )
    assert [len(whole["outputs"]), len(whole["outputs"][0]), len(whole["outputs"][0][0])] == [1, 512, 256]
    assert len(pooled["outputs"]) == len(also_pooled["outputs"]) == 256
    assert refused["error"]["code"] == "result_too_large"
    assert f"more than topic {sides[1][0].name('results')} accepts" in refused["error"]["message"]
