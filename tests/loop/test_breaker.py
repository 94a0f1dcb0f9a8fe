"""Too many failures in a row end the worker, bad input never does."""

from collections.abc import Sequence

import pytest

from fakes import REQUESTS, Bench, record
from nlp_worker.errors import FailuresError
from nlp_worker.parts import Limits
from nlp_worker.poll import LimitChanged, Partition

P0 = Partition(REQUESTS, 0)


def send_all(bench: Bench, texts: Sequence[str]) -> None:
    for text in texts:
        bench.kafka.send({"inputs": text})


def test_too_many_failures_in_a_row_end_the_worker_before_their_poll_is_published() -> None:
    """A bad deployment leaves a backlog, not an emptied topic."""
    bench = Bench(limits=Limits(failures_in_a_row=5))
    send_all(bench, ["x", *["fail in forward"] * 5])
    with pytest.raises(FailuresError, match="5 requests in a row failed, the last one with inference_failed"):
        bench.settle()
    assert (bench.publisher.messages, bench.kafka.committed[P0]) == ([], 0)


def test_failures_are_counted_over_polls_and_an_answer_ends_the_count() -> None:
    """Four, an answer, four more: the worker goes on; and then a fifth."""
    bench = Bench(limits=Limits(failures_in_a_row=5, device_seconds=0.0))
    send_all(bench, [*["fail in forward"] * 4, "x", *["fail in postprocess"] * 4])
    bench.settle(20)
    assert bench.kafka.committed[P0] == 9
    send_all(bench, ["fail in preprocess"])
    with pytest.raises(FailuresError):
        bench.settle(4)
    assert bench.kafka.committed[P0] == 9


def test_bad_input_never_ends_the_worker() -> None:
    """Nor does it end the count of what the model is to blame for."""
    bench = Bench(limits=Limits(failures_in_a_row=5))
    bench.kafka.logs[P0].extend(record(b"{", offset=offset) for offset in range(100))
    send_all(bench, ["too long"] * 100)
    bench.settle()
    assert bench.kafka.committed[P0] == 200


def test_failures_are_not_counted_twice_when_answers_are_built_again() -> None:
    """A topic's limit shrank meanwhile."""
    bench = Bench(limits=Limits(failures_in_a_row=5))
    bench.publisher.failures = [LimitChanged(), LimitChanged()]
    send_all(bench, ["fail in forward"] * 4)
    bench.settle()
    assert bench.kafka.committed[P0] == 4


def test_without_a_limit_failures_never_end_the_worker() -> None:
    """The setting's 0."""
    bench = Bench(limits=Limits(failures_in_a_row=0))
    send_all(bench, ["fail in forward"] * 300)
    bench.settle()
    assert bench.kafka.committed[P0] == 300
