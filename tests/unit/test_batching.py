"""Planning and isolation: pure functions, for any input."""

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import FakeTask
from nlp_worker.batching import FIRST_PATIENCE, Batch, Budget, Rate, plan
from nlp_worker.errors import DeviceLostError
from nlp_worker.isolation import isolate
from nlp_worker.poll import BatchRun, Row

LENGTHS = st.lists(st.integers(1, 600), max_size=300)


def rows(lengths: list[int]) -> list[Row]:
    return [Row({"input_ids": [0] * length}) for length in lengths]


@given(LENGTHS, st.integers(1, 5000))
def test_every_row_is_planned_once_and_no_batch_is_above_the_budget(lengths: list[int], budget: int) -> None:
    """A row that is above the budget alone is a batch alone, so no budget makes the worker stand still."""
    given_rows = rows(lengths)
    batches = plan(FakeTask(), given_rows, budget=budget)
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


@given(ROWS, st.integers(1, 5000), st.none() | st.integers(1, 5000))
def test_generated_tokens_beams_and_groups_count(given_rows: list[Row], budget: int, most: int | None) -> None:
    """Every row once, a batch of one group, and within the budget and the task's own limit unless a row is alone."""
    task: Any = FakeTask()
    task.max_batch_tokens = most
    batches = plan(task, given_rows, budget=budget)
    assert Counter(id(row) for batch in batches for row in batch.rows) == Counter(map(id, given_rows))
    for batch in batches:
        assert len({row.group for row in batch.rows}) == 1
        # What the device holds at last: every row as long as the longest, and grown by the most new tokens.
        longest = max(row.length + row.new_tokens for row in batch.rows)
        taken = sum(row.beams for row in batch.rows) * longest
        assert taken <= batch.size <= min(budget, most or budget) or len(batch.rows) == 1


def test_sorting_pads_little_of_natural_lengths() -> None:
    """1,024 log-normal lengths (seed 0): sorted batches waste less than a fifth, batches in arrival order over half."""
    draw = random.Random(0)  # noqa: S311 - lengths, not a secret
    given_rows = rows([min(512, max(1, int(draw.lognormvariate(3.9, 0.8)))) for _ in range(1024)])
    tokens = sum(row.length for row in given_rows)
    batches = plan(FakeTask(), given_rows, budget=4096)
    fifo = [Batch(FakeTask(), given_rows[start : start + 32]) for start in range(0, 1024, 32)]
    assert sum(batch.padded_tokens for batch in batches) < 1.2 * tokens
    assert sum(batch.padded_tokens for batch in fifo) > 2 * tokens


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


def test_the_rate_is_that_of_the_batches_that_ran() -> None:
    """The first batch replaces the guess; later ones move it."""
    rate = Rate()
    rate.learn(1000, 2.0)
    assert rate.seconds_per_token == pytest.approx(0.002)
    for _ in range(50):
        rate.learn(1000, 4.0)
    assert rate.seconds_per_token == pytest.approx(0.004, rel=1e-3)


def batch_of(tokens: int, *, alone: bool = False) -> Batch:
    return Batch(FakeTask(), rows([tokens] if alone else [tokens // 2] * 2))


def run_of(fitted: int | None = None) -> BatchRun:
    return BatchRun([], 0.0, 0.0, fitted)


class Device:
    """Has memory for so many tokens, and runs what it has not enough for in halves."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.attempts = 0

    def run(self, size: int) -> BatchRun:
        fitted = size
        while fitted > self.memory:
            fitted //= 2
            self.attempts += 1
        return run_of(None if fitted == size else fitted)


def test_a_budget_that_fits_stays_what_the_settings_say() -> None:
    """However many batches run."""
    budget = Budget(1000)
    for _ in range(100 * FIRST_PATIENCE):
        budget.learn(batch_of(1000), run_of())
    assert budget.tokens == 1000


def test_out_of_memory_lowers_the_budget_to_what_ran() -> None:
    """To the half where nothing ran; never up, where a larger batch that was planned before comes in."""
    budget = Budget(1000)
    budget.learn(batch_of(1000), run_of(fitted=250))
    assert budget.tokens == 250
    budget.learn(batch_of(990), run_of(fitted=495))
    assert budget.tokens == 250
    budget.learn(batch_of(240), run_of(fitted=0))
    assert budget.tokens == 120
    for _ in range(10):
        budget.learn(batch_of(2), run_of(fitted=0))
    assert budget.tokens == 1


def test_one_row_that_does_not_fit_alone_changes_no_budget() -> None:
    """Else a single request would make every later batch small."""
    budget = Budget(1000)
    budget.learn(batch_of(1000, alone=True), run_of(fitted=0))
    assert budget.tokens == 1000


def test_memory_that_was_short_for_a_moment_costs_the_budget_for_a_moment() -> None:
    """Full batches raise it again, to the settings and not above; small ones show nothing."""
    budget = Budget(1000)
    budget.learn(batch_of(1000), run_of(fitted=500))
    for _ in range(100 * FIRST_PATIENCE):
        budget.learn(batch_of(390), run_of())
    assert budget.tokens == 500
    heights = []
    for _ in range(4 * 2 * FIRST_PATIENCE):
        budget.learn(batch_of(int(0.9 * budget.tokens)), run_of())
        heights.append(budget.tokens)
    assert sorted(set(heights)) == [500, 625, 781, 976, 1000]
    assert heights == sorted(heights)
    for _ in range(10 * FIRST_PATIENCE):
        budget.learn(batch_of(1000), run_of())
    assert budget.tokens == 1000


@pytest.mark.parametrize("memory", [90, 450, 700, 999])
def test_attempts_at_too_much_become_rare(memory: int) -> None:
    """A device that has always less memory than the settings ask for fails a handful of 10,000 batches."""
    device, budget = Device(memory), Budget(1000)
    used = 0
    for _ in range(10_000):
        batch = batch_of(budget.tokens)
        used += min(batch.size, memory)
        budget.learn(batch, device.run(batch.size))
    assert device.attempts <= 12
    assert used > 0.6 * memory * 10_000


def test_batches_that_were_planned_before_a_fall_are_no_new_attempts() -> None:
    """They fail together with the first, and the budget rises as soon as if it had failed alone."""
    one, many = Budget(1000), Budget(1000)
    one.learn(batch_of(1000), run_of(fitted=500))
    for _ in range(20):
        many.learn(batch_of(1000), run_of(fitted=500))
    for _ in range(2 * FIRST_PATIENCE):
        one.learn(batch_of(500), run_of())
        many.learn(batch_of(500), run_of())
    assert one.tokens == many.tokens == 625


def rises_after(budget: Budget) -> int:
    """Return how many full batches it takes until the budget rises."""
    before, batches = budget.tokens, 0
    while budget.tokens == before:
        budget.learn(batch_of(budget.tokens), run_of())
        batches += 1
    return batches


def test_full_batches_count_from_the_last_fall_on() -> None:
    """Those before it showed that less fits."""
    budget = Budget(1000)
    for _ in range(FIRST_PATIENCE - 1):
        budget.learn(batch_of(1000), run_of())
    budget.learn(batch_of(1000), run_of(fitted=500))
    assert rises_after(budget) == 2 * FIRST_PATIENCE


def test_a_budget_that_held_again_for_long_is_as_patient_as_a_new_one() -> None:
    """Each fall doubles its patience; memory that was enough since then makes good for it."""
    budget = Budget(1000)
    for fall in range(3):
        budget.learn(batch_of(budget.tokens), run_of(fitted=500))
        assert rises_after(budget) == 2 ** (fall + 1) * FIRST_PATIENCE
    for _ in range(100 * FIRST_PATIENCE):
        budget.learn(batch_of(1000), run_of())
    budget.learn(batch_of(1000), run_of(fitted=500))
    assert rises_after(budget) == 2 * FIRST_PATIENCE
