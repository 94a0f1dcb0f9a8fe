"""Tiny checkpoints for tests: random weights, a really trained tokenizer, each family's own files in a folder.

They answer nonsense, but nonsense that depends on every token of its text: on a collapsed model, which gives all texts
one answer, a test of padding or batching would pass whatever the code does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Entries of a tokenizer; more than the alphabet, so that there are words of one token and of several.
VOCABULARY: Final = 300
#: As above; byte-level BPE spends 256 on its alphabet alone.
BYTE_VOCABULARY: Final = 400
#: Tokens that the tokenizers allow, as in the real checkpoints; positions are a few more (RoBERTa loses two).
MODEL_MAX_LENGTH: Final = 512
MAX_POSITIONS: Final = 520
#: The default, 0.02, gives every text the same logits at this size.
INITIALIZER_RANGE: Final = 0.6
#: Standard deviation of what is added to biases and norms, which else start as 0 and 1 and so are never really tested.
NOISE: Final = 0.2
#: Makes attention outweigh the residual stream, so that a token's output depends on the others.
ATTENTION_GAIN: Final = 3.0
#: What each label's logits are scaled to, over SENTENCES: differences are far above float noise, and softmax is not
#: saturated, which would hide them.
LOGITS_STD: Final = 1.5

#: What the tokenizers are trained on.
SENTENCES: Final[Sequence[str]] = (
    "I love this film.",
    "I hate this film!",
    "What a wonderful, wonderful day it was.",
    "The food was cold, the service slow and the bill far too high.",
    "Nobody answered the telephone, and so we left.",
    "The quick brown fox jumps over the lazy dog.",
    "Pack my box with five dozen liquor jugs.",
    "Is this the best that you can do?",
    "It is neither good nor bad; it is simply there.",
    "She said that the train would arrive at 17:45, but it never came.",
    "Ann and Bob went to Paris in 2019, and to Rome in 2023.",
    "My order (no. 8461) has not been delivered yet.",
    "Thank you very much for your kind and quick help!",
    "The battery lasts three days, which is more than I expected.",
    "A dull story, badly told and worse acted.",
    "We were delighted with the room, the view and the breakfast.",
    "The screen broke after a week. I want my money back.",
    "Great value: half the price, and twice as fast.",
    "The committee will meet on Monday to discuss the budget.",
    "Rain is expected in the north, with some sun later in the day.",
    "The museum opens at nine and closes at six, except on Sundays.",
    "This book changed how I think about the sea.",
    "He wrote the letter, read it again, and threw it away.",
    "The company reported a profit of 4.2 million dollars for the year.",
    "Never again will I buy anything from this shop.",
    "The children were happy, the parents tired.",
    "An honest, moving and often very funny play.",
    "The lecture was so boring that half of the audience fell asleep.",
    "Water boils at 100 degrees, at least at the level of the sea.",
    "The new version is slower than the old one, and crashes more often.",
    "Everyone in the team was friendly, patient and well prepared.",
    "The match ended in a draw after ninety minutes of rain.",
    "I don't know what to say; it's just perfect.",
    "They've lost the keys, the map & the way.",
    'The label said "fragile", yet the box had been dropped.',
    "The doctor explained everything twice, and calmly.",
    "A terrible noise kept us awake all night long.",
    "The bridge was built in 1887 and painted red last summer.",
    "Prices start at $35 per person; groups of ten pay 20% less.",
    "The garden smells of roses, lavender and freshly cut grass.",
    "It worked for ten minutes. Then smoke came out of it.",
    "The journey takes about four hours by bus or two by train.",
)


@dataclass(frozen=True)
class _Family:
    tokenizer: Any
    train: Callable[[Tokenizer], dict[str, Any]]
    """Trains in the setting of an empty tokenizer of the family; returns what the tokenizer's class is built of."""
    config: Mapping[str, object]


def _train_word_piece(setting: Tokenizer) -> dict[str, Any]:
    letters = sorted({letter for letter in "".join(SENTENCES).lower() if letter.isalnum()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        # The continuing letters too: else the trainer numbers them as a hash map yields its words, and breaks ties by
        # these numbers, so that every run would learn another vocabulary.
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    return {"vocab": _train(setting, models.WordPiece(unk_token="[UNK]"), trainer)["vocab"]}  # noqa: S106 - no password


def _train_unigram(setting: Tokenizer) -> dict[str, Any]:
    specials = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=specials,
        unk_token="<unk>",  # noqa: S106 - no password
        show_progress=False,
    )
    entries = _train(setting, models.Unigram(), trainer)["vocab"]
    # Rounded and then sorted: the trainer goes through hash maps, so in every run the last digits of the scores differ,
    # and so does which of the rarest letters gets which score.
    pieces = sorted((-round(score, 2), piece) for piece, score in entries if piece not in specials)
    return {"vocab": [*((piece, 0.0) for piece in specials), *((piece, -cost) for cost, piece in pieces)]}


def _train_byte_level(setting: Tokenizer) -> dict[str, Any]:
    trainer = trainers.BpeTrainer(
        vocab_size=BYTE_VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        # Sorted: alphabet() is a set, and the ids would change from run to run.
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    model = _train(setting, models.BPE(), trainer)
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def _train(setting: Tokenizer, model: Any, trainer: Any) -> dict[str, Any]:
    """Train with the family's own normalizer and pre-tokenizer; return the model as tokenizer.json writes it."""
    tokenizer = Tokenizer(model)
    if setting.normalizer is not None:
        tokenizer.normalizer = setting.normalizer
    tokenizer.pre_tokenizer = setting.pre_tokenizer
    tokenizer.train_from_iterator(SENTENCES, trainer)
    trained: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return trained


_SIZE: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": INITIALIZER_RANGE,
    "type_vocab_size": 2,
}
_DISTILBERT_SIZE: Final = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": INITIALIZER_RANGE,
}
_FAMILIES: Final = {
    "albert": _Family(transformers.AlbertTokenizer, _train_unigram, {**_SIZE, "embedding_size": 16}),
    "bert": _Family(transformers.BertTokenizer, _train_word_piece, _SIZE),
    "distilbert": _Family(transformers.DistilBertTokenizer, _train_word_piece, _DISTILBERT_SIZE),
    "electra": _Family(transformers.ElectraTokenizer, _train_word_piece, {**_SIZE, "embedding_size": 16}),
    "roberta": _Family(transformers.RobertaTokenizer, _train_byte_level, {**_SIZE, "type_vocab_size": 1}),
}
FAMILIES: Final[tuple[str, ...]] = tuple(_FAMILIES)


def build_sequence_classifier(
    family: str,
    folder: Path,
    *,
    labels: Sequence[str] = ("NEGATIVE", "NEUTRAL", "POSITIVE"),
    problem_type: str | None = None,
    seed: int = 0,
    **config: object,
) -> Path:
    """Write a sequence classifier of the family and its tokenizer to the folder, and return the folder.

    Args:
        family: One of FAMILIES.
        folder: Made where it does not exist.
        labels: The names of the logits, in order.
        problem_type: As in the configs of transformers: what turns logits into scores.
        seed: The same seed writes the same files.
        config: Settings of the family's config class, over the ones here.
    """
    tokenizer = _build_tokenizer(_FAMILIES[family])
    settings = {
        **_FAMILIES[family].config,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": problem_type,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_config(
            transformers.AutoConfig.for_model(family, **settings)
        )
        _spread(model)
    model.eval()
    _calibrate(model, tokenizer)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _build_tokenizer(family: _Family) -> Any:
    trained = family.train(family.tokenizer().backend_tokenizer)
    return family.tokenizer(**trained, model_max_length=MODEL_MAX_LENGTH)


@torch.no_grad()
def _spread(model: Any) -> None:
    """Make a random model's answers depend on all of it: on its biases and norms, and on the other tokens."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn_like(parameter) * NOISE)
        elif name.endswith(("attention.output.dense.weight", "attention.out_lin.weight", "attention.dense.weight")):
            parameter.mul_(ATTENTION_GAIN)


@torch.no_grad()
def _calibrate(model: Any, tokenizer: Any) -> None:
    """Scale and shift the last layer, so that over SENTENCES each label's logits have mean 0 and LOGITS_STD.

    Without it some seeds give every text the same label.
    """
    # 32 tokens: within the positions of any config a test may ask for, and long enough to tell the texts apart.
    inputs = tokenizer(list(SENTENCES), padding=True, truncation=True, max_length=32, return_tensors="pt")
    last = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)][-1]
    last.bias.zero_()
    logits = model(**inputs).logits
    gain = LOGITS_STD / logits.std(dim=0)
    last.weight.mul_(gain[:, None])
    last.bias.copy_(-logits.mean(dim=0) * gain)
