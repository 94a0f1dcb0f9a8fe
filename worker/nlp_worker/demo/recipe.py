"""How the demo's checkpoint is learnt: a miniature DistilBERT, from scratch, in some five seconds.

Not a recipe for anything else. It learns little more than which words VADER's lexicon calls good or bad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from tokenizers import Tokenizer, models, trainers

from nlp_worker.demo import fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LABELS: Final = ("NEGATIVE", "POSITIVE")
#: One sentence in so many is held out, to measure the accuracy on.
HELD_OUT: Final = 10

#: Most words of the sentences whole: pieces of words say little about sentiment.
VOCABULARY: Final = 8000
POSITIONS: Final = 512
#: A second layer takes half as long again and is no better: it is the words that count here.
SIZE: Final = {"dim": 64, "n_layers": 1, "n_heads": 4, "hidden_dim": 128}

#: A third gains nothing on the held-out sentences.
EPOCHS: Final = 2
BATCH_ROWS: Final = 32
#: The words learn fast, the layers slowly: at 3e-3 for all, a third of the runs end with one answer for everything.
WORD_LEARNING_RATE: Final = 1e-2
LEARNING_RATE: Final = 1e-3


def learn(sentences: Sequence[tuple[str, str]], seed: int, progress: Callable[[float], None]) -> tuple[Any, Any, float]:
    """Train a tokenizer and a model on labelled sentences.

    Args:
        sentences: Label and text of each.
        seed: The same seed learns the same, up to float noise.
        progress: Called after every step with the share of the training that is done, up to 1.

    Returns:
        The tokenizer, the model, and its accuracy on the held-out sentences.
    """
    held_out = sentences[::HELD_OUT]
    rest = [sentence for index, sentence in enumerate(sentences) if index % HELD_OUT]
    tokenizer = _train_tokenizer([text for _, text in rest])
    with fit.seeded(seed) as shuffler:
        model = _new_model(tokenizer)
        fit.fit(
            model,
            list(_batches(tokenizer, rest)),
            shuffler,
            progress,
            epochs=EPOCHS,
            rate=LEARNING_RATE,
            word_rate=WORD_LEARNING_RATE,
        )
        return tokenizer, model, _accuracy(model, _batches(tokenizer, held_out))


def _train_tokenizer(texts: Sequence[str]) -> Any:
    empty = transformers.DistilBertTokenizer().backend_tokenizer
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    trained.normalizer, trained.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    letters = sorted({letter for letter in "".join(texts).lower() if letter.isalnum()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        # The continuing letters too: else the trainer numbers them as a hash map yields its words, and breaks ties by
        # these numbers, so that every run would learn another vocabulary.
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return transformers.DistilBertTokenizer(vocab=trained.get_vocab(), model_max_length=POSITIONS)


def _new_model(tokenizer: Any) -> Any:
    config = transformers.DistilBertConfig(
        **SIZE,
        vocab_size=len(tokenizer),
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return transformers.AutoModelForSequenceClassification.from_config(config)


def _batches(tokenizer: Any, sentences: Sequence[tuple[str, str]]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield padded batches of sentences of like length: sorted, 2 % of the tokens are padding, else 67 %."""
    rows = tokenizer([text for _, text in sentences], truncation=True)["input_ids"]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), BATCH_ROWS):
        indices = order[start : start + BATCH_ROWS]
        batch = dict(tokenizer.pad({"input_ids": [rows[index] for index in indices]}, return_tensors="pt"))
        yield {**batch, "labels": torch.tensor([LABELS.index(sentences[index][0]) for index in indices])}


@torch.inference_mode()
def _accuracy(model: Any, batches: Iterator[dict[str, torch.Tensor]]) -> float:
    right = torch.cat([model(**batch).logits.argmax(dim=-1) == batch["labels"] for batch in batches])
    return float(right.double().mean())
