"""The tokenizers of the toys, of each kind that the families have: a word of the toys is a token, others are spelt."""

from __future__ import annotations

import json
import re
import string
from typing import TYPE_CHECKING, Any, Final

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Tokens that a text may have: some times what a toy has, and positions are cheap.
MAX_TOKENS: Final = 128

#: What words that no toy has are spelt with.
LETTERS: Final = string.ascii_letters + string.digits + ".,;:!?'-"

#: Log probabilities. A letter costs more than any whole word of as many letters.
WORD_SCORE: Final = -5.0
LETTER_SCORE: Final = -10.0

#: Entries of a byte-level vocabulary at most: far more than it takes until no word is left in pieces.
BYTE_LEVEL_ENTRIES: Final = 4000


def word_piece(family: Any, texts: Sequence[str], **options: Any) -> Any:
    """Make a tokenizer of BERT's kind."""
    words = set(_words(family(**options).backend_tokenizer, texts))
    letters = {*LETTERS, *(letter for word in words for letter in word)}
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*specials, *sorted(words | letters | {f"##{letter}" for letter in letters if letter.isalnum()})]
    return family(vocab={entry: index for index, entry in enumerate(entries)}, model_max_length=MAX_TOKENS, **options)


def unigram(family: Any, specials: Sequence[str], texts: Sequence[str], **options: Any) -> Any:
    """Make a tokenizer of SentencePiece's kind."""
    # The marks of a sentence are not part of its words here, as they are in SentencePiece's.
    words = {
        part for word in _words(family(**options).backend_tokenizer, texts) for part in re.findall(r"▁?\w+|\W", word)
    }
    letters = {"▁", *LETTERS, *(letter for word in words for letter in word)}
    entries = [
        *((special, 0.0) for special in specials),
        *((word, WORD_SCORE) for word in sorted(words - letters)),
        *((letter, LETTER_SCORE) for letter in sorted(letters)),
    ]
    return family(vocab=entries, model_max_length=MAX_TOKENS, **options)


def byte_level(family: Any, specials: Sequence[str], texts: Sequence[str], **options: Any) -> Any:
    """Make a tokenizer of GPT-2's kind."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = family(**options).backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_LEVEL_ENTRIES,
        special_tokens=list(specials),
        # Sorted: alphabet() is a set, and the ids would change from run to run.
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    # Each word as it begins a text and as it follows another, and each as often as any: so none is left in pieces.
    words = {word.removeprefix("Ġ") for word in _words(tokenizer, texts)}
    tokenizer.train_from_iterator(sorted(f"{space}{word}" for word in words for space in ("", " ")), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return family(vocab=model["vocab"], merges=merges, model_max_length=MAX_TOKENS, **options)


def _words(setting: Tokenizer, texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        normal = setting.normalizer.normalize_str(text) if setting.normalizer is not None else text
        yield from (word for word, _ in setting.pre_tokenizer.pre_tokenize_str(normal))
