"""The loop on fakes: what is answered, what is committed, and when."""

import pytest

from fakes import REQUESTS, Bench
from nlp_schemas import DeadLetter, ErrorCode
from nlp_worker.errors import DeviceLostError, PublishError
from nlp_worker.loop import LONG_POLL_MS
from nlp_worker.parts import Limits
from nlp_worker.poll import Committed, LimitChanged, Partition

P0, P1 = Partition(REQUESTS, 0), Partition(REQUESTS, 1)


def test_an_answer_is_published_before_its_request_is_committed() -> None:
    """At least once: while the device computes, and while publishing fails, nothing is committed."""
    bench = Bench(at_once=False)
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.worker.run_once()
    assert bench.kafka.committed[P0] == 0
    bench.executor.run_next()
    bench.publisher.failures = [PublishError("broker is away")]
    with pytest.raises(PublishError):
        bench.worker.run_once()
    assert bench.kafka.committed[P0] == 0
    bench.worker.run_once()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a"]
    assert bench.kafka.committed[P0] == 1


@pytest.mark.parametrize(
    ("bad", "code", "stage"),
    [
        (b"\xff\xfe", ErrorCode.INVALID_REQUEST, "decode"),
        (b"{", ErrorCode.INVALID_REQUEST, "decode"),
        (None, ErrorCode.INVALID_REQUEST, "decode"),
        ({"inputs": 5}, ErrorCode.INVALID_REQUEST, "decode"),
        ({"inputs": "x", "model": "other"}, ErrorCode.UNKNOWN_MODEL, "decode"),
        ({"inputs": "too long"}, ErrorCode.INPUT_TOO_LONG, "preprocess"),
        ({"inputs": "fail in preprocess"}, ErrorCode.INFERENCE_FAILED, "preprocess"),
        ({"inputs": "fail in forward"}, ErrorCode.INFERENCE_FAILED, "forward"),
        ({"inputs": "fail in postprocess"}, ErrorCode.INFERENCE_FAILED, "postprocess"),
        ({"inputs": "nan"}, ErrorCode.INFERENCE_FAILED, "postprocess"),
    ],
)
def test_one_bad_record_among_a_thousand_costs_one_error_answer_and_one_dead_letter(
    bad: object, code: ErrorCode, stage: str
) -> None:
    """Poison, wherever it fails: its neighbours get their answers, and the dead letter is the original record."""
    bench = Bench()
    for number in range(1000):
        bench.kafka.send(bad if number == 567 else {"id": str(number), "inputs": f"text {number}"})
    bench.settle()
    answers = bench.publisher.answers()
    failed = [answer for answer in answers if answer["status"] == "error"]
    assert len(answers) == 1000
    assert [answer["error"]["code"] for answer in failed] == [code]
    assert failed[0]["source"]["offset"] == 567
    good = [answer for answer in answers if answer["status"] == "ok"]
    assert all(answer["outputs"][0]["label"] == f"text {answer['id']}" for answer in good)
    (letter,) = bench.publisher.dead_letters()
    original = bench.kafka.logs[P0][567]
    reason = DeadLetter.from_headers(letter.headers)
    assert (letter.key, letter.value) == (original.key, original.value)
    assert (reason.code, reason.stage, reason.offset, reason.partition) == (code, stage, 567, 0)
    assert bench.kafka.committed[P0] == 1000


def test_isolation_costs_a_logarithm() -> None:
    """One bad row among a thousand costs some twenty more forwards, not a thousand."""
    bench = Bench()
    for number in range(1000):
        bench.kafka.send({"inputs": "fail in forward" if number == 5 else "x"})
    bench.settle()
    assert len(bench.task.calls) <= 30


def test_answers_leave_in_the_order_of_their_requests() -> None:
    """Rows are sorted by length for the device; answers are not."""
    bench = Bench()
    for number in range(100):
        bench.kafka.send({"id": str(number), "inputs": "x" * (1 + number * 37 % 90)})
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == [str(number) for number in range(100)]


def test_a_result_too_large_for_its_topic_becomes_an_error_answer() -> None:
    """The limit is checked before sending; the neighbours and the producer do not notice."""
    bench = Bench()
    bench.publisher.limit = 600
    bench.kafka.send({"id": "big", "inputs": "x" * 1000})
    bench.kafka.send({"id": "small", "inputs": "x"})
    bench.settle()
    big, small = bench.publisher.answers()
    assert (big["error"]["code"], small["status"]) == ("result_too_large", "ok")
    reason = DeadLetter.from_headers(bench.publisher.dead_letters()[0].headers)
    assert (reason.stage, reason.value_omitted) == ("publish", "too_large")


def test_a_limit_that_shrinks_while_running_costs_an_error_answer_not_the_worker() -> None:
    """The publisher learns the new limit, and the poll's answers are built again."""
    bench = Bench()
    bench.kafka.send({"id": "big", "inputs": "x" * 1000})
    bench.worker.run_once()
    bench.publisher.failures = [LimitChanged()]
    bench.publisher.limit = 600
    bench.settle()
    (answer,) = bench.publisher.answers()
    assert answer["error"]["code"] == "result_too_large"
    assert bench.kafka.committed[P0] == 1


def test_what_was_revoked_is_neither_published_nor_committed() -> None:
    """Another member owns the partition by now; the offsets of the kept one are committed all the same."""
    bench = Bench(partitions=2, at_once=False)
    bench.kafka.send({"id": "kept", "inputs": "x"}, partition=0)
    bench.kafka.send({"id": "lost", "inputs": "x"}, partition=1)
    bench.worker.run_once()
    bench.consumer.take([P1])
    bench.worker.run_once()
    bench.executor.run_next()
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["kept"]
    assert bench.kafka.committed == {P0: 1, P1: 0}


def test_a_partition_that_was_lost_and_came_back_is_answered_from_its_committed_offset() -> None:
    """What was revoked stays revoked; the refetched record arrives in a new poll, and is answered once."""
    bench = Bench(at_once=False)
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.worker.run_once()
    bench.consumer.take([P0])
    bench.consumer.give([P0])
    bench.worker.run_once()
    while bench.executor.queue:
        bench.executor.run_next()
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a"]
    assert bench.kafka.committed[P0] == 1


def test_a_commit_during_a_rebalance_is_kept_and_done_after_it() -> None:
    """No new work meanwhile, a long poll to rejoin, and the answers are not published twice."""
    bench = Bench()
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.consumer.outcomes = [Committed.LATER, Committed.LATER]
    bench.worker.run_once()
    bench.consumer.timeouts.clear()
    bench.worker.run_once()
    assert bench.consumer.timeouts == [LONG_POLL_MS]
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a"]
    assert bench.kafka.committed[P0] == 1


def test_nothing_is_published_while_the_member_rejoins() -> None:
    """Its commit would be put off, and a partition that is taken away meanwhile would be answered twice."""
    bench = Bench()
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.worker.run_once()
    bench.consumer.rejoining = True
    bench.consumer.timeouts.clear()
    bench.settle(2)
    assert (bench.publisher.messages, bench.consumer.timeouts) == ([], [LONG_POLL_MS] * 2)
    bench.consumer.rejoining = False
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a"]
    assert bench.kafka.committed[P0] == 1


def test_a_commit_that_came_too_late_is_dropped() -> None:
    """The group moved on: whoever has the partition now answers again."""
    bench = Bench()
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.consumer.outcomes = [Committed.LOST]
    bench.settle(2)
    assert bench.kafka.committed[P0] == 0
    bench.consumer.take([P0])
    bench.consumer.give([P0])
    bench.settle()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a", "a"]
    assert bench.kafka.committed[P0] == 1


def test_two_polls_are_in_flight_at_most_and_then_nothing_is_fetched() -> None:
    """Memory is bounded: the rest waits in Kafka."""
    bench = Bench(at_once=False, limits=Limits(records=10))
    for number in range(100):
        bench.kafka.send({"id": str(number), "inputs": "x"})
    for _ in range(2):
        bench.worker.run_once()
    assert bench.consumer.positions[P0] == 20
    assert len(bench.executor.queue) == 2


def test_the_second_poll_is_cut_just_before_the_device_runs_dry() -> None:
    """What comes until then is in one poll, read when it comes, and given up with its partition all the same."""
    bench = Bench(partitions=2, at_once=False)
    # Until a batch has run a token is taken for a millisecond: two seconds.
    bench.kafka.send({"id": "first", "inputs": "x" * 2_000})
    bench.worker.run_once()
    for number in range(3):
        bench.kafka.send({"id": str(number), "inputs": "x"}, partition=number % 2)
        bench.clock.now += 0.4
        bench.worker.run_once()
    assert len(bench.executor.queue) == 1
    assert [entry.read for entry in bench.worker._waiting] == [True] * 3
    bench.consumer.take([P1])
    # A quarter of the two seconds is left for the first to be done sooner than was thought.
    bench.clock.now += 0.35
    bench.worker.run_once()
    assert len(bench.executor.queue) == 2
    assert [len(row.features["input_ids"]) for row in bench.executor.queue[1][0].rows] == [1, 1]
    bench.executor.run_next()
    bench.executor.run_next()
    bench.worker.run_once()
    assert [answer["id"] for answer in bench.publisher.answers()] == ["first", "0", "2"]


def test_the_next_poll_is_cut_at_once_when_the_device_was_sooner_done() -> None:
    """Whatever it was said to take."""
    bench = Bench(at_once=False)
    bench.kafka.send({"id": "first", "inputs": "x" * 4_000})
    bench.worker.run_once()
    bench.kafka.send({"id": "second", "inputs": "x" * 4_000})
    bench.worker.run_once()
    assert len(bench.executor.queue) == 1
    bench.executor.run_next()
    bench.worker.run_once()
    assert len(bench.executor.queue) == 1
    assert [answer["id"] for answer in bench.publisher.answers()] == ["first"]


def test_a_poll_is_bounded_in_device_seconds_and_one_request_may_exceed_it_alone() -> None:
    """What does not fit waits; nothing is stuck when a single request is above the bound."""
    bench = Bench(limits=Limits(device_seconds=0.0))
    for number in range(3):
        bench.kafka.send({"id": str(number), "inputs": "x" * 50})
    bench.settle(8)
    assert bench.consumer.commits == [{P0: 1}, {P0: 2}, {P0: 3}]


def test_drain_finishes_what_is_in_flight_and_gives_up_the_rest_uncommitted() -> None:
    """Published and committed what the device finished; what waits stays in Kafka for others."""
    bench = Bench(at_once=False, limits=Limits(records=1))
    for name in ("a", "b", "c"):
        bench.kafka.send({"id": name, "inputs": "x"})
    bench.worker.run_once()
    bench.executor.at_once = True
    bench.executor.run_next()
    bench.worker.drain(20)
    assert [answer["id"] for answer in bench.publisher.answers()] == ["a"]
    assert bench.kafka.committed[P0] == 1


def test_drain_ends_when_its_time_is_over() -> None:
    """A device that never finishes costs the drain its seconds, and nothing is committed."""
    bench = Bench(at_once=False)
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.worker.run_once()
    bench.worker.drain(0)
    assert (bench.publisher.messages, bench.kafka.committed[P0]) == ([], 0)
    assert bench.executor.queue[0][1].cancelled()


def test_a_lost_device_ends_the_worker_and_commits_nothing() -> None:
    """A dead device thread is a dead process."""
    bench = Bench(at_once=False)
    bench.kafka.send({"id": "a", "inputs": "x"})
    bench.worker.run_once()
    bench.executor.queue[0][1].set_exception(DeviceLostError())
    with pytest.raises(DeviceLostError):
        bench.worker.run_once()
    assert (bench.publisher.messages, bench.kafka.committed[P0]) == ([], 0)


def test_a_member_without_partitions_polls_long() -> None:
    """A member that only polls briefly never joins its group."""
    bench = Bench()
    bench.consumer.take([P0])
    bench.settle(3)
    assert bench.consumer.timeouts == [LONG_POLL_MS] * 3


def test_a_long_poll_beside_work_keeps_its_answers_waiting_only_as_long_as_that_takes() -> None:
    """And is long enough to take part in a rebalance all the same; without work, or without partitions, it is whole."""
    bench = Bench(at_once=False)
    bench.settle(1)
    bench.kafka.send({"id": "a", "inputs": "x" * 300})
    bench.settle(1)
    bench.clock.now += 1.2
    bench.settle(1)
    bench.executor.run_next()
    bench.settle(1)
    bench.kafka.send({"id": "b", "inputs": "x" * 1_000})
    bench.settle(1)
    bench.clock.now += 1.1
    bench.consumer.take([P0])
    bench.settle(1)
    assert [timeout for timeout in bench.consumer.timeouts if timeout] == [200, 200, 50, 200, 200, 200]
