"""Truncation: the tokens that the `tokenizers` library leaves of a text or a pair, at the cost of what is left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from nlp_schemas import MAX_TEXT_CHARACTERS, GenerationParameters
from nlp_schemas.generation import MAX_CONTEXT, MAX_NEW_TOKENS
from nlp_schemas.request import MIN_MAX_LENGTH, Truncation
from nlp_worker.errors import InputTooLongError
from nlp_worker.tasks.encoder import Encoder
from nlp_worker.tasks.generation import Generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    FolderOf = Callable[..., Path]

FAMILIES: Final = ("albert", "bart", "bert", "deberta-v2", "gpt2", "roberta", "t5")
TEXTS: Final = st.lists(st.sampled_from(("a", "film", "</s>", "[SEP]", "<mask>", "é🙂")), max_size=30).map(" ".join)


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest, folder_of: FolderOf) -> Encoder:
    folder = folder_of(request.param, "sequence-classification")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    checkpoint: Any = SimpleNamespace(tokenizer=tokenizer, model=model, packing=False)
    return Encoder(checkpoint)


@settings(derandomize=True, deadline=None, max_examples=100, database=None)
@given(TEXTS, st.none() | TEXTS, st.integers(MIN_MAX_LENGTH, 24), st.sampled_from((True, "only_first")))
def test_what_is_left_is_what_tokenizers_leaves(
    encoder: Encoder, first: str, second: str | None, longest: int, strategy: str | bool
) -> None:
    (whole,) = encoder.tokenize([(first, second)])
    if whole.length <= longest:
        return
    try:
        pair = [first], None if second is None else [second]
        expected = encoder.tokenizer(*pair, truncation=strategy, max_length=longest, verbose=False)["input_ids"][0]
    except Exception:  # noqa: BLE001 - tokenizers raises nothing narrower
        expected = None

    try:
        row, _ = encoder.fit(whole, (first, second), Truncation(max_length=longest), strategy=strategy)
    except InputTooLongError:
        assert expected is None
        return

    assert row.features["input_ids"] == expected


def test_a_pair_of_the_longest_texts_is_cut_at_once(folder_of: FolderOf) -> None:
    # tokenizers pairs every piece that it cuts off the one text with every piece of the other: 24 GB for 6,000 letters.
    folder = folder_of("bert", "sequence-classification")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    checkpoint: Any = SimpleNamespace(tokenizer=tokenizer, model=model, packing=False)
    encoder = Encoder(checkpoint)
    pair = "a " * (MAX_TEXT_CHARACTERS // 2), "b " * (MAX_TEXT_CHARACTERS // 2)
    (whole,) = encoder.tokenize([pair])

    row, truncated = encoder.fit(whole, pair, Truncation(max_length=MIN_MAX_LENGTH))

    assert truncated
    assert row.length == MIN_MAX_LENGTH


def test_max_length_asks_for_no_more_than_max_new_tokens_may(folder_of: FolderOf) -> None:
    # T5 has no end of its positions: a million tokens would hold up the device for hours.
    folder = folder_of("t5", "seq2seq-lm")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    checkpoint: Any = SimpleNamespace(tokenizer=tokenizer, model=model, max_new_tokens=MAX_NEW_TOKENS)

    (row,) = Generator(checkpoint).rows({"input_ids": [1]}, GenerationParameters(max_length=MAX_CONTEXT))

    assert row.new_tokens == MAX_NEW_TOKENS
