"""The tiny checkpoints' families: which heads each has, and the settings that its real checkpoints ship with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Above MODEL_MAX_LENGTH, as in the real checkpoints: RoBERTa loses two.
MAX_POSITIONS: Final = 520


@dataclass(frozen=True)
class Family:
    heads: tuple[str, ...]
    config: Mapping[str, Any]
    """Settings of the config class, less the ids, which are the tokenizer's."""
    tokens: Mapping[str, Any] = field(default_factory=dict)
    """Ids of the config, by their tokens, besides pad, bos and eos as the tokenizer has them, or instead of these."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """What generation_config.json has besides these ids; for the seq2seq head alone in a family that has one."""
    generation_tokens: Mapping[str, Any] = field(default_factory=dict)
    """As above, by their tokens."""

    def config_ids(self, tokenizer: Any) -> dict[str, Any]:
        """Return the ids that config.json has."""
        return {
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.cls_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
            "eos_token_id": tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id,
            **{name: _ids(tokenizer, tokens) for name, tokens in self.tokens.items()},
        }

    def generation_settings(self, tokenizer: Any, config: Mapping[str, Any], head: str) -> dict[str, Any]:
        """Return what generation_config.json has."""
        names = ["pad_token_id", "bos_token_id", "eos_token_id"]
        if head == "causal-lm" and "seq2seq-lm" in self.heads:
            return {name: config[name] for name in names}
        names += ["decoder_start_token_id", "forced_eos_token_id"]
        return {
            **{name: config[name] for name in names if name in config},
            **self.generation,
            **{name: _ids(tokenizer, tokens) for name, tokens in self.generation_tokens.items()},
        }


def _ids(tokenizer: Any, tokens: Any) -> Any:
    if isinstance(tokens, str):
        return tokenizer.convert_tokens_to_ids(tokens)
    return [_ids(tokenizer, token) for token in tokens]


_CLASSIFIERS: Final = ("base", "sequence-classification", "token-classification", "question-answering")
_ENCODER: Final = (*_CLASSIFIERS[:3], "masked-lm", "question-answering", "multiple-choice")
_DECODER: Final = (*_CLASSIFIERS, "causal-lm")
_BART: Final = ("base", "sequence-classification", "masked-lm", "question-answering", "causal-lm", "seq2seq-lm")

_SIZE: Final = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_POSITIONS,
}
_BERT_SIZE: Final = {**_SIZE, "type_vocab_size": 2}
_DISTILBERT_SIZE: Final = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": MAX_POSITIONS,
}
_GPT_SIZE: Final = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": MAX_POSITIONS}
_BART_SIZE: Final = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": MAX_POSITIONS,
}
_SUMMARIZATION: Final = {
    "early_stopping": True,
    "length_penalty": 2.0,
    "max_length": 40,
    "min_length": 6,
    "no_repeat_ngram_size": 3,
    "num_beams": 4,
}
#: As in T5's own config, with lengths for tests.
_T5_TASKS: Final = {
    "summarization": {**_SUMMARIZATION, "prefix": "summarize: "},
    "translation_en_to_de": {
        "early_stopping": True,
        "max_length": 50,
        "num_beams": 4,
        "prefix": "translate English to German: ",
    },
    "translation_en_to_fr": {
        "early_stopping": True,
        "max_length": 50,
        "num_beams": 4,
        "prefix": "translate English to French: ",
    },
}

FAMILY: Final[Mapping[str, Family]] = {
    "albert": Family(_ENCODER, {**_BERT_SIZE, "embedding_size": 16}),
    "bert": Family(_ENCODER, _BERT_SIZE),
    "distilbert": Family(_ENCODER, _DISTILBERT_SIZE),
    "electra": Family(_ENCODER, {**_BERT_SIZE, "embedding_size": 16}),
    "roberta": Family(_ENCODER, {**_SIZE, "type_vocab_size": 1}),
    # Neither this one nor CTRL ships an end token: theirs is the full stop, so that rows stop at different steps.
    # eos_token_id=None makes one as shipped.
    "openai-gpt": Family(("base", "sequence-classification", "causal-lm"), _GPT_SIZE, {"eos_token_id": ".</w>"}),
    "gpt2": Family(_DECODER, _GPT_SIZE),
    "ctrl": Family(("base", "sequence-classification", "causal-lm"), {**_GPT_SIZE, "dff": 64}, {"eos_token_id": "."}),
    "bart": Family(
        _BART,
        # As in bart-large-cnn.
        {**_BART_SIZE, "prefix": " ", "task_specific_params": {"summarization": _SUMMARIZATION}},
        {"decoder_start_token_id": "</s>", "forced_eos_token_id": "</s>"},
        _SUMMARIZATION,
        {"forced_bos_token_id": "<s>"},
    ),
    # As in mbart-large-en-ro; the target language is forced by whoever translates.
    "mbart": Family(
        _BART,
        {**_BART_SIZE, "scale_embedding": True},
        {"decoder_start_token_id": "ro_RO", "forced_eos_token_id": "</s>"},
        {"max_length": 60, "num_beams": 5},
    ),
    # As in opus-mt-en-fr. With two random layers and its positions, which hardly differ, it repeats itself for ever.
    "marian": Family(
        ("base", "causal-lm", "seq2seq-lm"),
        {**_BART_SIZE, "decoder_layers": 1, "scale_embedding": True, "activation_function": "swish"},
        {"decoder_start_token_id": "<pad>", "forced_eos_token_id": "</s>"},
        {"max_length": 60, "num_beams": 4, "renormalize_logits": True},
        {"bad_words_ids": [["<pad>"]]},
    ),
    "t5": Family(
        (*_CLASSIFIERS, "seq2seq-lm"),
        {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "task_specific_params": _T5_TASKS},
        {"decoder_start_token_id": "<pad>"},
    ),
    # Layer 0 sees all, layer 1 a window that the longer texts do not fit into.
    "modernbert": Family(
        _ENCODER,
        {**_SIZE, "local_attention": 32, "classifier_pooling": "mean"},
        {"cls_token_id": "[CLS]", "sep_token_id": "[SEP]"},
    ),
    "deberta-v2": Family(
        _ENCODER,
        {
            **_SIZE,
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 64,
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "pooler_hidden_size": 32,
        },
    ),
    "xlm-roberta": Family(_ENCODER, {**_SIZE, "type_vocab_size": 1}),
    # As in the instruct checkpoints: they sample unless told otherwise, and end at two tokens.
    "qwen3": Family(
        _DECODER,
        {
            **_SIZE,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": True,
        },
        {},
        {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
        {"eos_token_id": ["<|im_end|>", "<|endoftext|>"]},
    ),
    "llama": Family(_DECODER, {**_SIZE, "num_key_value_heads": 2, "max_position_embeddings": 2048}),
}
