"""The demo's sentences are what SENTENCES.md says of them."""

from __future__ import annotations

import statistics
from collections import Counter

from nlp_worker.demo.sentences import load_sentences


def test_labels_are_balanced() -> None:
    assert Counter(label for label, _ in load_sentences()) == {"NEGATIVE": 2400, "POSITIVE": 2400}


def test_no_sentence_is_there_twice() -> None:
    texts = [text for _, text in load_sentences()]
    assert len(set(texts)) == len(texts)


def test_every_text_is_one_clean_sentence() -> None:
    for _, text in load_sentences():
        assert text == " ".join(text.split())
        assert text.rstrip("\"')")[-1] in ".!?"
        assert text.count('"') % 2 == 0


def test_lengths_vary_as_in_real_text() -> None:
    # The demo shows what planning batches by length is worth, and would show nothing on sentences of one length.
    words = sorted(len(text.split()) for _, text in load_sentences())
    deciles = statistics.quantiles(words, n=10)
    assert (words[0], words[-1]) == (3, 186)
    assert deciles[8] > 5 * deciles[0]


def test_labels_are_mixed_along_the_file() -> None:
    # Every tenth sentence is held out of the training, and the demo may send only the first ones.
    for labels in ([label for label, _ in load_sentences()[::10]], [label for label, _ in load_sentences()[:480]]):
        assert 0.4 < labels.count("POSITIVE") / len(labels) < 0.6
