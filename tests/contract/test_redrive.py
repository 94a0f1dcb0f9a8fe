"""`nlp-worker dead-letters redrive` on both brokers: what goes back, and what does not."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from clients import rd_producer, wait_for
from dead_topics import ORIGINAL, SECRET, TASK, DeadTopics
from nlp_schemas import ErrorCode, TaskName, ValueOmitted
from nlp_worker import connection
from nlp_worker.connection import DEFAULT_MAX_MESSAGE_BYTES, connect
from nlp_worker.dead_letters import Reader, find_requests, find_topics
from nlp_worker.errors import ExitCode
from nlp_worker.redrive import COUNT_HEADER, WORTH_REPEATING, Judge, Redriven, Sender, redrive

if TYPE_CHECKING:
    from apache_kafka import RunningKafka


@pytest.fixture
def topics(kafka_broker: RunningKafka) -> DeadTopics:
    return DeadTopics(kafka_broker)


def test_a_redriven_request_is_the_original_one(topics: DeadTopics) -> None:
    """Bytes, key and headers, in its own partition and in order; only the count is added. The dead letters stay."""
    values = [SECRET.encode(), b"\xff\x00", None, b""]
    keys = [b"k", None, b"\xff", b"k"]
    topics.send(*(topics.letter(key=keys[index], value=values[index], headers=ORIGINAL) for index in range(4)))
    done = topics.run("redrive", "--yes")
    assert (done.exit_code, done.stdout.splitlines()[-2]) == (0, "4 sent back: inference_failed 4")
    records = topics.redriven(4)
    assert [each.key for each in records] == keys
    assert [each.value for each in records] == values
    assert {each.partition for each in records} == {1}
    assert [each.headers for each in records] == [[*ORIGINAL, (COUNT_HEADER, b"1")]] * 4
    assert len(topics.listed()) == 4


def test_a_partition_that_is_gone_is_no_obstacle(topics: DeadTopics) -> None:
    """A topic that was made anew with fewer partitions: the key says to which of them."""
    topics.send(topics.letter(original_partition=5))
    assert topics.run("redrive", "--yes").exit_code == 0
    topics.redriven(1)


def test_what_fails_again_and_again_is_redriven_three_times(topics: DeadTopics) -> None:
    """The count goes with the request, so its next dead letter has it; one that is no number counts as too often."""
    counts = [b"1", b"2", b"3", b"many", b"9" * 5_000]
    positions = topics.send(*(topics.letter(headers=[(COUNT_HEADER, count)]) for count in counts))
    done = topics.run("redrive", "--yes")
    assert [each.headers for each in topics.redriven(2)] == [[(COUNT_HEADER, b"2")], [(COUNT_HEADER, b"3")]]
    assert [f"skipped {each} of {topics.requests}-1-7: redriven too often" for each in positions[2:]] == (
        done.stdout.splitlines()[:3]
    )
    assert "1 skipped" not in topics.run("redrive", "--dry-run", "--max-redrives", "4").stdout
    assert topics.run("redrive", "--yes", "--max-redrives", "1").exit_code == 0
    topics.redriven(2)


def test_only_what_may_end_otherwise_is_redriven_unless_it_is_named(topics: DeadTopics) -> None:
    """A request that is wrong stays wrong, but the operator may know better."""
    topics.send(*(topics.letter(code) for code in ErrorCode))
    done = topics.run("redrive", "--yes")
    assert len(topics.redriven(5)) == len(WORTH_REPEATING) == 5
    for code in set(ErrorCode) - WORTH_REPEATING:
        assert f"code not chosen ({code}) 1" in done.stdout
    assert topics.run("redrive", "--yes", "--code", "invalid_request").exit_code == 0
    topics.redriven(6)


def test_a_dry_run_sends_nothing_and_says_what_would_be_sent(topics: DeadTopics) -> None:
    """By code, with what is skipped and why; time filters and a start count here too."""
    positions = topics.send(
        topics.letter(), topics.letter("out_of_memory"), topics.letter("invalid_request"), topics.letter()
    )
    done = topics.run("redrive", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "3 to send back: inference_failed 2, out_of_memory 1",
        "1 skipped: code not chosen (invalid_request) 1",
    ]
    for options in ["--from", positions[1]], ["--since", "2025-11-24T16:01"], ["--task", str(TASK), "--from", "0:1"]:
        assert topics.run("redrive", "--dry-run", *options).stdout.startswith("2 to send back")
    assert topics.run("redrive", "--dry-run", "--from", f"{topics.dead}-1-0").stdout.startswith("0 to send back")
    topics.redriven(0)


def test_what_cannot_be_sent_back_is_skipped_with_its_reason(kafka_broker: RunningKafka) -> None:
    """Values that were left out, a foreign topic, neither key nor value, and what the requests topic does not take."""
    topics = DeadTopics(kafka_broker, max_message_bytes=2_000)
    positions = topics.send(
        topics.letter(value=None, value_omitted=ValueOmitted.TOO_LARGE),
        topics.letter(key=None, value=b"", value_omitted=ValueOmitted.NULL),
        topics.letter(topic="payments"),
        topics.letter(value=b"x" * 3_000),
        topics.letter(),
    )
    done = topics.run("redrive", "--yes")
    original = f"{topics.requests}-1-7"
    assert done.stdout.splitlines()[:4] == [
        f"skipped {positions[0]} of {original}: its value is not in it",
        f"skipped {positions[1]} of {original}: its value is not in it",
        f"skipped {positions[2]} of payments-1-7: not from the requests topic of its task",
        f"skipped {positions[3]} of {original}: larger than the requests topic accepts",
    ]
    assert (done.exit_code, len(topics.redriven(1))) == (0, 1)


def test_what_only_other_clients_write_is_no_obstacle(kafka_broker: RunningKafka) -> None:
    """kafka-python sends no record with neither key nor value, which is skipped, and no header without a value."""
    topics = DeadTopics(kafka_broker)
    headers = [("traceparent", None), *topics.letter()["headers"], ("nlp-dead-letter-model", None)]
    sender = rd_producer(kafka_broker)
    sender.produce(topics.dead, headers=headers)
    sender.produce(topics.dead, key=b"k", headers=headers)
    assert sender.flush(30) == 0
    done = topics.run("redrive", "--yes")
    assert "1 skipped: neither key nor value, which kafka-python does not send 1" in done.stdout
    assert [each.headers for each in topics.redriven(1)] == [[("traceparent", b""), (COUNT_HEADER, b"1")]]


def test_what_fails_again_meanwhile_is_left_for_the_next_redrive(topics: DeadTopics) -> None:
    """The end is what it was at the start: a worker that fails at once does not keep the redrive going for ever."""
    topics.send(topics.letter(), topics.letter())
    with contextlib.ExitStack() as opened:
        admin = opened.enter_context(contextlib.closing(connect(topics.settings)))
        found = find_topics(admin, topics.prefix, TASK)
        requests = find_requests(admin, topics.prefix, [TASK])
        reader = opened.enter_context(contextlib.closing(Reader(topics.settings)))
        sender = opened.enter_context(contextlib.closing(Sender(topics.settings, requests.values())))

        def send_and_fail_again(message: Redriven) -> Any:
            topics.send(topics.letter())
            return sender.send(message)

        judge, ranges = Judge(requests, WORTH_REPEATING, 3), reader.ranges(found)
        topics.send(topics.letter())
        outcomes = list(redrive(reader.letters(ranges), judge, send_and_fail_again, 10))
    assert len(outcomes) == len(topics.redriven(2))
    assert len(topics.listed()) == 5


def test_a_failed_send_ends_the_redrive_and_says_where_to_go_on(
    kafka_broker: RunningKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker refuses the third (its limit may not be read here): two are sent, and the next run does the rest."""
    small = DeadTopics(kafka_broker, max_message_bytes=2_000)
    positions = small.send(*(small.letter(value=b"x" * size) for size in (1, 2, 5_000, 3)))
    with monkeypatch.context() as unreadable:
        unreadable.setattr(
            connection, "max_message_bytes", lambda _, names: dict.fromkeys(names, DEFAULT_MAX_MESSAGE_BYTES)
        )
        done = small.run("redrive", "--yes", "--rate", "10")
    on = f"--from {small.dead}-0-2"
    assert done.exit_code == ExitCode.PUBLISH
    assert f"2 of 4 sent back: inference_failed 2; go on with {on}" in done.stderr
    assert f"{positions[2]} cannot be sent back: " in done.stderr
    assert len(small.redriven(2)) == 2
    assert small.run("redrive", "--yes", *on.split()).stdout.splitlines()[-2] == "1 sent back: inference_failed 1"
    assert [each.value for each in small.redriven(3)] == [b"x", b"xx", b"xxx"]


def test_all_tasks_are_meant_where_none_is_named(kafka_broker: RunningKafka) -> None:
    """Those that have the topic; each request goes back to its own task."""
    first = DeadTopics(kafka_broker)
    second = DeadTopics(kafka_broker, TaskName.FILL_MASK, first.prefix)
    first.send(first.letter())
    second.send(second.letter(value=b"mask"))
    assert {each["task"] for each in first.listed()} == {TASK, TaskName.FILL_MASK}
    assert [each["task"] for each in first.listed("--task", "fill-mask")] == [TaskName.FILL_MASK]
    assert first.run("redrive", "--yes").exit_code == 0
    assert [each.value for each in first.redriven(1) + second.redriven(1)] == [SECRET.encode(), b"mask"]


def test_a_missing_requests_topic_is_told_before_anything_is_sent(kafka_broker: RunningKafka) -> None:
    """Whoever deleted it must make it again."""
    topics = DeadTopics(kafka_broker)
    kafka_broker.create_topic(f"{topics.prefix}.fill-mask.dead-letter", 1)
    topics.send(topics.letter())
    done = topics.run("redrive", "--yes")
    assert (done.exit_code, f"{topics.prefix}.fill-mask.requests does not exist" in done.stderr) == (4, True)
    topics.redriven(0)


def test_an_interrupted_redrive_says_where_to_go_on(embedded_kafka: RunningKafka) -> None:
    """Ctrl-C: what is not acknowledged by then is sent by the next run, with nothing left out."""
    topics = DeadTopics(embedded_kafka)
    topics.send(*(topics.letter(value=b"%d" % number) for number in range(20)))
    options = ["--bootstrap-servers", embedded_kafka.bootstrap_servers, "--topic-prefix", topics.prefix]
    command = [sys.executable, "-m", "nlp_worker", "dead-letters", "redrive", "--yes", "--rate", "1", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: topics.count() > 0)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 1
    on = re.search(r"(\d+) of 20 sent back(?:: inference_failed \d+)?; go on with (the same command|--from \S+)", told)
    assert on is not None, told
    start = on[2].split() if on[2].startswith("--from") else []
    assert topics.run("redrive", "--yes", "--rate", "1000", *start).exit_code == 0
    assert {int(each.value) for each in topics.redriven(topics.count())} == set(range(20))


@pytest.mark.parametrize(("answer", "sent"), [("n", 0), ("y", 1)])
def test_on_a_terminal_the_operator_is_asked(embedded_kafka: RunningKafka, answer: str, sent: int) -> None:
    """After the counts, and nothing is sent before the answer."""
    topics = DeadTopics(embedded_kafka)
    topics.send(topics.letter())
    terminal, slave = pty.openpty()
    options = ["--bootstrap-servers", embedded_kafka.bootstrap_servers, "--topic-prefix", topics.prefix]
    command = [sys.executable, "-m", "nlp_worker", "dead-letters", "redrive", *options]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while b"Send them back? [y/N]" not in shown:
            shown += os.read(terminal, 1_000)
        assert b"1 to send back: inference_failed 1" in shown
        topics.redriven(0)
        os.write(terminal, f"{answer}\n".encode())
        with contextlib.suppress(OSError):  # how a terminal whose other end is closed ends
            while os.read(terminal, 1_000):
                pass
        assert process.wait(30) == 1 - sent
    os.close(terminal)
    topics.redriven(sent)
