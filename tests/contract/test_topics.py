"""`nlp-worker topics`: what it makes is what a worker needs, and what is wrong is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from clients import admin, unique
from nlp_schemas import ALIASES, TaskName
from nlp_worker.cli import main
from nlp_worker.connection import check_topics, topic_configs
from nlp_worker.errors import ExitCode, TopicError
from nlp_worker.topics import Kind, Topic, Verdict, problems_of, tasks_by_topic

if TYPE_CHECKING:
    from apache_kafka import RunningKafka

TASK = "text-classification"
KINDS = ("requests", "results", "dead-letter")


def topics(broker: RunningKafka, prefix: str, *arguments: str) -> Result:
    options = ["--bootstrap-servers", broker.bootstrap_servers, "--topic-prefix", prefix]
    return CliRunner().invoke(main, ["topics", arguments[0], *options, *arguments[1:]])


def rows(ran: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_what_is_created_has_nothing_wrong_with_it(kafka_broker: RunningKafka) -> None:
    """But that there is one broker; what is there already stays as it is, and its partitions are told if not those."""
    prefix = unique("made")
    tasks = ("--task", "sentiment-analysis", "--task", "feature-extraction", "--task", "text-classification")
    ran = topics(kafka_broker, prefix, "create", *tasks, "--partitions", "3", "--retention", "7d")
    names = [f"{prefix}.{task}.{kind}" for task in ("text-classification", "feature-extraction") for kind in KINDS]
    assert (ran.exit_code, ran.stdout.splitlines()) == (0, [f"created {name}" for name in names])
    again = topics(kafka_broker, prefix, "create", *tasks, "--partitions", "5", "--json")
    assert rows(again) == [{"topic": name, "created": False, "partitions": 3} for name in names]
    again = topics(kafka_broker, prefix, "create", *tasks, "--partitions", "5")
    assert again.stdout.splitlines() == [f"is there, with 3 partitions and not 5: {name}" for name in names]
    for asked in ["--partitions", "3"], []:  # without it nobody asked for the default, 6
        again = topics(kafka_broker, prefix, "create", *tasks, *asked)
        assert again.stdout.splitlines() == [f"is there: {name}" for name in names]
    with admin(kafka_broker) as client:
        assert {len(topic["partitions"]) for topic in client.describe_topics(names)} == {3}
    checked = topics(kafka_broker, prefix, "check", *tasks, "--json")
    assert checked.exit_code == 0
    assert [(row["topic"], row["verdict"]) for row in rows(checked)] == [(name, "warning") for name in names]
    assert all(row["told"].startswith("1 replica: it is lost with its broker's disk") for row in rows(checked))


def test_what_is_missing_or_loses_records_is_an_error(kafka_broker: RunningKafka) -> None:
    """A worker would not start, or requests of one key would vanish."""
    prefix = unique("wrong")
    kafka_broker.create_topic(f"{prefix}.{TASK}.requests", 1, cleanup_policy="compact", max_message_bytes=2_000_000)
    kafka_broker.create_topic(f"{prefix}.{TASK}.dead-letter", 1)
    ran = topics(kafka_broker, prefix, "check", "--task", TASK)
    assert ran.exit_code == ExitCode.TOPICS
    errors = [line for line in ran.stdout.splitlines() if line.startswith("error")]
    command = f"nlp-worker topics create --task {TASK} --topic-prefix {prefix}"
    assert errors == [
        f"error {prefix}.{TASK}.results: does not exist: {command}",
        f"error {prefix}.{TASK}.requests: cleanup.policy=compact drops all records of a key but the last: set delete",
    ]
    assert f"warning {prefix}.{TASK}.requests: 1 partition: only one worker answers" in ran.stdout
    letters = f"warning {prefix}.{TASK}.dead-letter: max.message.bytes=1048588: the dead letter of a large request"
    assert f"{letters} has no value: set 2065536" in ran.stdout


GOOD = Topic("t", Kind.REQUESTS, 6, 3, {"min.insync.replicas": "2", "retention.ms": "604800000"})


@pytest.mark.parametrize(
    ("topic", "told"),
    [
        (GOOD, None),
        (GOOD._replace(configs={"min.insync.replicas": "2", "retention.ms": "-1"}), None),
        (GOOD._replace(configs={"min.insync.replicas": "2"}), None),
        (GOOD._replace(replicas=1, configs={}), "1 replica: it is lost with its broker's disk; 3 are safe"),
        (GOOD._replace(replicas=2), "2 replicas: it goes with the disks of as many brokers; 3 are safe"),
        (GOOD._replace(configs={}), "min.insync.replicas=1: a record counts that one broker has: set 2"),
        (
            GOOD._replace(configs={"min.insync.replicas": "3"}),
            "min.insync.replicas=3 of 3: nothing is written while a broker is away",
        ),
        (
            GOOD._replace(configs={**GOOD.configs, "retention.ms": "5400000"}),
            "retention.ms=5400000: what is not read within 1.5 h is deleted",
        ),
        (
            GOOD._replace(configs={**GOOD.configs, "unclean.leader.election.enable": "true"}),
            "unclean.leader.election.enable=true: acknowledged records may be lost: set false",
        ),
    ],
)
def test_what_may_lose_something_is_a_warning(topic: Topic, told: str | None) -> None:
    """One for each way; a topic that is as it should be has none."""
    found = [problem for problem in problems_of(topic) if not problem.told.startswith("min.insync.replicas=2 of 2")]
    assert [(problem.verdict, problem.told) for problem in found] == ([] if told is None else [(Verdict.WARNING, told)])


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["create"], 2, "Missing option '--task'"),
        (["create", "--task", TASK, "--retention", "week"], 2, "'week' is no age such as 30m, 36h or 7d"),
        (["create", "--task", TASK, "--replication-factor", "7"], 4, f".{TASK}.requests cannot be created: Invalid"),
        (["check", "--task", TASK], 4, f"does not exist: nlp-worker topics create --task {TASK} --topic-prefix none"),
        (["check", "--task", "sumarization"], 4, ", or is the task misspelt? There is text-classification, "),
    ],
)
def test_what_cannot_be_done_is_told(kafka_broker: RunningKafka, arguments: list[str], code: int, told: str) -> None:
    """With the exit code that it has everywhere."""
    ran = topics(kafka_broker, unique("none"), *arguments)
    assert (ran.exit_code, told in ran.output) == (code, True), ran.output


def test_labels_get_a_topic_that_keeps_them(kafka_broker: RunningKafka) -> None:
    """Of the tasks that can be trained, and for ever: a label of last year is as good as one of today."""
    prefix = unique("labels")
    tasks = ("--task", TASK, "--task", "fill-mask")
    ran = topics(kafka_broker, prefix, "create", *tasks, "--labels")
    labels = f"{prefix}.{TASK}.labels"
    assert [line for line in ran.stdout.splitlines() if "labels" in line.partition(prefix)[2]] == [f"created {labels}"]
    with admin(kafka_broker) as client:
        assert topic_configs(client, [labels])[labels]["retention.ms"] == "-1"


def test_how_a_task_s_topics_are_created_is_told_once(embedded_kafka: RunningKafka) -> None:
    """However many are missing: with the prefix where it is not the default, and not for topics that are no task's."""
    names = [f"nlp.ner-ish.{kind}" for kind in KINDS]
    with admin(embedded_kafka) as client, pytest.raises(TopicError) as raised:
        check_topics(client, read=[f"a.b.{TASK}.requests", names[0]], write=[f"a.b.{TASK}.results", *names[1:], "own"])
    misspelt = f"or is the task misspelt? There is {', '.join([*TaskName, *ALIASES])}, and what a plugin adds"
    assert str(raised.value).split("; ") == [
        f"topic a.b.{TASK}.requests does not exist: nlp-worker topics create --task {TASK} --topic-prefix a.b",
        f"topic nlp.ner-ish.requests does not exist: nlp-worker topics create --task ner-ish, {misspelt}",
        f"topic a.b.{TASK}.results does not exist",
        "topic nlp.ner-ish.results does not exist",
        "topic nlp.ner-ish.dead-letter does not exist",
        "topic own does not exist: create it",
    ]


def test_tasks_are_found_by_their_topics(kafka_broker: RunningKafka) -> None:
    """A plugin's too, where all three are there; others may have topics of such names, and a longer prefix."""
    prefix = unique("found")
    own = [f"{prefix}.{task}.{kind}" for task in ("fill-mask", "a-plugin-s") for kind in KINDS]
    others = [f"{prefix}.orders.requests", f"{prefix}.audit.results", f"{prefix}.deep.fill-mask.requests"]
    for name in [*own, *others, *(f"{prefix}.ner.{kind}" for kind in KINDS)]:
        kafka_broker.create_topic(name, 1)
    with admin(kafka_broker) as client:
        for kind in Kind:
            found = tasks_by_topic(client, prefix, kind)
            assert found == {f"{prefix}.{task}.{kind}": task for task in ("a-plugin-s", "fill-mask")}
        with pytest.raises(TopicError, match=r"no topic nobody\.<task>\.requests exists"):
            tasks_by_topic(client, "nobody", Kind.REQUESTS)


def test_topics_of_a_task_that_is_not_built_in_are_made_and_that_is_told(embedded_kafka: RunningKafka) -> None:
    """It may be a plugin's, and it may be misspelt; the answer for scripts has nothing of it."""
    ran = topics(embedded_kafka, unique("plugin"), "create", "--task", "text-clasification", "--json")
    assert (ran.exit_code, len(rows(ran))) == (0, 3)
    assert "'text-clasification' is not built in: a worker needs a plugin for it; there is text-class" in ran.stderr
