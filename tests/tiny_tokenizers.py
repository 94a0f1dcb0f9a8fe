# ruff: noqa: S105, S106 - tokens of text, not passwords
"""Tiny tokenizers for tests: really trained, each in the format and with the special tokens that its family ships.

Every machine and every run must learn the same vocabulary: golden answers are made on one and compared on another. The
trainers go through hash maps, so what they number or break ties by must be given to them in order.
"""

from __future__ import annotations

import functools
import io
import json
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sentencepiece
import transformers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit

from tiny_texts import FOREIGN, SENTENCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: Entries of a tokenizer; more than the alphabet, so that there are words of one token and of several.
VOCABULARY: Final = 300
#: As above; byte-level BPE spends 256 on its alphabet alone, BPE with </w> has each letter twice.
BPE_VOCABULARY: Final = 400
#: Tokens that the tokenizers allow, as in the real checkpoints of most families.
MODEL_MAX_LENGTH: Final = 512

#: As in Qwen's, less tools and thinking.
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_LANGUAGES: Final = tuple(transformers.models.mbart.tokenization_mbart.FAIRSEQ_LANGUAGE_CODES)


def save_tokenizer(family: str, folder: Path) -> Any:
    """Write the family's tokenizer to the folder as its real checkpoints have it; return it, to read and not to set."""
    tokenizer = _trained(family)
    if tokenizer.is_fast:
        # The state that a call with a length leaves: it would be saved, and cut the texts of whoever reads the file.
        tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    # Two names of transformers 5 alone; real checkpoints have those that version 4 reads too.
    if settings["tokenizer_class"] == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if "extra_special_tokens" in settings:
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    path.write_text(json.dumps(settings, indent=2, sort_keys=True))
    return tokenizer


@functools.cache
def _trained(family: str) -> Any:
    tokenizer = _TRAINERS[family]()
    # CTRL's own is 256, but its checkpoints do not say so.
    tokenizer.model_max_length = {"qwen3": 131_072, "llama": 2048}.get(family, MODEL_MAX_LENGTH)
    return tokenizer


def _word_piece(cls: Any) -> Any:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted({letter for letter in "".join(SENTENCES).lower() if letter.isalnum()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        # The continuing letters too: else the trainer numbers them as a hash map yields its words, and breaks ties by
        # these numbers, so that every run would learn another vocabulary.
        special_tokens=[*specials, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )
    setting = cls().backend_tokenizer
    return cls(vocab=_train(setting, models.WordPiece(unk_token="[UNK]"), trainer)["vocab"])


def _unigram(
    cls: Any,
    first: Sequence[str],
    last: Sequence[str] = (),
    *,
    foreign: bool = False,
    charsmap: bool = True,
    **options: Any,
) -> Any:
    """Unigram with Metaspace, and the special tokens before and after the pieces, where the family has them."""
    (unk,) = (token for token in first if "unk" in token.lower())
    more = {"_spm_precompiled_charsmap": _charsmap()} if charsmap else {}
    trainer = trainers.UnigramTrainer(vocab_size=VOCABULARY, special_tokens=[unk], unk_token=unk, show_progress=False)
    corpus = [*SENTENCES, *(FOREIGN if foreign else ())]
    entries = _train(cls(**more, **options).backend_tokenizer, models.Unigram(), trainer, corpus)["vocab"]
    pieces = _in_order((piece, score) for piece, score in entries if piece != unk)
    vocab = [*((token, 0.0) for token in first), *pieces, *((token, 0.0) for token in last)]
    return cls(vocab=vocab, **more, **options)


def _in_order(pieces: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    # Rounded and then sorted: the trainer goes through hash maps, so in every run the last digits of the scores differ,
    # and so does which of the rarest letters gets which score.
    return [(piece, -cost) for cost, piece in sorted((-round(score, 2), piece) for piece, score in pieces)]


def _mbart() -> Any:
    tokenizer = _unigram(
        transformers.MBartTokenizer,
        ("<s>", "<pad>", "</s>", "<unk>"),
        (*_LANGUAGES, "<mask>"),
        foreign=True,
        charsmap=False,
    )
    # The shipped tokenizer.json has it; the class of transformers 5 builds a tokenizer without.
    tokenizer.backend_tokenizer.normalizer = normalizers.Precompiled(_charsmap())
    return tokenizer


def _byte_level_model(first: Sequence[str], last: Sequence[str]) -> dict[str, Any]:
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY - len(last),
        special_tokens=list(first),
        # Sorted: alphabet() is a set, and the ids would change from run to run.
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    setting = Tokenizer(models.BPE())
    setting.pre_tokenizer = ByteLevel(add_prefix_space=False)
    model = _train(setting, models.BPE(), trainer)
    vocab = model["vocab"] | {token: len(model["vocab"]) + index for index, token in enumerate(last)}
    return {"vocab": vocab, "merges": [tuple(merge) for merge in model["merges"]]}


def _byte_level(cls: Any, first: Sequence[str] = (), last: Sequence[str] = (), **options: Any) -> Any:
    return cls(**_byte_level_model(first, last), **options)


def _byte_level_backend(last: Sequence[str], template: tuple[str, str], **options: Any) -> Any:
    """One without a class of its own: all of it is in its tokenizer.json."""
    model = _byte_level_model((), last)
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = transformers.GPT2Tokenizer().backend_tokenizer.decoder
    single, pair = template
    used = [(token, model["vocab"][token]) for token in last if token in single]
    backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    backend.add_special_tokens([AddedToken(token, special=True, lstrip="mask" in token.lower()) for token in last])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def _word_end_model(setting: Tokenizer) -> dict[str, Any]:
    text = "".join(SENTENCES)
    if setting.normalizer is not None:
        text = setting.normalizer.normalize_str(text)
    letters = sorted({letter for letter in text if not letter.isspace()})
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        # The letters for the same reason as WordPiece's.
        special_tokens=["<unk>", *letters, *(f"{letter}</w>" for letter in letters)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    return _train(setting, models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"), trainer)


def _openai_gpt() -> Any:
    model = _word_end_model(transformers.OpenAIGPTTokenizer().backend_tokenizer)
    return transformers.OpenAIGPTTokenizer(vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]])


def _ctrl() -> Any:
    setting = Tokenizer(models.BPE())
    setting.pre_tokenizer = WhitespaceSplit()
    model = _word_end_model(setting)
    # Its merges mark the end of a word, its vocabulary what is not one.
    vocab = {
        token if token == "<unk>" else token.removesuffix("</w>") if token.endswith("</w>") else f"{token}@@": index
        for token, index in model["vocab"].items()
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
        return transformers.CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


def _marian() -> Any:
    source, target = _sentence_piece(SENTENCES), _sentence_piece(FOREIGN)
    pieces = [piece.piece for model in (source, target) for piece in model.pieces if piece.type == piece.NORMAL]
    entries = ["</s>", "<unk>", *dict.fromkeys(pieces), "<pad>"]
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / file for file in ("source.spm", "target.spm", "vocab.json")]
        files[0].write_bytes(source.SerializeToString())
        files[1].write_bytes(target.SerializeToString())
        files[2].write_text(json.dumps({entry: index for index, entry in enumerate(entries)}), encoding="utf-8")
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # recommends sacremoses
            return transformers.MarianTokenizer(*map(str, files), source_lang="en", target_lang="fr")


@functools.cache
def _sentence_piece(corpus: Sequence[str]) -> Any:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=written,
        vocab_size=VOCABULARY,
        hard_vocab_limit=False,
        character_coverage=1.0,
        num_threads=1,
        bos_id=-1,
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(  # type: ignore[attr-defined]
        written.getvalue()
    )
    normal = [piece for piece in model.pieces if piece.type == piece.NORMAL]
    for piece, (text, score) in zip(normal, _in_order((piece.piece, piece.score) for piece in normal), strict=True):
        piece.piece, piece.score = text, score
    return model


def _charsmap() -> bytes:
    """The real one, of sentencepiece's nmt_nfkc: full-width forms, ligatures, "..." as one character."""
    charsmap: bytes = _sentence_piece(SENTENCES).normalizer_spec.precompiled_charsmap
    return charsmap


def _train(setting: Tokenizer, model: Any, trainer: Any, corpus: Sequence[str] = SENTENCES) -> dict[str, Any]:
    """Train with the family's own normalizer and pre-tokenizer; return the model as tokenizer.json writes it."""
    tokenizer = Tokenizer(model)
    if setting.normalizer is not None:
        tokenizer.normalizer = setting.normalizer
    tokenizer.pre_tokenizer = setting.pre_tokenizer
    tokenizer.train_from_iterator(corpus, trainer)
    trained: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return trained


_ROBERTA: Final = ("<s>", "<pad>", "</s>", "<unk>")
_LSTRIP_MASK: Final = {"mask_token": AddedToken("<mask>", lstrip=True, special=True)}
_TRAINERS: Final[Mapping[str, Callable[[], Any]]] = {
    "albert": partial(_unigram, transformers.AlbertTokenizer, ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
    "bert": partial(_word_piece, transformers.BertTokenizer),
    "distilbert": partial(_word_piece, transformers.DistilBertTokenizer),
    "electra": partial(_word_piece, transformers.ElectraTokenizer),
    "roberta": partial(_byte_level, transformers.RobertaTokenizer, _ROBERTA, ("<mask>",), **_LSTRIP_MASK),
    "openai-gpt": _openai_gpt,
    "gpt2": partial(_byte_level, transformers.GPT2Tokenizer, (), ("<|endoftext|>",)),
    "ctrl": _ctrl,
    "bart": partial(_byte_level, transformers.BartTokenizer, _ROBERTA, ("<mask>",), **_LSTRIP_MASK),
    "mbart": _mbart,
    "marian": _marian,
    "t5": partial(
        _unigram,
        transformers.T5Tokenizer,
        ("<pad>", "</s>", "<unk>"),
        [f"<extra_id_{index}>" for index in reversed(range(10))],
        foreign=True,
        extra_ids=10,
    ),
    "modernbert": partial(
        _byte_level_backend,
        ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"),
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    ),
    "deberta-v2": partial(
        _unigram, transformers.DebertaV2Tokenizer, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), ("[MASK]",), charsmap=False
    ),
    "xlm-roberta": partial(_unigram, transformers.XLMRobertaTokenizer, _ROBERTA, ("<mask>",), foreign=True),
    "qwen3": partial(
        _byte_level,
        transformers.Qwen2Tokenizer,
        (),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        chat_template=CHAT_TEMPLATE,
    ),
    "llama": partial(
        _byte_level_backend,
        ("<|begin_of_text|>", "<|end_of_text|>"),
        ("<|begin_of_text|> $A", "<|begin_of_text|> $A <|begin_of_text|>:1 $B:1"),
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        model_input_names=["input_ids", "attention_mask"],
    ),
}
