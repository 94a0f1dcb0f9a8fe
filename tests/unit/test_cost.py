"""What is learned of the device from the batches that ran."""

import pytest

from fakes import FakeTask
from nlp_worker.batching import Batch
from nlp_worker.cost import FIRST_PATIENCE, Budget, Cost
from nlp_worker.poll import BatchRun, Row


def rows(lengths: list[int]) -> list[Row]:
    return [Row({"input_ids": [0] * length}) for length in lengths]


def test_seconds_of_a_token_are_those_of_the_batches_that_ran() -> None:
    """The first batch replaces the guess; later ones move it. Padding counts for the tokens that it was added to."""
    learned = Cost()
    learned.learn(Batch(FakeTask(), rows([500, 500])), 2.0)
    assert learned.seconds_per_token == pytest.approx(0.002)
    for _ in range(300):
        learned.learn(Batch(FakeTask(), rows([750, 250])), 4.0)
    assert learned.seconds_per_token == pytest.approx(0.004, rel=1e-2)


@pytest.mark.parametrize("per_token", [1e-7, 1e-3])
@pytest.mark.parametrize("overhead", [0, 50, 500, 2_000])
def test_the_overhead_is_that_of_the_device(overhead: int, per_token: float) -> None:
    """Of a device that takes exactly so long, whatever its speed: from batches that double, as in a warm-up."""
    learned = Cost()
    for doublings in range(8):
        batch = Batch(FakeTask(), rows([9] * 2 * 2**doublings))
        learned.learn(batch, per_token * (overhead + batch.size))
    assert learned.overhead == pytest.approx(overhead, rel=0.05, abs=20)


def test_batches_of_one_size_leave_the_overhead_as_it_was() -> None:
    """They show nothing of it, and the noise of their times would otherwise decide."""
    learned = Cost()
    for size in (10, 2_000):
        learned.learn(Batch(FakeTask(), rows([size])), 1e-4 * (100 + size))
    before = learned.overhead
    for number in range(50):
        learned.learn(Batch(FakeTask(), rows([1_000])), 0.11 * (1 + 0.05 * (-1) ** number))
    assert 0.3 * before < learned.overhead < 3 * before


def test_a_model_that_answers_at_once_has_an_overhead_all_the_same() -> None:
    """Its clock may stand still: no division by nothing, and batches as large as the budget."""
    learned = Cost()
    for size in (10, 2_000):
        learned.learn(Batch(FakeTask(), rows([size])), 0.0)
    assert learned.overhead > 1_000


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
