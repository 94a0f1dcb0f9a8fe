"""Requests that are too old are answered so, and cost the device nothing."""

from fakes import Bench
from nlp_worker.parts import Limits


def test_an_expired_request_is_answered_without_the_device_and_without_a_dead_letter() -> None:
    """timeout_ms counts from the record's timestamp."""
    bench = Bench()
    bench.clock.now = 1.024  # the records are of second 1
    bench.kafka.send({"inputs": "x", "timeout_ms": 1})
    bench.settle()
    (answer,) = bench.publisher.answers()
    assert answer["error"]["code"] == "deadline_exceeded"
    told = "1 ms were allowed, and the request was 24 ms old when its turn came"
    assert answer["error"]["message"] == told
    assert (bench.task.calls, bench.publisher.dead_letters()) == ([], [])


def test_a_request_whose_time_runs_out_while_it_waits_is_not_computed() -> None:
    """It was read in time, and cut from the queue too late: two polls were on the device before it."""
    bench = Bench(at_once=False, limits=Limits(records=10, device_seconds=0.0))
    bench.clock.now = 1.0
    for number in range(3):
        bench.kafka.send({"id": str(number), "inputs": "x", "timeout_ms": 5000})
    bench.settle(1)
    bench.clock.now = 7.0
    bench.executor.at_once = True
    while bench.executor.queue:
        bench.executor.run_next()
    bench.settle(8)
    assert [answer.get("error", {}).get("code") for answer in bench.publisher.answers()] == [
        None, None, "deadline_exceeded"]  # fmt: skip
    assert bench.publisher.dead_letters() == []


def test_a_maximum_age_expires_requests_that_set_none_and_those_that_allow_more() -> None:
    """The operator's limit holds for every request that has a timestamp; a shorter one of its own counts too."""
    bench = Bench()
    bench.clock.now = 1.0 + 20.0
    bench.worker = bench.start(bench.consumer, bench.executor, max_age=10.0)
    for timeout_ms in (None, 60_000, 5_000):
        bench.kafka.send({"inputs": "x"} if timeout_ms is None else {"inputs": "x", "timeout_ms": timeout_ms})
    bench.settle()
    messages = [answer["error"]["message"] for answer in bench.publisher.answers()]
    assert messages == [
        f"{allowed} were allowed, and the request was 20 s old when its turn came"
        for allowed in ("10 s", "10 s", "5000 ms")
    ]
    assert bench.task.calls == []
