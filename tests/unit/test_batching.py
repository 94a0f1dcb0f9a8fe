"""Planning and isolation: pure functions, for any input."""

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeTask
from nlp_worker.batching import Batch, plan
from nlp_worker.errors import DeviceLostError
from nlp_worker.isolation import isolate
from nlp_worker.poll import Row

LENGTHS = st.lists(st.integers(1, 600), max_size=300)


def rows(lengths: list[int]) -> list[Row]:
    return [Row({"input_ids": [0] * length}) for length in lengths]


@given(LENGTHS, st.integers(1, 5000))
def test_every_row_is_planned_once_and_no_batch_is_above_the_budget(lengths: list[int], budget: int) -> None:
    """A row that is above the budget alone is a batch alone, so no budget makes the worker stand still."""
    given_rows = rows(lengths)
    batches = plan(FakeTask(), given_rows, budget=budget, overhead=512)
    assert Counter(id(row) for batch in batches for row in batch.rows) == Counter(map(id, given_rows))
    assert all(batch.padded_tokens <= budget or len(batch.rows) == 1 for batch in batches)


ROWS = st.lists(
    st.builds(
        lambda length, group, new_tokens, beams: Row(
            {"input_ids": [0] * length}, group=group, new_tokens=new_tokens, beams=beams
        ),
        length=st.integers(1, 300),
        group=st.sampled_from([None, 1, ("beams", 4)]),
        new_tokens=st.integers(0, 100),
        beams=st.integers(1, 5),
    ),
    max_size=100,
)


@given(ROWS, st.integers(1, 5000), st.none() | st.integers(1, 5000), st.integers(0, 1000))
def test_generated_tokens_beams_and_groups_count(
    given_rows: list[Row], budget: int, most: int | None, overhead: int
) -> None:
    """Every row once, a batch of one group, and within the budget and the task's own limit unless a row is alone."""
    task: Any = FakeTask()
    task.max_batch_tokens = most
    batches = plan(task, given_rows, budget=budget, overhead=overhead)
    assert Counter(id(row) for batch in batches for row in batch.rows) == Counter(map(id, given_rows))
    for batch in batches:
        assert len({row.group for row in batch.rows}) == 1
        # What the device holds at last: every row as long as the longest, and grown by the most new tokens.
        longest = max(row.length + row.new_tokens for row in batch.rows)
        taken = sum(row.beams for row in batch.rows) * longest
        assert taken <= batch.size <= min(budget, most or budget) or len(batch.rows) == 1


def cost(batches: list[Batch], overhead: float) -> float:
    return sum(overhead * batch.forwards + batch.size for batch in batches)


def cheapest(lengths: list[int], budget: int, overhead: float) -> float:
    """Return the least cost of sorted lengths, by trying every first batch of what is left."""
    lengths = sorted(lengths)
    costs = [0.0]
    for end in range(1, len(lengths) + 1):
        size = lengths[end - 1]
        starts = [start for start in range(end) if (end - start) * size <= budget or start == end - 1]
        costs.append(min(costs[start] + overhead + (end - start) * size for start in starts))
    return costs[-1]


@given(st.lists(st.integers(1, 60), max_size=60), st.integers(1, 600), st.integers(0, 300))
def test_no_plan_is_cheaper(lengths: list[int], budget: int, overhead: int) -> None:
    """What the planner leaves out, cuts that cannot pay and places that are dearer for good, is in no best plan."""
    assert cost(plan(FakeTask(), rows(lengths), budget=budget, overhead=overhead), overhead) == pytest.approx(
        cheapest(lengths, budget, overhead)
    )


@given(st.lists(st.integers(1, 600), min_size=1, max_size=200), st.integers(1, 64), st.integers(0, 1000))
def test_it_is_never_dearer_than_a_fixed_number_of_rows(lengths: list[int], count: int, overhead: int) -> None:
    """In arrival order or sorted, where these batches are within the budget."""
    given_rows = rows(lengths)
    for ordered in (given_rows, sorted(given_rows, key=lambda row: row.length)):
        simple = [Batch(FakeTask(), ordered[start : start + count]) for start in range(0, len(ordered), count)]
        budget = max(batch.size for batch in simple)
        planned = plan(FakeTask(), given_rows, budget=budget, overhead=overhead)
        assert cost(planned, overhead) <= cost(simple, overhead)


@given(LENGTHS, st.integers(1, 5000))
def test_rows_that_are_packed_fill_the_budget(lengths: list[int], budget: int) -> None:
    """Every row once, real tokens alone count, and two neighbouring batches would not fit into one."""
    task, given_rows = FakeTask(), rows(lengths)
    task.packs = True
    batches = plan(task, given_rows, budget=budget, overhead=512)
    assert Counter(id(row) for batch in batches for row in batch.rows) == Counter(map(id, given_rows))
    assert all(batch.size == batch.padded_tokens == batch.tokens for batch in batches)
    assert all(batch.size <= budget or len(batch.rows) == 1 for batch in batches)
    assert all(one.size + other.size > budget for one, other in itertools.pairwise(batches))


def test_rows_that_generate_much_do_not_wait_for_each_other() -> None:
    """Ten short answers are not computed for as many steps as a long one takes; equal ones run together."""
    given_rows = rows([10] * 22)
    for row in given_rows:
        row.new_tokens = 4
    given_rows[3].new_tokens = given_rows[17].new_tokens = 200
    batches = plan(FakeTask(), given_rows, budget=4096, overhead=10)
    assert [[row.new_tokens for row in batch.rows] for batch in batches] == [[200] * 2, [4] * 20]


def refilling(sizes: list[tuple[int, int]]) -> list[Row]:
    return [Row({"input_ids": [0] * length}, new_tokens=new_tokens, refills=True) for length, new_tokens in sizes]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=200),
    st.integers(1, 5000),
    st.integers(0, 1000),
)
def test_rows_that_refill_are_planned_once_and_within_the_budget(
    sizes: list[tuple[int, int]], budget: int, overhead: int
) -> None:
    """As many rows at once as fit at their largest, the longest output first; one that fits in no budget is alone."""
    given_rows = refilling(sizes)
    batches = plan(FakeTask(), given_rows, budget=budget, overhead=overhead)
    assert Counter(id(row) for batch in batches for row in batch.rows) == Counter(map(id, given_rows))
    for batch in batches:
        longest = max(row.length for row in batch.rows) + max(row.new_tokens for row in batch.rows)
        assert batch.slots * longest == batch.size
        assert batch.size <= budget or batch.slots == 1
        assert [row.new_tokens for row in batch.rows] == sorted((row.new_tokens for row in batch.rows), reverse=True)


def test_rows_that_refill_are_one_batch_unless_some_make_places_few() -> None:
    """Any number that is alike, for who knows when each ends; a prompt of 3,000 tokens would make all wait."""
    alike = refilling([(20 + index % 10, 200) for index in range(100)])
    (batch,) = plan(FakeTask(), alike, budget=4096, overhead=40)
    assert (len(batch.rows), batch.slots) == (100, 4096 // 229)
    long, others = plan(FakeTask(), [*alike, *refilling([(3000, 200)])], budget=4096, overhead=40)
    assert (long.longest, long.slots, others.longest, others.slots) == (3000, 1, 29, 4096 // 229)
    assert len(others.rows) > 95


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_exactly_the_bad_items_fail(bad: list[bool]) -> None:
    """Whatever their number and place, the others get their outputs."""

    def call(items: object) -> list[int]:
        numbers = [number for number in items if isinstance(number, int)] if isinstance(items, list) else []
        if any(bad[number] for number in numbers):
            raise ValueError
        return numbers

    outputs = isolate(list(range(len(bad))), call)
    assert [isinstance(output, ValueError) for output in outputs] == bad
    assert all(output == number for number, output in enumerate(outputs) if not bad[number])


def test_a_wrong_number_of_outputs_is_a_failure_and_not_a_shift() -> None:
    """One output too few would give every later request its neighbour's answer."""
    assert all(isinstance(output, ValueError) for output in isolate([1, 2, 3], lambda items: items[1:]))


def test_what_is_fatal_is_not_isolated() -> None:
    """After a lost device every half fails too."""

    def call(_: object) -> list[int]:
        raise DeviceLostError

    with pytest.raises(DeviceLostError):
        isolate([1, 2, 3], call)
