"""At least once on fakes: whatever happens in whatever order, each request is answered before it is committed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import REQUESTS, Bench, FakeConsumer, FakeExecutor
from nlp_worker.parts import Limits
from nlp_worker.poll import Committed, Partition

P1 = Partition(REQUESTS, 1)

STEPS = st.lists(st.sampled_from(["step", "device", "revoke", "give", "later", "lost", "crash", "send"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_no_interleaving_of_rebalances_crashes_and_commits_loses_a_request(steps: list[str]) -> None:
    """Whatever happens in whatever order: every request is answered, and nothing is committed before its answer."""
    bench = Bench(partitions=2, at_once=False, limits=Limits(records=3))
    sent = 0
    for step in ["send", "send", "send", *steps]:
        if step == "send":
            for _ in range(3):
                bench.kafka.send({"id": str(sent), "inputs": "x" * (sent % 5 + 1)}, partition=sent % 2)
                sent += 1
        elif step == "step":
            bench.worker.run_once()
        elif step == "device" and bench.executor.queue:
            bench.executor.run_next()
        elif step == "revoke" and P1 in bench.consumer.positions:
            bench.consumer.take([P1])
        elif step == "give" and P1 not in bench.consumer.positions:
            bench.consumer.give([P1])
        elif step in ("later", "lost"):
            _refuse_commit(bench, step)
        elif step == "crash":
            bench.consumer = FakeConsumer(bench.kafka)
            bench.executor = FakeExecutor(at_once=False)
            bench.worker = bench.start(bench.consumer, bench.executor)
        _check_nothing_is_committed_unanswered(bench)
    _finish(bench)
    assert {answer["id"] for answer in bench.publisher.answers()} == {str(number) for number in range(sent)}


def _refuse_commit(bench: Bench, step: str) -> None:
    """LATER as it comes; LOST as Kafka has it: the member is out, and its partitions are lost at the next poll."""
    if step == "later":
        bench.consumer.outcomes = [Committed.LATER]
        return
    partitions = list(bench.consumer.positions)
    bench.consumer.take(partitions)
    bench.consumer.give(partitions)
    bench.consumer.outcomes = [Committed.LOST] * 4
    bench.worker.run_once()
    bench.consumer.outcomes = []


def _check_nothing_is_committed_unanswered(bench: Bench) -> None:
    answered = {(a["source"]["partition"], a["source"]["offset"]) for a in bench.publisher.answers()}
    for partition, committed in bench.kafka.committed.items():
        assert all((partition.partition, offset) in answered for offset in range(committed))


def _finish(bench: Bench) -> None:
    bench.consumer.outcomes = []
    bench.consumer.give([p for p in bench.kafka.logs if p not in bench.consumer.positions])
    bench.executor.at_once = True
    for _ in range(200):
        while bench.executor.queue:
            bench.executor.run_next()
        bench.worker.run_once()
        if all(bench.kafka.committed[p] == len(log) for p, log in bench.kafka.logs.items()):
            return
    pytest.fail("the worker is stuck")
