"""Tiny checkpoints for tests: every family with every head, random weights, a really trained tokenizer, in a folder.

They answer nonsense, but nonsense that depends on every token of its text: on a collapsed model, which gives all texts
one answer, a test of padding or batching would pass whatever the code does.

The weights are drawn here, not by transformers: golden answers are kept, and another version of it must build the same
checkpoint.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from tiny_families import FAMILY
from tiny_texts import SENTENCES
from tiny_tokenizers import save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["FAMILIES", "HEADS", "SENTENCES", "build_checkpoint"]

HEADS: Final[Mapping[str, tuple[str, ...]]] = {name: family.heads for name, family in FAMILY.items()}
FAMILIES: Final[tuple[str, ...]] = tuple(HEADS)

_CLASSES: Final = {
    "base": transformers.AutoModel,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "masked-lm": transformers.AutoModelForMaskedLM,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "multiple-choice": transformers.AutoModelForMultipleChoice,
    "causal-lm": transformers.AutoModelForCausalLM,
    "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
}
_LABELS: Final = {
    "sequence-classification": ("NEGATIVE", "NEUTRAL", "POSITIVE"),
    "token-classification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
#: A layer's output has the first times the standard deviation of its input; far below, all texts get the same logits,
#: far above, float noise grows. The second makes attention outweigh the residual stream, so that a token's output
#: depends on the others. A model that generates needs sharper attention, or it repeats itself.
GAINS: Final = (2.0, 2.0)
GENERATING_GAINS: Final = (2.5, 1.5)
_GENERATING: Final = ("causal-lm", "seq2seq-lm")
#: Standard deviation of what is added to biases and norms, which else start as 0 and 1 and so are never really tested.
NOISE: Final = 0.2
#: Standard deviation of a language model's logits: neither near-ties, which float noise would decide, nor certainty.
WORD_LOGITS_STD: Final = 2.5
#: What each label's logits are scaled to, over SENTENCES: differences are far above float noise, and softmax is not
#: saturated, which would hide them.
LOGITS_STD: Final = 1.5
#: "O" is above the other labels by this, as there are words between entities.
OUTSIDE: Final = 1.0
#: New tokens that a generated row has in tests, the steps at which it is good for them that it ends, and how many rows
#: that do for one that goes on.
NEW_TOKENS: Final = 40
END_STEPS: Final = (2, 29)
END_ODDS: Final = 2
#: Different tokens in a row of NEW_TOKENS that does not merely repeat itself.
LIVELY: Final = 4
#: Random models of which the first that is not collapsed is taken.
DRAWS: Final = 40
_ATTENTION_OUTPUT: Final = re.compile(
    r"(attn|attention)\.(output\.dense|out_lin|dense|c_proj|Wo|out_proj|o_proj|o)\.weight$", re.IGNORECASE
)


def build_checkpoint(
    family: str,
    head: str,
    folder: Path,
    *,
    labels: Sequence[str] = (),
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a model of the family with the head, and its tokenizer, to the folder, and return the folder.

    Args:
        family: One of FAMILIES.
        head: One of HEADS[family].
        folder: Made where it does not exist.
        labels: The names of a classifier's logits, in order; by default three of sentiment, or BIO tags.
        seed: The same seed writes the same files.
        config: Settings of the family's config class, over the ones here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(family, folder)
    settings = {**FAMILY[family].config, "vocab_size": len(tokenizer), **FAMILY[family].config_ids(tokenizer)}
    if head in _LABELS:
        names = tuple(labels) or _LABELS[head]
        settings["id2label"] = dict(enumerate(names))
        settings["label2id"] = {label: index for index, label in enumerate(names)}
    settings |= config
    with torch.random.fork_rng(devices=[]):
        model = _CLASSES[head].from_config(transformers.AutoConfig.for_model(family, **settings)).eval()
    if head in _GENERATING:
        generation = FAMILY[family].generation_settings(tokenizer, settings, head)
        model.generation_config = transformers.GenerationConfig(**generation)
    random = torch.Generator().manual_seed(seed)
    for _ in range(DRAWS):
        _draw(model, random, *(GENERATING_GAINS if head in _GENERATING else GAINS))
        if _calibrate(model, tokenizer, head):
            break
    else:
        raise RuntimeError(f"{DRAWS} draws of {family} for {head} gave no answers that a test could use.")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def _draw(model: Any, random: torch.Generator, gain: float, attention_gain: float) -> None:
    """Draw all weights, in the order of their names, so that answers depend on all of them and on every token."""
    transposed = {id(module.weight) for module in model.modules() if type(module).__name__ == "Conv1D"}
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    for name, weight in sorted(model.named_parameters()):
        if not weight.requires_grad:
            continue  # Marian's positions are a fixed function
        noise = torch.randn(weight.shape, generator=random)
        if weight.dim() == 1:
            # Norms of both signs: else a language model whose last layer is its first repeats the last token for ever.
            weight.copy_((1 + noise.abs() * NOISE) * noise.sign() if name.endswith("weight") else noise * NOISE)
        elif id(weight) in embeddings:
            weight.copy_(noise * _embedding_std(model, name, weight))
        else:
            std = gain * weight.shape[0 if id(weight) in transposed else 1] ** -0.5
            if _ATTENTION_OUTPUT.search(name):
                std *= attention_gain
            if name.endswith("Attention.q.weight"):
                std *= model.config.d_kv**-0.5  # T5 does not scale the products
            weight.copy_(noise * std)


def _embedding_std(model: Any, name: str, weight: torch.Tensor) -> float:
    if "relative_attention_bias" in name:
        return 1.0
    # Tied to the last layer, which takes vectors of about this length times the root of their size; T5 divides by it.
    return WORD_LOGITS_STD * (1.0 if model.config.model_type == "t5" else weight.shape[1] ** -0.5)


def _calibrate(model: Any, tokenizer: Any, head: str) -> bool:
    """Fit the last layer; tell whether the answers differ enough."""
    if head in {"base", "masked-lm"}:
        return True
    if head in _GENERATING:
        return _calibrate_end(model, tokenizer)
    return _calibrate_classifier(model, tokenizer, head)


@torch.no_grad()
def _calibrate_classifier(model: Any, tokenizer: Any, head: str) -> bool:
    """Scale and shift the last layer, so that over SENTENCES each label's logits have mean 0 and LOGITS_STD.

    Without it some seeds give every text the same label; whether now each label is some text's is returned.
    """
    last: Any = [
        layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and not name.startswith(f"{model.base_model_prefix}.")
    ][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _layer, args, _output: seen.append(args[0]))
    inputs = _batch(tokenizer, head)
    no_pad = model.config.pad_token_id is None
    if no_pad:
        # A classifier without one takes no batch. Any token that SENTENCES lack will do.
        model.config.pad_token_id = _pad(tokenizer)
    model(**{name: tensor[None] if head == "multiple-choice" else tensor for name, tensor in inputs.items()})
    if no_pad:
        model.config.pad_token_id = None
    hook.remove()
    (features,) = seen
    mask = inputs["attention_mask"]
    if features.dim() == 3:
        # Decoders classify by the last token, and compute all.
        each = head != "sequence-classification"
        features = features[mask.bool()] if each else features[range(len(mask)), mask.sum(dim=1) - 1]
    logits = features @ last.weight.T
    mean = logits.mean(dim=0)
    gain = LOGITS_STD / logits.std(dim=0)
    if last.bias is None:
        centre = features.mean(dim=0)
        last.weight.sub_(mean[:, None] * centre / centre.square().sum())
        gain = LOGITS_STD / (features @ last.weight.T).std(dim=0)
    else:
        outside = [label == "O" for label in (model.config.id2label[index] for index in range(len(gain)))]
        last.bias.copy_(torch.tensor(outside) * OUTSIDE - mean * gain)
    last.weight.mul_(gain[:, None])
    answers = torch.nn.functional.linear(features, last.weight, last.bias).argmax(dim=1)
    return len(set(answers.tolist())) == len(gain)


@torch.no_grad()
def _calibrate_end(model: Any, tokenizer: Any) -> bool:
    """Fit the end token's logit so that some rows end at different steps and others go on; tell if so.

    The other special tokens are lowered: a trained model does not say them, and a random one would at every tenth step.
    """
    ends = model.generation_config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    special = sorted(set(tokenizer.all_special_ids) - {end})
    bias = getattr(model, "final_logits_bias", None)
    weight = model.get_output_embeddings().weight
    if bias is None:
        weight[special] *= 0.1
    else:
        bias.zero_()
        bias[0, special] = -1000.0
    if end is None:
        return True
    inputs = _batch(tokenizer, "seq2seq-lm" if model.config.is_encoder_decoder else "causal-lm")
    output = model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        min_length=0,
        max_length=None,
        max_new_tokens=NEW_TOKENS,
        suppress_tokens=[end],
        forced_eos_token_id=None,
        pad_token_id=_pad(tokenizer),
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = torch.stack(output.logits, dim=1)
    of_end = logits[:, :, end].clone()
    logits[:, :, end] = -torch.inf
    best = logits.amax(dim=2)
    needed = best - of_end if bias is not None else torch.where(of_end > 0, best / of_end, torch.inf)
    rows = output.sequences[:, -NEW_TOKENS:]
    level, counted = _end_level(needed)
    if bias is not None:
        bias[0, end] = level
    else:
        weight[end] *= level
    distinct = len({tuple(row.tolist()) for row in rows}) / len(rows)
    varied = sum(len(set(row.tolist())) >= LIVELY for row in rows) / len(rows)
    return counted >= len(rows) / 3 and distinct > 0.8 and varied > 0.5


def _end_level(needed: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Choose what to add to the end token's logit, or to multiply it by, from what each row needs at each step.

    As many rows as can be are to end where a test wants it, neither at once nor hardly ever; their number is returned.
    """
    steps = needed.shape[1]
    first, last = END_STEPS
    levels = needed[needed.isfinite()].sort().values
    # Between two, where float noise does not matter.
    levels = (levels[1:] + levels[:-1]) / 2
    ended = (needed[None] <= levels[:, None, None]).long()
    step = torch.where(ended.any(dim=2), ended.argmax(dim=2), steps)
    useful = ((step >= first) & (step <= last)).sum(dim=1)
    going_on = (step == steps).sum(dim=1)
    at_once = (step < first).sum(dim=1)
    counted = torch.minimum(useful, going_on * END_ODDS)
    best = int((counted - at_once).argmax())
    return levels[best], int(counted[best])


def _pad(tokenizer: Any) -> int:
    ids = tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
    return next(int(index) for index in ids if index is not None)


def _batch(tokenizer: Any, head: str) -> dict[str, torch.Tensor]:
    """SENTENCES as the head takes them; short, so that they are within the positions of any config a test asks for."""
    # A model that goes on is given beginnings, of 3 to 14 tokens.
    sizes = [3 + at % 12 if head == "causal-lm" else 32 for at in range(len(SENTENCES))]
    side = "left" if head == "causal-lm" else "right"
    rows = [
        torch.tensor(tokenizer(text, truncation=True, max_length=size)["input_ids"])
        for text, size in zip(SENTENCES, sizes, strict=True)
    ]
    ids = pad_sequence(rows, batch_first=True, padding_value=_pad(tokenizer), padding_side=side)
    ones = [torch.ones_like(row) for row in rows]
    return {"input_ids": ids, "attention_mask": pad_sequence(ones, batch_first=True, padding_side=side)}
