"""Whether one checkpoint is better: what the bootstrap says where the truth is known."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nlp_worker.training.bootstrap import compare
from nlp_worker.training.metrics import Answers, Bleu, Classification, Metrics, Rouge, Tagging, ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SENTENCES = ["the cat sat on the mat", "it rains today", "a dog barks at night", "nobody knows why"]

#: Each task's metrics, with expected answers that are repeated as often as a test needs.
TASKS = [
    (Classification(["bad", "good"]), ["bad", "good"]),
    (Classification(["bad", "good"], "f1_macro"), ["bad", "good"]),
    (Tagging(["O", "B-PER", "I-PER"]), [["B-PER", "I-PER", "O"], ["O", "B-PER"]]),
    (Answers(), [[sentence] for sentence in SENTENCES]),
    (Rouge(), SENTENCES),
    (Bleu(), SENTENCES),
    (Bleu("chrf"), SENTENCES),
]


def right(metrics: Metrics, expected: list[Any]) -> list[Any]:
    """Answer every row as expected."""
    return [answers[0] for answers in expected] if isinstance(metrics, Answers) else list(expected)


def hits(*rows: int) -> tuple[list[str], list[str]]:
    """Return two checkpoints' labels, "y" being right: rows that both, the baseline, the candidate, none have right."""
    both, before, after, none = rows
    return (
        ["y"] * both + ["y"] * before + ["n"] * after + ["n"] * none,
        ["y"] * both + ["n"] * before + ["y"] * after + ["n"] * none,
    )


LABELLED = Classification(["n", "y"])


@pytest.mark.parametrize(("metrics", "some"), TASKS)
def test_the_same_answers_are_neither_worse_nor_better(metrics: Metrics, some: list[Any]) -> None:
    """The difference is 0 exactly, in every resample; and every resample is a tie."""
    expected = some * 10
    answers: list[Any] = [*right(metrics, expected)[:-3], None, None, None]
    result = compare(metrics, expected, answers, list(answers), samples=500)
    assert (result.difference, result.low, result.high, result.worse) == (0, 0, 0, 0.5)
    assert not result.is_worse
    assert not result.is_better


@pytest.mark.parametrize(("metrics", "some"), TASKS)
def test_a_checkpoint_that_fails_often_is_worse(metrics: Metrics, some: list[Any]) -> None:
    """And the other way round it is better; the scores are those that the libraries give."""
    expected = some * 20
    good = right(metrics, expected)
    bad = [None if number % 3 == 0 else answer for number, answer in enumerate(good)]
    result = compare(metrics, expected, good, bad, samples=500)
    assert result.is_worse
    assert not result.is_better
    assert result.worse == 1
    assert result.baseline == pytest.approx(metrics.scores(expected, good)[metrics.primary])
    assert result.candidate == pytest.approx(metrics.scores(expected, bad)[metrics.primary])
    assert result.low <= result.difference <= result.high < 0
    turned = compare(metrics, expected, bad, good, samples=500)
    assert turned.is_better
    assert not turned.is_worse
    assert (turned.low, turned.high, turned.worse) == pytest.approx((-result.high, -result.low, 0))


def test_one_row_of_difference_says_nothing() -> None:
    """A candidate with one more row of 50 wrong may as well be as good."""
    baseline, candidate = hits(40, 2, 1, 7)
    result = compare(LABELLED, ["y"] * 50, baseline, candidate)
    assert result.difference == pytest.approx(-1 / 50)
    assert not result.is_worse
    assert not result.is_better
    assert 0.5 < result.worse < 0.9


def test_the_interval_is_that_of_the_rows_that_differ() -> None:
    """McNemar: of paired answers only the discordant rows count, and their binomial is nearly normal here."""
    both, before, after, none = 700, 90, 50, 160
    rows = both + before + after + none
    result = compare(LABELLED, ["y"] * rows, *hits(both, before, after, none))
    deviation = np.sqrt(before + after - (before - after) ** 2 / rows) / rows
    assert result.difference == pytest.approx(-0.04)
    assert result.low == pytest.approx(-0.04 - 1.96 * deviation, abs=0.1 * deviation)
    assert result.high == pytest.approx(-0.04 + 1.96 * deviation, abs=0.1 * deviation)
    assert result.is_worse


def test_rows_are_drawn_together() -> None:
    """Checkpoints that err on the same rows are told apart by fewer rows: shuffled, the same scores say less."""
    baseline, candidate = hits(60, 8, 0, 32)
    expected = ["y"] * 100
    paired = compare(LABELLED, expected, baseline, candidate)
    shuffled = np.random.default_rng(0).permutation(candidate).tolist()
    unpaired = compare(LABELLED, expected, baseline, shuffled)
    assert paired.difference == unpaired.difference
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)
    assert paired.is_worse
    assert not unpaired.is_worse


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    """400 studies of 200 rows from a known population; 95 % is within three standard errors of what is found."""
    generator = np.random.default_rng(0)
    shares = [0.6, 0.12, 0.08, 0.2]  # the baseline is right more often by 0.04
    covered = 0
    for study in range(400):
        baseline, candidate = hits(*generator.multinomial(200, shares).tolist())
        result = compare(LABELLED, ["y"] * 200, baseline, candidate, samples=400, seed=study)
        covered += result.low <= -0.04 <= result.high
    assert 0.95 - 0.033 < covered / 400 < 0.95 + 0.033


def test_less_confidence_is_a_narrower_interval() -> None:
    """And the chance of error is on both sides: half of it beyond each end."""
    answers = hits(60, 20, 20, 0)
    wide, narrow = (compare(LABELLED, ["y"] * 100, *answers, confidence=share) for share in (0.95, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide.low == pytest.approx(-wide.high, abs=0.02)


class Given:
    """Rows that are given their scores as answers."""

    primary = "score"

    def scores(self, _: Sequence[Any], predicted: Sequence[Any]) -> dict[str, float]:
        return {"score": float(np.mean(predicted))}

    def statistics(self, _: Sequence[Any], predicted: Sequence[Any]) -> NDArray[np.float64]:
        return np.stack([np.array(predicted), np.ones(len(predicted))], axis=1)

    def primary_of(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums)


def test_a_tie_that_floats_would_break_is_a_tie() -> None:
    """The same scores of other rows sum up in another order: 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1."""
    result = compare(Given(), [None] * 3, [0.1, 0.2, 0.3], [0.3, 0.2, 0.1])
    assert result.low == -result.high
    assert result.worse == pytest.approx(0.5, abs=0.02)


def test_a_seed_gives_the_same_answer_again() -> None:
    """A comparison can be repeated; another seed draws other rows."""
    expected = ["y"] * 100
    answers = hits(60, 15, 10, 15)
    first, again, other = (compare(LABELLED, expected, *answers, samples=300, seed=seed).worse for seed in (1, 1, 2))
    assert first == again != other


def test_many_rows_take_little_memory() -> None:
    """Counts are drawn in parts: of all samples at once they would be 160 MB here, and gigabytes for a large set."""
    rows = 100_000
    answers = hits(rows - 30, 20, 10, 0)
    tracemalloc.start()
    compare(LABELLED, ["y"] * rows, *answers, samples=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


def test_no_rows_say_nothing() -> None:
    """There is nothing to draw from; and rows without an answer of either side are refused, not left out."""
    with pytest.raises(ValueError, match="no rows"):
        compare(LABELLED, [], [], [])
    with pytest.raises(ValueError, match="shorter"):
        compare(LABELLED, ["y", "y"], ["y", "n"], ["y"])
