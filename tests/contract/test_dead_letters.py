"""`nlp-worker dead-letters list` and `show` on both brokers: what an operator sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from apache_kafka import RunningKafka
from clients import producer
from dead_topics import MINUTE, ORIGINAL, SECRET, START, START_TIME, TASK, DeadTopics
from nlp_worker.broker import EmbeddedBroker, api
from nlp_worker.connection import connect
from nlp_worker.dead_letters import Range, Reader, find_topics
from nlp_worker.errors import BrokerError, ExitCode, TopicError
from nlp_worker.record_headers import HeaderKey


@pytest.fixture
def topics(kafka_broker: RunningKafka) -> DeadTopics:
    return DeadTopics(kafka_broker)


def test_a_list_has_a_line_for_each_the_newest_last_and_no_text_of_a_request(topics: DeadTopics) -> None:
    """Of both partitions, with code, stage and both positions; the counts are apart, so that lines can be piped."""
    positions = topics.send(
        topics.letter("invalid_request", partition=1, stage="decode", message="m" * 500),
        topics.letter("inference_failed", partition=0),
        topics.letter("inference_failed", partition=1),
    )
    done = topics.run("list")
    lines = done.stdout.splitlines()
    assert [line.split(" ")[2] for line in lines] == positions
    original = f"{topics.requests}-1-7"
    assert lines[0] == f"{START_TIME} {TASK} {positions[0]} invalid_request decode {original} {'m' * 97}..."
    assert lines[1].endswith(f"inference_failed forward {original} inference_failed of the model")
    assert done.stderr == "3 dead letters: inference_failed 2, invalid_request 1\n"
    assert SECRET not in done.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--code unknown_model", [1, 4]),
        ("--code unknown_model --code out_of_memory", [1, 3, 4]),
        ("--since 2025-11-24T16:02:00Z", [2, 3, 4]),
        ("--since 2025-11-24T17:02:00+01:00 --until 2025-11-24T16:04", [2, 3]),
        ("--until 1m", [0, 1, 2, 3, 4]),
        ("--since 1s", []),
        ("--limit 2", [3, 4]),
        ("--task sentiment-analysis", [0, 1, 2, 3, 4]),
    ],
)
def test_what_is_listed_can_be_chosen(topics: DeadTopics, options: str, expected: list[int]) -> None:
    """By code, by the time of the record (with a zone, without one, as an age), by number, by an alias of the task."""
    codes = ["invalid_request", "unknown_model", "inference_failed", "out_of_memory", "unknown_model"]
    positions = topics.send(*(topics.letter(code, partition=number % 2) for number, code in enumerate(codes)))
    assert [each["position"] for each in topics.listed(*options.split())] == [positions[index] for index in expected]


def test_a_limit_is_told_and_the_counts_are_of_all(topics: DeadTopics) -> None:
    """Nobody takes the newest for all there are; of one millisecond the last ones are the newest."""
    positions = topics.send(*(topics.letter() | {"timestamp_ms": START} for _ in range(3)))
    done = topics.run("list", "--limit", "2")
    assert [line.split(" ")[2] for line in done.stdout.splitlines()] == positions[1:]
    assert done.stderr == "3 dead letters: inference_failed 3; the newest 2 are shown\n"


def test_a_long_topic_is_read_from_the_time_on(topics: DeadTopics) -> None:
    """The broker looks up where that is; a later record of an earlier time is left out, and none is missed."""
    topics.send(topics.letter(), topics.letter(), topics.letter())
    (late,) = topics.send(topics.letter())
    with contextlib.ExitStack() as opened:
        reader, ranges = open_reader(topics, opened, since=START + MINUTE)
        offsets = [each.record.offset for each in reader.letters(ranges, since=START + MINUTE)]
    assert [(each.start, each.end) for each in ranges] == [(1, 4), (0, 0)]
    assert (offsets, late) == ([1, 2], f"{topics.dead}-0-3")


@pytest.mark.kafka
def test_reading_ends_where_the_last_offset_is_no_record(real_kafka: RunningKafka) -> None:
    """Aborted transactions and the ends of transactions have offsets too; what was aborted is not seen."""
    topics = DeadTopics(real_kafka)
    letter = topics.letter() | {"topic": topics.dead, "partition": 0}
    with producer(real_kafka, transactional_id=topics.prefix) as sender:
        sender.init_transactions()
        for finish in (sender.commit_transaction, sender.abort_transaction):
            sender.begin_transaction()
            sender.send(**letter).get(timeout=30)
            finish()
    assert [each["position"] for each in topics.listed()] == [f"{topics.dead}-0-0"]
    with contextlib.ExitStack() as opened:
        _, ranges = open_reader(topics, opened)
    assert ranges[0].end == 4


def test_a_broker_that_no_longer_answers_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client itself would wait for ever, and say nothing."""

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    key, fetch = next((key, one) for key, one in api.APIS.items() if one.handle.__name__ == "fetch")
    with EmbeddedBroker() as broker, contextlib.ExitStack() as opened:
        topics = DeadTopics(RunningKafka(broker.bootstrap_servers))
        topics.send(topics.letter(), topics.letter(partition=1))
        reader, ranges = open_reader(topics, opened)
        letters = reader.letters(ranges)
        assert next(letters).position == (topics.dead, 0, 0)
        monkeypatch.setitem(api.APIS, key, fetch._replace(handle=never))
        monkeypatch.setattr("nlp_worker.record_ranges.ANSWER_SECONDS", 1.0)
        with pytest.raises(BrokerError, match=f"the broker did not send {topics.dead}-1-0 for 1 s"):
            next(letters)


def test_a_record_that_the_client_cannot_read_is_told_by_its_position() -> None:
    """A broken disk: the client would spin in its next poll for ever."""
    with EmbeddedBroker() as broker, contextlib.ExitStack() as opened:
        topics = DeadTopics(RunningKafka(broker.bootstrap_servers))
        topics.send(topics.letter(), topics.letter())
        batches = broker._cluster.topics.partition(topics.dead, 0)._batches
        batches[1] = batches[1]._replace(data=batches[1].data[:-1] + b"?")
        reader, ranges = open_reader(topics, opened)
        letters = reader.letters(ranges)
        assert next(letters).position == (topics.dead, 0, 0)
        with pytest.raises(TopicError, match=f"{topics.dead}-0-1 cannot be read: CorruptRecordError"):
            next(letters)


def open_reader(
    topics: DeadTopics, opened: contextlib.ExitStack, since: int | None = None
) -> tuple[Reader, list[Range]]:
    with contextlib.closing(connect(topics.settings)) as admin:
        found = find_topics(admin, topics.prefix, TASK)
    reader = opened.enter_context(contextlib.closing(Reader(topics.settings)))
    return reader, reader.ranges(found, since)


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"headers": []}, "nlp-dead-letter-code: Field required"),
    ({"headers": [("nlp-dead-letter-code", b"unheard_of")]}, "nlp-dead-letter-code: Input should be"),
    ({"headers": [("nlp-dead-letter-code", b"\xff")]}, "nlp-dead-letter-code: Input should be"),
    ({"headers": [(HeaderKey("\udcff"), b"")], "timestamp_ms": -(2**60)}, "nlp-dead-letter-code: Field required"),
]


def test_a_foreign_record_is_listed_and_shown_as_such_and_stays(topics: DeadTopics) -> None:
    """Anybody may write to the topic: headers that are missing, unheard of or not UTF-8, a time beyond the calendar."""
    foreign = [{"key": None, "value": SECRET.encode()} | record for record, _ in FOREIGN]
    positions = topics.send(topics.letter(), *foreign)
    listed = sorted(topics.listed(), key=lambda each: str(each["position"]))
    assert [each["position"] for each in listed] == positions
    for each, (_, problem) in zip(listed[1:], FOREIGN, strict=True):
        assert each["code"] is None
        assert problem in each["problem"]
    done = topics.run("list")
    assert done.stderr == "5 dead letters: not a dead letter 4, inference_failed 1\n"
    assert SECRET not in done.output
    assert "header \\udcff: " in topics.run("show", positions[4]).stdout
    done = topics.run("redrive", "--yes")
    assert (done.exit_code, len(topics.redriven(1))) == (0, 1)
    assert f"skipped {positions[1]}: not a dead letter" in done.stdout
    assert "4 skipped: not a dead letter 4" in done.stdout


def test_a_terminal_is_not_at_the_mercy_of_what_is_shown(topics: DeadTopics) -> None:
    """Escape sequences of a message, a header, a key or a value are shown, not obeyed."""
    clear = "\x1b[2J"
    everywhere: dict[str, Any] = {"key": clear.encode(), "value": clear.encode(), "headers": [(clear, clear.encode())]}
    (position,) = topics.send(topics.letter(message=clear, **everywhere))
    for done in topics.run("list"), topics.run("show", position):
        assert "\\x1b[2J" in done.stdout
        assert "\x1b" not in done.stdout


@pytest.mark.parametrize("by_task", [True, False])
def test_one_dead_letter_is_shown_whole(topics: DeadTopics, *, by_task: bool) -> None:
    """By its position as it is listed, or within its task: headers, key, and the value that nobody else prints."""
    value = json.dumps({"inputs": "grün\n" + "x" * 3_000}, ensure_ascii=False).encode()
    position = topics.send(topics.letter(), topics.letter(value=value, key=b"\xff", headers=ORIGINAL))[1]
    arguments = ["--task", str(TASK), "0:1"] if by_task else [position]
    shown = topics.run("show", *arguments).stdout
    lines = shown.splitlines()
    assert lines[0] == f"{position} of 2025-11-24T16:01:00Z, {TASK}"
    for line in (
        "header traceparent: 00-1",
        "header twice: \\xff\\x00",
        "header nlp-dead-letter-offset: 7",
        "key: \\xff",
    ):
        assert line in lines
    assert 'value: {"inputs": "grün\\nxxx' in shown
    assert lines[-1].endswith("x... (1,020 more: see them with --full)")
    assert value.decode() in topics.run("show", "--full", *arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{dead}-0-1"], "there is no dead letter at {dead}-0-1"),
        (["{requests}-0-0"], "{requests}-0-0 is in no partition of the dead letters that are meant: see --task"),
        (["0:0"], "0:0 is a position in one topic: say of which task with --task"),
        (["first"], "'first' is no position: it is TOPIC-PARTITION-OFFSET, or PARTITION:OFFSET"),
    ],
    ids=["beyond", "elsewhere", "without-task", "no-position"],
)
def test_a_position_without_a_dead_letter_is_told(topics: DeadTopics, arguments: list[str], told: str) -> None:
    """As a mistake of usage."""
    topics.send(topics.letter())
    names = {"dead": topics.dead, "requests": topics.requests}
    done = topics.run("show", *(argument.format(**names) for argument in arguments))
    assert (done.exit_code, done.stdout) == (ExitCode.USAGE, "")
    assert told.format(**names) in done.stderr


NER = "token-classification"
CREATE = "nlp-worker topics create --task"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ["--task", "ner"],
            f"topic {{prefix}}.{NER}.dead-letter does not exist: {CREATE} {NER} --topic-prefix {{prefix}}",
        ),
        (["--topic-prefix", "nobody"], "no topic nobody.<task>.dead-letter exists, or none may be seen"),
    ],
    ids=["task", "prefix"],
)
def test_a_missing_topic_is_told(topics: DeadTopics, options: list[str], told: str) -> None:
    """As `run` tells it, with the same exit code, and at once."""
    done = topics.run("list", *options)
    assert (done.exit_code, done.stderr) == (ExitCode.TOPICS, f"nlp-worker: {told.format(prefix=topics.prefix)}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ["list", "--bootstrap-servers", "127.0.0.1:1"],
            ExitCode.BROKER,
            "nothing listens there: see bootstrap_servers",
        ),
        (["list", "--topic-prefix", "no spaces"], ExitCode.USAGE, "topic_prefix"),
        (["list", "--config", "missing.toml"], ExitCode.USAGE, "missing.toml cannot be read"),
        (["list", "--since", "yesterday"], ExitCode.USAGE, "'yesterday' is neither a time such as"),
        (["list", "--task", "Ner"], ExitCode.USAGE, "'Ner' is no task: there is text-classification"),
        (["redrive"], ExitCode.USAGE, "nobody is there to confirm: say --yes, or --dry-run"),
    ],
    ids=["broker", "prefix", "config", "since", "task", "confirm"],
)
def test_what_cannot_be_used_ends_with_a_line_and_the_exit_code_of_run(
    arguments: list[str], code: ExitCode, told: str
) -> None:
    """A process of its own, with the environment's settings: the one line is all that it says."""
    environment = os.environ | {"NLP_WORKER_KAFKA__BOOTSTRAP_TIMEOUT_MS": "500"}
    command = [sys.executable, "-m", "nlp_worker", "dead-letters", *arguments]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=60
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr.splitlines()[-1]
