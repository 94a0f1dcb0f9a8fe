"""Numbers of models as answers have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from nlp_worker.errors import InferenceFailedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers from which on it pays to round all at once.
MANY: Final = 64

#: Between these, scaling by powers of ten is exact in float64.
SMALLEST, LARGEST = 1e-13, 1e15

#: Significant digits: every decimal number of 6 survives float32, and 9 tell all float32 apart.
DIGITS: Final = range(6, 10)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the last axis, in float32, for logits of any size.

    Raises:
        InferenceFailedError: a logit is NaN or infinite; later a comparison could hide it.
    """
    expect_finite(logits)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def shortest_floats(values: NDArray[np.float32]) -> list[float]:
    """Return floats that print as the shortest decimal number which is the same float32.

    Args:
        values: Of any shape; the floats are in their flat order.

    Raises:
        InferenceFailedError: a number is NaN or infinite.
    """
    flat = np.asarray(values, dtype=np.float32).ravel()
    expect_finite(flat)
    return _printed(flat) if len(flat) < MANY else _rounded(flat).tolist()


def expect_finite(values: NDArray[np.float32]) -> None:
    """Refuse NaN and infinity, which are no JSON and no answer.

    Raises:
        InferenceFailedError: there is one.
    """
    if not np.isfinite(values).all():
        raise InferenceFailedError("the model returned numbers that are not finite")


def _printed(values: NDArray[np.float32]) -> list[float]:
    return [float(number) for number in values.astype(str)]


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Round each number to the fewest digits that give it back: five times as fast as printing and reading it."""
    exact = values.astype(np.float64)
    size = np.abs(exact)
    shortest = exact.copy()
    left = np.flatnonzero((size > SMALLEST) & (size < LARGEST))
    unusual = np.flatnonzero(((size <= SMALLEST) & (size > 0)) | (size >= LARGEST))
    for digits in DIGITS:
        places = digits - 1 - np.floor(np.log10(size[left])).astype(np.int64)
        up, down = 10.0 ** np.maximum(places, 0), 10.0 ** np.maximum(-places, 0)
        rounded = np.rint(exact[left] * up / down) / up * down
        same = rounded.astype(np.float32) == values[left]
        shortest[left[same]] = rounded[same]
        left = left[~same]
    rest = np.concatenate([unusual, left])
    shortest[rest] = _printed(values[rest])
    return shortest
