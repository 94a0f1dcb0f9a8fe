"""Which token stands for a word, in training and where answers are compared: its first (Devlin et al. 2019, 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def first_tokens(words: Sequence[tuple[int, int]], tokens: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Return for each word that has a token the indices of its first one, and of the word.

    Args:
        words: Start and end of each, in the order of the text.
        tokens: Start and end of each, likewise; of those that stand for no text both are the same.
    """
    word, seen = 0, -1
    for token, (start, end) in enumerate(tokens):
        while word < len(words) and words[word][1] <= start:
            word += 1
        if word < len(words) and word > seen and words[word][0] < end and start < end:
            seen = word
            yield token, word
