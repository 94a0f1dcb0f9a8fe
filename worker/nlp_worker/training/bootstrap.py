"""Whether one checkpoint is better than another, or the rows happened to suit it: the paired bootstrap.

Koehn, Statistical Significance Tests for Machine Translation Evaluation (2004); Efron and Tibshirani, An Introduction
to the Bootstrap (1993).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nlp_worker.training.metrics import Metrics

#: Resamples. The interval's ends then vary from seed to seed by some 1 % of its width, and 10,000 rows take seconds.
SAMPLES: Final = 10_000

#: Numbers held at once, 8 bytes each: 32 MB, however many the rows and the samples are.
CELLS: Final = 1 << 22

#: Decimals of a difference. Sums in another order differ in the 13th, and a tie must stay a tie.
DECIMALS: Final = 9


class Comparison(NamedTuple):
    """What the primary score says of two checkpoints."""

    baseline: float
    candidate: float
    #: The candidate's less the baseline's.
    difference: float
    #: The ends of the difference's two-sided percentile interval.
    low: float
    high: float
    #: The share of resamples in which the candidate is worse, ties counted half.
    worse: float

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    @property
    def is_better(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


def compare(
    metrics: Metrics,
    expected: Sequence[Any],
    baseline: Sequence[Any],
    candidate: Sequence[Any],
    *,
    samples: int = SAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two checkpoints' answers to the same rows.

    Rows are drawn with replacement, the same for both checkpoints: what is hard for both says nothing of either.

    Raises:
        ValueError: there are no rows, or not as many answers.
    """
    if not len(expected):
        raise ValueError("there are no rows to compare checkpoints on")
    both = metrics.statistics(expected, baseline), metrics.statistics(expected, candidate)
    before, after = (float(metrics.primary_of(rows.sum(axis=0))) for rows in both)
    differences = np.round(_differences(metrics, both, samples, np.random.default_rng(seed)), DECIMALS)
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail]).tolist()
    worse = float(np.mean(differences < 0) + np.mean(differences == 0) / 2)
    return Comparison(before, after, after - before, low, high, worse)


def _differences(
    metrics: Metrics,
    both: tuple[NDArray[np.float64], NDArray[np.float64]],
    samples: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Return the difference of the primary score in each resample."""
    rows = len(both[0])
    at_once = max(1, CELLS // max(rows, *(statistics.shape[1] for statistics in both)))
    differences = np.empty(samples)
    for start in range(0, samples, at_once):
        part = differences[start : start + at_once]
        drawn = np.empty((len(part), rows))  # how often each row is; floats, which BLAS multiplies
        for counts in drawn:  # ten times as fast as numpy's multinomial, which draws the same
            counts[:] = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        before, after = (metrics.primary_of(drawn @ statistics) for statistics in both)
        part[:] = after - before
    return differences
