"""Labelled rows of a topic, on both brokers: what stands in it when the command begins, the last label of each id."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from kafka import TopicPartition

from clients import consumer, producer, unique
from nlp_schemas import TaskName
from nlp_schemas.labels import labels_topic
from nlp_worker.errors import BrokerError, ExitCode, TopicError
from nlp_worker.record_ranges import RangeReader
from nlp_worker.settings import load_settings
from nlp_worker.train_cli import train
from nlp_worker.training import labelled_set
from nlp_worker.training.examples import content_id
from nlp_worker.training.problems import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from apache_kafka import RunningKafka

TASK = TaskName.TEXT_CLASSIFICATION

#: Milliseconds since 1970: of the first record that is sent; each is a minute later than the one before.
START = 1_764_000_000_000
MINUTE = 60_000


class Labels:
    """A topic of labels with two partitions."""

    def __init__(self, broker: RunningKafka) -> None:
        self.broker = broker
        self.prefix = unique("labels")
        self.topic = labels_topic(TASK, self.prefix)
        # Its records have a time of long ago: half a minute after its start a broker deletes what is a week old.
        broker.create_topic(self.topic, 2, retention_ms=-1)

    def send(self, *values: Any, partition: int = 0, sender: Any = None, **options: Any) -> None:
        """Send values, as JSON but for bytes and None, and wait until they are there."""
        if sender is None:
            with producer(self.broker) as own:
                self.send(*values, partition=partition, sender=own, **options)
            return
        minute = options.pop("minute", 0)
        for number, value in enumerate(values):
            content = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
            time = START + (minute + number) * MINUTE
            sender.send(self.topic, content, partition=partition, timestamp_ms=time, **options).get(timeout=30)

    def read(self, topic: str = "", **settings: Any) -> labelled_set.LabelledSet:
        servers = {"bootstrap_servers": self.broker.bootstrap_servers, **settings}
        found = labelled_set.read(load_settings(servers), topic or self.topic, TASK, columns={}, labels=())
        assert found is not None
        return found

    def labels(self) -> dict[str, str]:
        """Return each id's label, in the order of the rows."""
        found = self.read()
        assert found.problems == []
        return {one.id: one.expected for one in found.examples}

    def train(self, folder: Path, *arguments: str) -> Any:
        """Begin a training in this process, with a base that is not there."""
        options = ["--bootstrap-servers", self.broker.bootstrap_servers, "--device", "cpu"]
        paths = ["--base", str(folder / "no-base"), "--out", str(folder / "out")]
        return CliRunner().invoke(train, [TASK, *options, *paths, *arguments])


@pytest.fixture
def labels(kafka_broker: RunningKafka) -> Labels:
    return Labels(kafka_broker)


def label(identity: str, name: str = "good") -> dict[str, Any]:
    return {"id": identity, "inputs": f"day {identity}", "label": name}


def test_a_topic_is_read_from_its_beginning(labels: Labels) -> None:
    """All partitions, in the order of time; columns as in a file, and without an id a record is itself."""
    labels.send(label("a"), {"text": "a day", "label": 1}, partition=1)
    labels.send(label("b"), minute=1)
    labels.send(label("c", "bad"), minute=-1)
    found = labels.read()
    assert (found.source, found.problems, found.replaced) == (labels.topic, [], 0)
    assert [(one.place, one.id, one.expected) for one in found.examples] == [
        (f"{labels.topic}-1-0", "a", "good"),
        (f"{labels.topic}-0-0", "b", "good"),
        (f"{labels.topic}-0-1", "c", "bad"),
        (f"{labels.topic}-1-1", f"{labels.topic}-1-1", "1"),
    ]


def test_nobody_sees_that_a_topic_was_read(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read without a group, so again from the beginning; an empty one has no rows."""
    assert labels.read().examples == []
    labels.send(label("a"))
    groups: list[str | None] = []
    close = RangeReader.close

    def see_the_group(reader: RangeReader) -> None:
        groups.append(reader._client.config["group_id"])
        close(reader)

    monkeypatch.setattr(RangeReader, "close", see_the_group)
    assert labels.labels() == labels.labels() == {"a": "good"}
    assert groups == [None, None]


def test_what_comes_meanwhile_waits_for_the_next_time(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is where it was when the command began, in every partition: else a busy topic would never end."""
    labels.send(label("a"))
    offsets = RangeReader.offsets

    def then_come_more(reader: RangeReader, *arguments: Any) -> Any:
        found = offsets(reader, *arguments)
        labels.send(label("a", "bad"), None, key=b"a")
        labels.send(label("b"), partition=1)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(RangeReader, "offsets", then_come_more)
        assert labels.labels() == {"a": "good"}
    assert labels.labels() == {"b": "good"}


def test_a_producer_that_never_stops_does_not_stop_the_reading(labels: Labels) -> None:
    """It writes all the time; what is read is what was there at some moment, without a gap."""
    stop, wrote = threading.Event(), threading.Event()

    def write() -> None:
        with producer(labels.broker) as sender:
            number = 0
            while not stop.is_set():
                labels.send(label(f"{number:09}"), sender=sender, minute=number)
                number += 1
                if number > 10:
                    wrote.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert wrote.wait(60)
        counts = [len(labels.labels()) for _ in range(3)]
    finally:
        stop.set()
        thread.join(60)
    assert 10 < counts[0] < counts[1] < counts[2]
    assert list(labels.labels()) == [f"{number:09}" for number in range(len(labels.labels()))]


def test_the_later_label_of_an_id_counts(labels: Labels) -> None:
    """Within a partition by the offset, whatever its producers' clocks say; across partitions by the time."""
    labels.send(label("a", "bad"), label("b", "bad"), label("c", "bad"))
    labels.send(label("a"), minute=-5)
    labels.send(label("b"), partition=1, minute=9)
    labels.send(label("c"), partition=1, minute=-9)
    found = labels.read()
    # The last record of a partition is later than what stands before it, and c was sent there before.
    assert {one.id: one.expected for one in found.examples} == {"a": "good", "b": "good", "c": "good"}
    assert found.replaced == 3


def test_an_older_label_of_another_partition_does_not_count(labels: Labels) -> None:
    """As when two people label the same text, and the partition that is read last has the older label."""
    labels.send(label("a", "new"), partition=0, minute=2)
    labels.send(label("a", "old"), partition=1, minute=1)
    assert labels.labels() == {"a": "new"}
    labels.send(label("a", "newest"), partition=1, minute=3)
    assert labels.labels() == {"a": "newest"}


def test_a_record_without_a_value_takes_a_label_back(labels: Labels) -> None:
    """Of the id that is its key; one of an id that nobody knows takes nothing back, and a later label is one again."""
    labels.send(label("a"), label("b"), label("c"))
    labels.send(None, key=b"a", minute=5, partition=1)
    labels.send(None, key=b"b", minute=5)
    labels.send(None, key=b"unknown", minute=6)
    labels.send(None, key=b"\xff", minute=6)
    labels.send(label("b", "bad"), minute=7)
    found = labels.read()
    assert {one.id: one.expected for one in found.examples} == {"c": "good", "b": "bad"}
    assert (found.problems, found.replaced) == ([], 2)


UNREADABLE: list[tuple[bytes, str]] = [
    (b"", "it is not JSON: Expecting value"),
    (b"{", "it is not JSON: Expecting property name enclosed in double quotes"),
    (b'{"text": "gr\xfcn"}', "it is not JSON: 'utf-8' codec can't decode"),
    (b"[1]", "it is no JSON object"),
    (b"null", "it is no JSON object"),
    (b"[" * 100_000, "it is not JSON: maximum recursion depth"),
    (b"\x00\x00\x00\x01\x02", "it is not JSON: "),
]


def test_what_cannot_be_read_is_told_by_its_position(labels: Labels) -> None:
    """Anybody may write to the topic; what else stands there is read."""
    labels.send(*(value for value, _ in UNREADABLE), {"id": "x", "text": "a day"}, label("a"), partition=1)
    found = labels.read()
    assert [one.id for one in found.examples] == ["a"]
    assert [problem.place for problem in found.problems] == [f"{labels.topic}-1-{offset}" for offset in range(8)]
    assert [problem.kind for problem in found.problems] == [Kind.UNREADABLE] * 7 + [Kind.NO_LABEL]
    for problem, (_, told) in zip(found.problems, UNREADABLE, strict=False):
        assert problem.told.startswith(told)


def test_a_record_that_is_wrong_can_be_mended(labels: Labels) -> None:
    """Nobody can change it: a later one of its id takes its place, or takes it back, also by its position."""
    labels.send(label("a") | {"label": None}, label("b") | {"label": 1.5}, b"{")
    assert len(labels.read().problems) == 3
    labels.send(label("a"), minute=5)
    labels.send(None, key=b"b", minute=5)
    labels.send(None, key=f"{labels.topic}-0-2".encode(), minute=5)
    found = labels.read()
    assert ([one.id for one in found.examples], found.problems, found.replaced) == (["a"], [], 3)


@pytest.mark.kafka
def test_labels_that_were_aborted_are_not_read(real_kafka: RunningKafka) -> None:
    """And reading ends where the last offset is no record, but a transaction's end."""
    labels = Labels(real_kafka)
    with producer(real_kafka, transactional_id=labels.prefix) as sender:
        sender.init_transactions()
        for name, finish in (
            ("kept", sender.commit_transaction),
            ("dropped", sender.abort_transaction),
            ("last", sender.commit_transaction),
            ("gone", sender.abort_transaction),
        ):
            sender.begin_transaction()
            labels.send(label("a", name), label(name), sender=sender)
            finish()
    assert labels.labels() == {"kept": "good", "a": "last", "last": "good"}
    partition = TopicPartition(labels.topic, 0)
    with consumer(real_kafka) as reader:
        assert reader.end_offsets([partition]) == {partition: 12}


def test_a_missing_topic_is_told(labels: Labels, tmp_path: Path) -> None:
    """With the exit code of `run`, and nothing is begun."""
    missing = f"{labels.prefix}.missing.labels"
    with pytest.raises(TopicError, match=f"{missing} does not exist"):
        labels.read(missing)
    done = labels.train(tmp_path, "--data", missing)
    assert (done.exit_code, list(tmp_path.iterdir())) == (ExitCode.TOPICS, [])
    assert done.stderr.startswith(f"nlp-worker: topic {missing} does not exist")


def test_a_broker_that_cannot_be_reached_is_told(
    labels: Labels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exit code of `run`, and nothing is begun."""
    monkeypatch.setenv("NLP_WORKER_KAFKA__BOOTSTRAP_TIMEOUT_MS", "500")
    with pytest.raises(BrokerError, match="nothing listens there"):
        labels.read(bootstrap_servers="127.0.0.1:1")
    done = labels.train(tmp_path, "--bootstrap-servers", "127.0.0.1:1", "--data", labels.topic)
    assert (done.exit_code, list(tmp_path.iterdir())) == (ExitCode.BROKER, [])
    assert "nothing listens there: see bootstrap_servers" in done.stderr


def test_a_topic_is_looked_over_before_anything_is_trained(labels: Labels, tmp_path: Path) -> None:
    """By the positions of its records; the base is not looked for, unless bad rows may be left out."""
    labels.send(*(label(f"{number}", ("bad", "good")[number % 2]) for number in range(20)), b"{")
    done = labels.train(tmp_path, "--data", labels.topic)
    assert (done.exit_code, list(tmp_path.iterdir())) == (ExitCode.USAGE, [])
    assert done.stderr.splitlines() == [
        f"{labels.topic}: 20 rows",
        f"cannot be read (it is not JSON: Expecting property name enclosed in double quotes): {labels.topic}-0-20",
        "nlp-worker: 1 row cannot be used: mend it, or leave it out with --skip-bad",
    ]
    done = labels.train(tmp_path, "--data", labels.topic, "--skip-bad")
    assert done.exit_code == ExitCode.CHECKPOINT
    assert "1 row left out: cannot be read 1" in done.stderr.splitlines()


def test_a_text_has_one_id_in_a_file_and_another_in_a_topic(labels: Labels) -> None:
    """Two records may ask the same, of two people: a record's own id keeps both, and the split finds them."""
    labels.send({"text": "a day", "label": "good"}, {"text": "a day", "label": "bad"})
    found = labels.read().examples
    assert [one.expected for one in found] == ["good", "bad"]
    assert {content_id(one.inputs) for one in found} == {content_id("a day")}
    assert labelled_set.leaked(found[:1], found[1:])[0].place == f"{labels.topic}-0-0"
