"""How the demo's miniatures learn the toys: tiny models of ten families, from scratch, in some seconds each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
import transformers

from nlp_schemas import TaskName
from nlp_worker.demo import fit
from nlp_worker.demo import toy_lessons as lessons
from nlp_worker.demo.toys import HYPOTHESIS, toys_to_ask, toys_to_learn
from nlp_worker.demo.vocabularies import MAX_TOKENS, byte_level, unigram, word_piece

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from nlp_worker.demo.fit import Batch
    from nlp_worker.demo.toy_lessons import Features
    from nlp_worker.demo.toys import Toy

#: Toys that the words are taken from: enough to meet every one of a grammar.
VOCABULARY_TOYS: Final = 3000
#: Toys that a miniature is measured on.
MEASURED: Final = 120
#: The default of 0.02 starts so close to zero that models this small take twice the steps.
INITIALIZER_RANGE: Final = 0.1

#: As the large models of each family are built, at a hundredth of their size.
ENCODER: Final = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": MAX_TOKENS,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": INITIALIZER_RANGE,
}
DISTILBERT: Final = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 128,
    "max_position_embeddings": MAX_TOKENS,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "initializer_range": INITIALIZER_RANGE,
}
BART: Final = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": MAX_TOKENS,
    "dropout": 0.0,
    "init_std": INITIALIZER_RANGE,
    "decoder_start_token_id": 2,
}
T5: Final = {
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
    "n_positions": MAX_TOKENS,
    "dropout_rate": 0.0,
}
GPT2: Final = {
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": MAX_TOKENS,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "initializer_range": INITIALIZER_RANGE,
}
ROBERTA_SPECIALS: Final = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _gpt2(texts: Sequence[str]) -> Any:
    tokenizer = byte_level(transformers.GPT2Tokenizer, ["<|endoftext|>"], texts)
    # It has none of its own, and batches need one.
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@dataclass(frozen=True)
class Recipe:
    """What one task's miniature is made of."""

    tokenizer: Callable[[Sequence[str]], Any]
    """Makes it of the texts."""
    model: Any
    """The Auto class of its head."""
    family: str
    config: Mapping[str, Any]
    features: Callable[[Any, Toy], Iterator[Features]]
    """What the model learns of a toy; several for zero-shot classification, which is asked label by label."""
    toys: int
    epochs: int
    batch_toys: int = 32
    rate: float = 3e-3
    word_rate: float = 1e-2
    labels: Sequence[str] = ()
    loss: Callable[[Any, Batch], torch.Tensor] = lessons.loss
    right: Callable[[Any, Batch], torch.Tensor] = lessons.right
    """Tells for each row whether all of the answer is right."""


RECIPES: Final[Mapping[TaskName, Recipe]] = {
    TaskName.ZERO_SHOT_CLASSIFICATION: Recipe(
        family="albert",
        model=transformers.AutoModelForSequenceClassification,
        tokenizer=partial(unigram, transformers.AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
        config={**ENCODER, "embedding_size": 64, "classifier_dropout_prob": 0.0},
        features=lessons.of_pairs,
        labels=lessons.NLI,
        loss=lessons.entailment_loss,
        right=lessons.right_entailment,
        toys=2000,
        epochs=2,
        batch_toys=16,
        rate=1e-3,
    ),
    TaskName.TOKEN_CLASSIFICATION: Recipe(
        family="bert",
        model=transformers.AutoModelForTokenClassification,
        tokenizer=partial(word_piece, transformers.BertTokenizer, do_lower_case=False),
        config=ENCODER,
        features=lessons.of_entities,
        labels=lessons.ENTITIES,
        toys=2000,
        epochs=2,
    ),
    TaskName.FILL_MASK: Recipe(
        family="roberta",
        model=transformers.AutoModelForMaskedLM,
        tokenizer=partial(byte_level, transformers.RobertaTokenizer, ROBERTA_SPECIALS),
        # Its positions begin after that of the padding.
        config={**ENCODER, "max_position_embeddings": MAX_TOKENS + 2, "type_vocab_size": 1},
        features=lessons.of_mask,
        toys=1000,
        epochs=4,
    ),
    TaskName.QUESTION_ANSWERING: Recipe(
        family="distilbert",
        model=transformers.AutoModelForQuestionAnswering,
        tokenizer=partial(word_piece, transformers.DistilBertTokenizer),
        config={**DISTILBERT, "initializer_range": 0.2},
        features=lessons.of_span,
        right=lessons.right_span,
        toys=4000,
        epochs=3,
        rate=1e-3,
        word_rate=3e-3,
    ),
    TaskName.SUMMARIZATION: Recipe(
        family="bart",
        model=transformers.AutoModelForSeq2SeqLM,
        tokenizer=partial(byte_level, transformers.BartTokenizer, ROBERTA_SPECIALS),
        config=BART,
        features=lessons.of_text,
        toys=4000,
        epochs=1,
    ),
    TaskName.TRANSLATION: Recipe(
        family="t5",
        model=transformers.AutoModelForSeq2SeqLM,
        tokenizer=partial(unigram, transformers.T5Tokenizer, ("<pad>", "</s>", "<unk>"), extra_ids=0),
        config=T5,
        features=lessons.of_text,
        toys=3200,
        epochs=1,
    ),
    TaskName.TEXT_GENERATION: Recipe(
        family="gpt2",
        model=transformers.AutoModelForCausalLM,
        tokenizer=_gpt2,
        config=GPT2,
        features=lessons.of_continuation,
        loss=lessons.loss_of_next,
        right=lessons.right_next,
        toys=3000,
        epochs=2,
    ),
    TaskName.FEATURE_EXTRACTION: Recipe(
        family="electra",
        model=transformers.AutoModel,
        tokenizer=partial(word_piece, transformers.ElectraTokenizer),
        config={**ENCODER, "embedding_size": 64},
        features=lessons.of_topic,
        loss=lessons.contrast,
        right=lessons.right_neighbour,
        toys=1000,
        epochs=2,
    ),
    TaskName.MULTIPLE_CHOICE: Recipe(
        family="bert",
        model=transformers.AutoModelForMultipleChoice,
        tokenizer=partial(word_piece, transformers.BertTokenizer),
        config=ENCODER,
        features=lessons.of_choices,
        toys=2000,
        epochs=2,
        rate=1e-3,
    ),
}


def learn(task: TaskName, seed: int, progress: Callable[[float], None]) -> tuple[Any, Any, float]:
    """Train a tokenizer and a model on a task's toys.

    Args:
        task: Any but text classification.
        seed: The same seed learns the same, up to float noise.
        progress: Called after every step with the share of the training that is done, up to 1.

    Returns:
        The tokenizer, the model, and the share of the held-out toys that it gets right.
    """
    recipe = RECIPES[task]
    held_out, drawn = toys_to_ask(task, MEASURED), toys_to_learn(task, max(recipe.toys, VOCABULARY_TOYS), seed)
    tokenizer = recipe.tokenizer([text for toy in drawn for text in texts_of(toy)])
    with fit.seeded(seed) as shuffler:
        model = _new_model(recipe, tokenizer)
        rows = [features for toy in drawn[: recipe.toys] for features in recipe.features(tokenizer, toy)]
        batches = [
            _batch(rows[start : start + recipe.batch_toys], tokenizer.pad_token_id)
            for start in range(0, len(rows), recipe.batch_toys)
        ]
        fit.fit(
            model,
            batches,
            shuffler,
            progress,
            epochs=recipe.epochs,
            rate=recipe.rate,
            word_rate=recipe.word_rate,
            loss=recipe.loss,
        )
        rows_held = [features for toy in held_out for features in recipe.features(tokenizer, toy)]
        with torch.inference_mode():
            right = recipe.right(model, _batch(rows_held, tokenizer.pad_token_id))
        return tokenizer, model, float(right.double().mean())


def texts_of(toy: Toy) -> Iterator[str]:
    """Yield every text that the model reads or writes, the words as they stand in it."""
    inputs = toy.inputs.values() if isinstance(toy.inputs, dict) else [toy.inputs]
    for text in inputs:
        yield from [text] if isinstance(text, str) else text
    yield from (HYPOTHESIS.format(label) for label in toy.parameters.get("candidate_labels", ()))
    # As a continuation, too: byte-level tokens of words have the space before them.
    yield from (toy.expected, f" {toy.expected}")


def _new_model(recipe: Recipe, tokenizer: Any) -> Any:
    config = transformers.AutoConfig.for_model(
        recipe.family,
        **recipe.config,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    if recipe.labels:
        config.id2label = dict(enumerate(recipe.labels))
        config.label2id = {label: index for index, label in enumerate(recipe.labels)}
    return recipe.model.from_config(config)


def _batch(rows: Sequence[Features], padding: int) -> Batch:
    fills = {"input_ids": padding, "labels": lessons.IGNORED}
    return {name: torch.from_numpy(_padded([row[name] for row in rows], fills.get(name, 0))) for name in rows[0]}


def _padded(values: Any, fill: int) -> NDArray[np.int64]:
    """Return nested lists as an array, padded on the right to the longest of each depth."""
    if isinstance(values, int):
        return np.asarray(values, dtype=np.int64)
    arrays = [_padded(value, fill) for value in values]
    shape = np.max([array.shape for array in arrays], axis=0).astype(int)
    filled = np.full((len(arrays), *shape), fill, dtype=np.int64)
    for index, array in enumerate(arrays):
        place: tuple[int | slice, ...] = (index, *(slice(length) for length in array.shape))
        filled[place] = array
    return filled
