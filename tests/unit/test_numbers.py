"""Numbers in answers: as short as they can be, and exactly the model's."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlp_worker.errors import InferenceFailedError
from nlp_worker.tasks.numbers import MANY, shortest_floats, softmax

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, max_size=2 * MANY))
def test_each_number_is_the_shortest_that_gives_the_same_float32(numbers: list[float]) -> None:
    """As numpy prints it, for a few numbers and for many at once; and what JSON says is read back as it was."""
    values = np.array(numbers, dtype=np.float32)
    ours = shortest_floats(values)
    assert ours == [float(number) for number in values.astype(str)]
    assert np.array_equal(np.array(json.loads(json.dumps(ours)), dtype=np.float32), values)


def test_every_size_of_number_is_rounded_right() -> None:
    """A seeded sweep over all exponents."""
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    values = bits[np.isfinite(bits)]
    assert shortest_floats(values) == [float(number) for number in values.astype(str)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_no_answer(bad: float) -> None:
    """NaN and infinity are no JSON."""
    with pytest.raises(InferenceFailedError, match="not finite"):
        shortest_floats(np.array([1.0, bad], dtype=np.float32))


def test_softmax_takes_logits_of_any_size() -> None:
    """Above 88 a plain exp() overflows."""
    assert softmax(np.array([1000.0, 1000.0, 0.0], dtype=np.float32)).tolist() == [0.5, 0.5, 0.0]
