"""How long the texts of a benchmark are, in tokens, and texts of these lengths.

Four distributions are those of Apache Beam's sort_and_batch_benchmark, in the order in which Python's generator draws
them there, so that figures can be compared. Any other Python draws the same.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Beam's.
SEED: Final = 42

#: Tokens, Beam's: the most of a text.
LONGEST: Final = 500

#: Tokens of the natural texts: nobody sends less than a word between two special tokens, and half of an encoder's 512
#: is a long text.
NATURAL: Final = (5, 256)

#: Of a short text and a long one, and how many texts have one long among them.
SHORT, LONG, ONE_IN = 4, 400, 64


def _pareto(draw: random.Random) -> float:
    """Most are one token long, and few are very long."""
    return draw.paretovariate(1.2)


def _log_normal(draw: random.Random) -> float:
    return draw.lognormvariate(math.log(50), 0.8)


def _bimodal(draw: random.Random) -> float:
    """Seven of ten are about 20 tokens long, the others about 200."""
    mean = 20 if draw.random() < 0.7 else 200  # noqa: PLR2004 - as said above
    return draw.gauss(mean, 0.3 * mean)


def _low_variance(draw: random.Random) -> float:
    return draw.gauss(100, 10)


def _natural(draw: random.Random) -> float:
    """The lengths that sentences and paragraphs have: on average 45 tokens, and one of ten has 78 or more."""
    return draw.lognormvariate(math.log(38.5), 0.55)


BEAM: Final[Mapping[str, Callable[[random.Random], float]]] = {
    "Pareto": _pareto,
    "log-normal": _log_normal,
    "bimodal": _bimodal,
    "low variance": _low_variance,
}


def beam(name: str, count: int) -> list[int]:
    """Return the lengths of one of BEAM's distributions, 1 to LONGEST tokens."""
    return _draw(BEAM[name], count, 1, LONGEST)


def natural(count: int) -> list[int]:
    """Return lengths of NATURAL tokens."""
    return _draw(_natural, count, *NATURAL)


def one_long(count: int) -> list[int]:
    """Return SHORT lengths, but every ONE_IN-th from the first on is LONG."""
    return [SHORT if index % ONE_IN else LONG for index in range(count)]


def texts(lengths: Sequence[int], tokenizer: Any) -> list[str]:
    """Return a text of exactly so many tokens for each length, special tokens included.

    Args:
        lengths: Those below the tokenizer's special tokens and one word are raised to it.
        tokenizer: With words of one token in its vocabulary, as WordPiece has.
    """
    special = tokenizer.num_special_tokens_to_add()
    # The sorted vocabulary: its own order is a hash map's. One letter may be a word of one token and a part of others.
    words = [word for word in sorted(tokenizer.get_vocab()) if word.isalpha() and tokenizer.tokenize(word) == [word]]
    draw = random.Random(SEED)  # noqa: S311 - texts, not secrets
    return [" ".join(draw.choices(words, k=max(length - special, 1))) for length in lengths]


def _draw(distribution: Callable[[random.Random], float], count: int, shortest: int, longest: int) -> list[int]:
    draw = random.Random(SEED)  # noqa: S311 - lengths, not secrets
    return [min(max(int(distribution(draw)), shortest), longest) for _ in range(count)]
