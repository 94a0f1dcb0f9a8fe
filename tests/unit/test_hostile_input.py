"""Hostile records: whatever a producer sends costs it one answer, and nobody else anything."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from fakes import Bench, FakeRecord
from nlp_schemas import (
    HEADER_PREFIX,
    MAX_TEXT_CHARACTERS,
    REQUESTS,
    RESULT,
    RESULTS,
    DeadLetter,
    ErrorCode,
    Model,
    Request,
    TaskName,
    dead_letter_topic,
    requests_topic,
)
from nlp_worker.intake import Intake
from nlp_worker.poll import Partition, Row
from nlp_worker.record_headers import HeaderKey, accept_any_key
from nlp_worker.tasks.base import Finished, Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.errors import RequestError
    from nlp_worker.poll import Message

TASKS: Final = list(TaskName)
GENERATING: Final = {TaskName.SUMMARIZATION, TaskName.TRANSLATION, TaskName.TEXT_GENERATION}

#: A request of each task that is answered, for the fuzzer to spoil.
INPUTS: Final[dict[TaskName, Any]] = {
    **dict.fromkeys(TASKS, "a text"),
    TaskName.QUESTION_ANSWERING: {"question": "Who?", "context": "Ann."},
    TaskName.MULTIPLE_CHOICE: {"prompt": "It", "choices": ["rains", "snows"]},
}
PARAMETERS: Final[dict[TaskName, Any]] = {
    **{task: {} for task in TASKS},
    TaskName.ZERO_SHOT_CLASSIFICATION: {"candidate_labels": ["good", "bad"]},
}

#: What a field of any type should not be, some of it too much to be drawn character by character.
HOSTILE: Final[list[Any]] = [
    None, True, -1, 0, 2**31, 2**63, 10**400, -(10**400), 1e308, 5e-324, float("nan"), float("inf"), -float("inf"),
    "", " ", "\x00", "\ud800", "\udfff\ud800", "\u202e\ufeff", "{}", "{0.__class__}", "%s" * 50, ",", "a,b",
    "/etc/passwd", "../" * 20, "http://localhost/", "x" * (MAX_TEXT_CHARACTERS + 1), "🙂" * MAX_TEXT_CHARACTERS,
    [], {}, ["a"] * 10_001, [None] * 10_001, [[]] * 1_001, [{}] * 1_001, [{"role": "user", "content": "x"}] * 1_001,
    {str(number): number for number in range(10_001)},
]  # fmt: skip

JSON: Final = st.recursive(
    st.sampled_from(HOSTILE) | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=9), inner, max_size=4)
    ),
    max_leaves=6,
)


def parameter_names(task: TaskName) -> list[str]:
    model: Any = REQUESTS[task].model_fields["parameters"].annotation
    return list(model.model_fields)


@st.composite
def spoilt(draw: st.DrawFn, task: TaskName) -> bytes:
    """Draw a request of the task, with some of its fields replaced, and perhaps its bytes damaged."""
    request: dict[str, Any] = {"inputs": INPUTS[task], "parameters": dict(PARAMETERS[task])}
    for name in draw(
        st.lists(st.sampled_from(["id", "task", "model", "timeout_ms", "inputs", "parameters", "x"]), max_size=2)
    ):
        request[name] = draw(JSON)
    for place, names in (
        ("parameters", [*parameter_names(task), "x"]),
        ("inputs", ["text", "context", "choices", "x"]),
    ):
        if isinstance(request[place], dict):
            spoiled = draw(st.lists(st.sampled_from(names), max_size=2))
            request[place] = request[place] | {name: draw(JSON) for name in spoiled}
    value = json.dumps(request, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    match draw(st.sampled_from(["whole", "whole", "cut", "twice", "deep", "bytes"])):
        case "cut":
            return value[: draw(st.integers(0, min(len(value), 200)))]
        case "twice":  # a name that appears twice
            return value[:-1] + b', "inputs": ' + json.dumps(draw(st.sampled_from(HOSTILE))).encode() + b"}"
        case "deep":
            depth = draw(st.sampled_from([10, 150, 250, 100_000]))
            return value[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"
        case "bytes":
            at = draw(st.integers(0, min(len(value), 200)))
            return value[:at] + draw(st.binary(min_size=1, max_size=3)) + value[at:]
    return value


HEADER_NAMES: Final = st.sampled_from(
    ["traceparent", "kafka_correlationId", "", "x", *(HEADER_PREFIX + n for n in ("code", "value-omitted", "x", ""))]
) | st.binary(max_size=9).map(lambda name: HeaderKey(name.decode(errors="surrogateescape")))
HEADERS: Final = st.lists(st.tuples(HEADER_NAMES, st.none() | st.binary(max_size=9)), max_size=4)


@st.composite
def records(draw: st.DrawFn) -> FakeRecord:
    task = draw(st.sampled_from(TASKS))
    value = draw(st.none() | st.binary(max_size=50) | spoilt(task) | spoilt(task) | spoilt(task))
    key = draw(st.none() | st.binary(max_size=20))
    timestamp = draw(st.sampled_from([-1, 0, 1_000_000, 2**63 - 1]))
    return FakeRecord(requests_topic(task), 0, 0, timestamp, key, value, draw(HEADERS))


class AnyTask:
    """Answers each request with the least that an answer can be."""

    max_batch_tokens = None
    packs = False

    def __init__(self, name: TaskName) -> None:
        self.name = name
        self.result = RESULTS[name]
        self.model = Model(name="any", checkpoint="fake/checkpoint", revision="sha256:0")

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        return [Prepared([Row({"input_ids": [1]})]) for _ in requests]

    def collate(self, batch: Batch) -> Sequence[Row]:
        return batch.rows

    def forward(self, inputs: Sequence[Row]) -> Sequence[Row]:
        return inputs

    def postprocess(self, request: Request, rows: Sequence[Row]) -> Finished:
        del request, rows
        nothing = {"sequence": "", "labels": [], "scores": []}
        outputs = nothing if self.name is TaskName.ZERO_SHOT_CLASSIFICATION else []
        return Finished(outputs, 0, []) if self.name in GENERATING else Finished(outputs)

    def warm_up_rows(self) -> list[Row]:
        return []


class AllTasks(Bench):
    """A worker on fakes that serves every task."""

    def __init__(self) -> None:
        super().__init__()
        topics = {requests_topic(task): task for task in TASKS}
        self.kafka.logs = {Partition(topic, 0): [] for topic in topics}
        self.kafka.committed = dict.fromkeys(self.kafka.logs, 0)
        self.consumer.positions = dict(self.kafka.committed)
        intake = Intake(topics, {task: {"any": AnyTask(task)} for task in TASKS}, self.clock)
        self.worker._intake = self.worker._waiting._intake = intake

    def answer(self, records: Sequence[FakeRecord]) -> list[FakeRecord]:
        """Answer and commit records; return them with the offsets that they got."""
        sent = []
        for record in records:
            log = self.kafka.logs[Partition(record.topic, 0)]
            sent.append(record._replace(offset=len(log)))
            log.append(sent[-1])
        # Each record may have to wait for those before it; then the worker is stuck.
        for _ in range(4 * len(records) + 4):
            self.worker.run_once()
        assert self.kafka.committed == {partition: len(log) for partition, log in self.kafka.logs.items()}
        return sent


@settings(derandomize=True, deadline=None, database=None, max_examples=200)
@given(st.lists(records(), min_size=1, max_size=6))
def test_whatever_a_record_has_it_gets_one_answer(drawn: list[FakeRecord]) -> None:
    """Values, keys, headers and timestamps: no step of the loop raises, and all is committed.

    Each record has exactly one answer that reads by the contract, and if that is an error, but for a deadline, a dead
    letter with its bytes and the reason. All of it is what kafka-python can send, and reads the same behind it.
    """
    bench = AllTasks()
    sent = bench.answer(drawn)
    letters = {position(letter): letter for letter in bench.publisher.messages if letter.topic.endswith("dead-letter")}
    answers = [m for m in bench.publisher.messages if m.topic.endswith("results")]
    of_record = {(source.topic, source.offset): (answer, message) for answer, source, message in map(read, answers)}
    assert len(of_record) == len(answers) == len(sent)
    failed = 0
    for record in sent:
        answer, message = of_record[record.topic, record.offset]
        assert message.key == record.key
        if answer.status == "error" and answer.error.code is not ErrorCode.DEADLINE_EXCEEDED:
            failed += 1
            letter = letters[record.topic, record.offset]
            assert DeadLetter.from_headers(letter.headers).code == answer.error.code
            assert letter.topic == dead_letter_topic(answer.task)
            no_content = b"" if record.key is None else None
            assert (letter.key, letter.value) == (record.key, no_content if record.value is None else record.value)
            assert letter.headers[: len(record.headers)] == [(name, value or b"") for name, value in record.headers]
    assert len(letters) == failed
    assert over_the_wire(bench.publisher.messages) == [
        (m.key, m.value, raw(m.headers)) for m in bench.publisher.messages
    ]


def read(message: Message) -> tuple[Any, Any, Message]:
    answer = RESULT.validate_json(message.value or b"")
    return answer, answer.source, message


def position(letter: Message) -> tuple[str, int]:
    reason = DeadLetter.from_headers(letter.headers)
    return reason.topic, reason.offset


def over_the_wire(messages: Sequence[Message]) -> list[tuple[Any, Any, Any]]:
    """Return key, value and headers of each message as kafka-python reads what it wrote of them."""
    accept_any_key()
    builder = MemoryRecordsBuilder(2, 0, 1_000_000_000)
    for message in messages:
        builder.append(0, message.key, message.value, message.headers)
    builder.close()
    read_records = [record for batch in MemoryRecords(bytes(builder.buffer())) for record in batch]
    return [(r.key, r.value, raw(r.headers)) for r in read_records]


def raw(headers: Sequence[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers with the keys' own bytes, by the way of Python's that `HeaderKey` does not change."""
    return [(str.encode(name, "utf-8", "surrogateescape"), value) for name, value in headers]


def test_forged_headers_do_not_speak_for_the_worker() -> None:
    """A record may have a dead letter's headers, old or invented ones: the worker's own come last, and count."""
    bench = AllTasks()
    forged = [(HEADER_PREFIX + name, value) for name, value in (("code", b"\xff"), ("value-omitted", b"null"))]
    bench.answer([FakeRecord(requests_topic(TaskName.FILL_MASK), 0, 0, 0, b"k", b"{", forged)])
    (letter,) = (m for m in bench.publisher.messages if m.topic.endswith("dead-letter"))
    reason = DeadLetter.from_headers(letter.headers)
    assert (letter.headers[:2], reason.code, reason.value_omitted) == (forged, ErrorCode.INVALID_REQUEST, None)


_OPENED: Final[list[str]] = []
_WATCHING: Final[list[bool]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHING and event.partition(".")[0] in {
        "open",
        "os",
        "shutil",
        "socket",
        "subprocess",
        "glob",
        "pickle",
        "import",
    }:
        _OPENED.append(f"{event} {arguments}")


def test_nothing_in_a_request_reaches_the_file_system() -> None:
    """Paths and addresses in every field, in keys and headers: nothing is opened, imported or connected to."""
    paths = [
        "/etc/passwd",
        "../../etc/passwd",
        "~/.ssh/id_rsa",
        "http://localhost/",
        "os",
        "\\\\host\\share",
        "file:///etc/passwd",
    ]
    requests = [
        FakeRecord(
            requests_topic(task), 0, 0, 0, path.encode(), json.dumps(request | {name: path}).encode(), [(path, b"")]
        )
        for task in TASKS
        for request in [{"inputs": INPUTS[task], "parameters": PARAMETERS[task]}]
        for name in ("model", "id", "inputs", "task")
        for path in paths
    ]
    AllTasks().answer(requests)  # what is imported late is imported now
    bench = AllTasks()
    sys.addaudithook(_watch)  # it can never be taken away, only told not to watch
    _WATCHING.append(True)
    try:
        bench.answer(requests)
    finally:
        _WATCHING.clear()
    assert (_OPENED, len(bench.publisher.answers()) > 0) == ([], True)
