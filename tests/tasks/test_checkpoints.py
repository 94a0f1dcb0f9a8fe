"""The tiny checkpoints of the other tests: every family with every head answers by all of its text, and by it alone.

On a checkpoint whose answers ignored the padding or the words, no test of batching could fail. Each comparison has a
control here that must differ.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from checkpoints import FAMILIES, HEADS, SENTENCES, build_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# Marian's tokenizer would like a package that it works without.
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

CASES: Final = [(family, head) for family in FAMILIES for head in HEADS[family]]
GENERATING: Final = ("causal-lm", "seq2seq-lm")
DECODERS: Final = ("openai-gpt", "gpt2", "ctrl", "qwen3", "llama")
SHORT: Final = "I love this film."
LONG: Final = "She said that the train would arrive at 17:45, but it never came, and nobody answered the telephone."
CLASSES: Final = {
    "base": transformers.AutoModel,
    "sequence-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
    "masked-lm": transformers.AutoModelForMaskedLM,
    "question-answering": transformers.AutoModelForQuestionAnswering,
    "multiple-choice": transformers.AutoModelForMultipleChoice,
    "causal-lm": transformers.AutoModelForCausalLM,
    "seq2seq-lm": transformers.AutoModelForSeq2SeqLM,
}
#: Of each family's vocabulary, merges and scores. Golden answers are made with these: another release of the trainers'
#: library that learns another vocabulary needs new ones.
VOCABULARIES: Final = {
    "albert": "8625e85b0ef1",
    "bert": "006997319f84",
    "distilbert": "006997319f84",
    "electra": "006997319f84",
    "roberta": "6945c8c9888f",
    "openai-gpt": "22fb9c650544",
    "gpt2": "8db44be5ebed",
    "ctrl": "8a18f5e4cf08",
    "bart": "6945c8c9888f",
    "mbart": "5d7e005786ec",
    "marian": "42fab9fba639",
    "t5": "1f30934aa4c7",
    "modernbert": "359364081e66",
    "deberta-v2": "fd26899d2808",
    "xlm-roberta": "7a8c5863ac59",
    "qwen3": "da65f5dd632f",
    "llama": "dd3055e477e7",
}


@dataclass(frozen=True)
class Loaded:
    folder: Path
    head: str
    tokenizer: Any
    model: Any

    @property
    def pad(self) -> int:
        ids = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, self.tokenizer.unk_token_id
        return next(int(index) for index in ids if index is not None)

    @property
    def causal(self) -> bool:
        return self.head == "causal-lm" or self.model.config.model_type in DECODERS

    def encode(self, *texts: str | tuple[str, str], side: str = "right") -> dict[str, torch.Tensor]:
        """Tokenize each for itself and pad, as some tokenizers have nothing to pad with."""
        types = getattr(self.model.config, "type_vocab_size", 1) > 1 and self.model.config.model_type != "distilbert"
        rows = [
            self.tokenizer(*((text,) if isinstance(text, str) else text), return_token_type_ids=types) for text in texts
        ]
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value, padding_side=side
            )
            for name, value in (("input_ids", self.pad), ("attention_mask", 0), ("token_type_ids", 0))
            if name in rows[0]
        }

    def answers(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """One row of numbers per text, or per token of each."""
        if self.head == "multiple-choice":
            inputs = {name: tensor[:, None] for name, tensor in inputs.items()}
        if self.head == "seq2seq-lm" or (self.head == "base" and self.model.config.model_type in {"t5", "marian"}):
            start = self.model.config.decoder_start_token_id
            inputs = {
                **inputs,
                "decoder_input_ids": torch.tensor([[start, 30, 40]]).expand(len(inputs["input_ids"]), 3),
            }
        with torch.inference_mode():
            output = self.model(**inputs)
        if self.head == "question-answering":
            return torch.stack([output.start_logits, output.end_logits], dim=-1)
        numbers: torch.Tensor = output[0] if self.head == "base" else output.logits
        return numbers

    def of_row(self, answers: torch.Tensor, inputs: dict[str, torch.Tensor], row: int) -> torch.Tensor:
        """The row's own numbers, without those of its padding."""
        mask = inputs["attention_mask"][row].bool()
        by_token = answers.dim() == 3 and answers.shape[1] == len(mask)
        return answers[row][mask] if by_token else answers[row]

    def generate(self, *texts: str, mask: bool = True, **parameters: Any) -> list[list[int]]:
        """New tokens of each text, up to and with its end."""
        decoder_only = not self.model.config.is_encoder_decoder
        inputs = self.encode(*texts, side="left" if decoder_only else "right")
        inputs.pop("token_type_ids", None)
        if not mask:
            inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
        settings = {"do_sample": False, "num_beams": 1, "max_length": None, "max_new_tokens": 40, "min_length": 0}
        with torch.inference_mode():
            output = self.model.generate(**inputs, pad_token_id=self.pad, **settings | parameters)
        prompt = inputs["input_ids"].shape[1] if decoder_only else 1
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        rows = [row[prompt:].tolist() for row in output]
        stops = [next((at for at, token in enumerate(row) if token in ends), len(row)) for row in rows]
        return [row[: stop + 1] for row, stop in zip(rows, stops, strict=True)]


@pytest.fixture(scope="module")
def loaded(folder_of: Callable[..., Path]) -> Callable[[str, str], Loaded]:
    """Each is read once through the Auto classes, and kept."""
    cache: dict[tuple[str, str], Loaded] = {}

    def load(family: str, head: str) -> Loaded:
        if (family, head) not in cache:
            folder = folder_of(family, head)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, info = CLASSES[head].from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
            assert not any(info.values()), f"missing, unexpected or of another shape: {info}"
            cache[family, head] = Loaded(folder, head, tokenizer, model.eval())
        return cache[family, head]

    return load


def families(head: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", [family for family in FAMILIES if head in HEADS[family]])


@pytest.mark.parametrize(("family", "head"), CASES)
def test_with_its_mask_a_padded_row_answers_as_it_does_alone(
    loaded: Callable[[str, str], Loaded], family: str, head: str
) -> None:
    """Right padding, in every plain forward, within float noise."""
    one = loaded(family, head)
    no_pad = one.model.config.pad_token_id is None
    if no_pad and head == "sequence-classification":
        with pytest.raises(ValueError, match="padding token"):
            one.answers(one.encode(SHORT, LONG))
        one.model.config.pad_token_id = one.pad
    inputs = one.encode(SHORT, LONG)
    padded = one.answers(inputs)
    if no_pad:
        one.model.config.pad_token_id = None
    for row, text in enumerate((SHORT, LONG)):
        (alone,) = one.answers(one.encode(text))
        torch.testing.assert_close(one.of_row(padded, inputs, row), alone, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("family", "head"), CASES)
def test_without_its_mask_it_answers_differently(loaded: Callable[[str, str], Loaded], family: str, head: str) -> None:
    """The control. A decoder does not see what comes after, so its padding is put before."""
    one = loaded(family, head)
    largest = 0.0
    for text in (SHORT, *SENTENCES[-3:]):
        inputs = one.encode(text, LONG, side="left" if one.causal else "right")
        # Not left out, which ModernBERT does not allow.
        unmasked = {name: tensor[:1].clone() for name, tensor in inputs.items()}
        unmasked["attention_mask"].fill_(1)
        (alone,) = one.answers(one.encode(text))
        largest = max(largest, float((one.of_row(one.answers(unmasked), inputs, 0) - alone).abs().max()))
    assert largest > 0.1


@pytest.mark.parametrize(("family", "head"), CASES)
def test_an_answer_depends_on_the_words_and_on_their_order(
    loaded: Callable[[str, str], Loaded], family: str, head: str
) -> None:
    """At the last token too, which is the same in all three; far above float noise, which is below 0.001."""
    one = loaded(family, head)
    texts = "The dog jumps over the fox.", "The fox jumps over the dog.", "The dog jumps over the bus."
    first, *others = (one.answers(one.encode(text))[0] for text in texts)
    last = 3 if head == "seq2seq-lm" else 1
    for other in others:
        change = first.reshape(-1, first.shape[-1])[-last:] - other.reshape(-1, other.shape[-1])[-last:]
        assert change.abs().max() > 0.02


@families("sequence-classification")
def test_every_label_is_some_texts(loaded: Callable[[str, str], Loaded], family: str) -> None:
    """Logits differ by text far above float noise, and softmax is not saturated."""
    one = loaded(family, "sequence-classification")
    logits = torch.cat([one.answers(one.encode(text)) for text in SENTENCES])
    assert len(set(logits.argmax(dim=-1).tolist())) == logits.shape[1]
    assert logits.std(dim=0).min() > 0.5
    assert logits.std(dim=0).max() < 4


@families("token-classification")
def test_entities_are_of_several_kinds_and_lengths(loaded: Callable[[str, str], Loaded], family: str) -> None:
    """Inside and outside, begun and continued, and words whose tokens have different labels."""
    one = loaded(family, "token-classification")
    names = one.model.config.id2label
    labels = [[names[index] for index in one.answers(one.encode(text))[0].argmax(-1).tolist()] for text in SENTENCES]
    assert {label for row in labels for label in row} == set(names.values())
    spans = [row[at : at + 2] for row in labels for at in range(len(row) - 1)]
    for kind in ("PER", "LOC"):
        assert [f"B-{kind}", f"I-{kind}"] in spans
        assert [f"B-{kind}", "O"] in spans
    words = [one.tokenizer(text).word_ids() for text in SENTENCES]
    assert any(
        word is not None and word == ids[at + 1] and row[at] != row[at + 1]
        for ids, row in zip(words, labels, strict=True)
        for at, word in enumerate(ids[:-1])
    )


@families("question-answering")
def test_different_questions_have_different_answers(loaded: Callable[[str, str], Loaded], family: str) -> None:
    """Of one context, by the best start and the best end at or after it."""
    one = loaded(family, "question-answering")
    questions = "Who went to Rome?", "When did they go?", "What is cold?", "Where is the sea?", "How many?", "Why?"
    spans = set()
    for question in questions:
        inputs = one.encode((question, f"{SENTENCES[10]} {LONG}"))
        start, end = one.answers(inputs)[0].T
        scores = torch.triu(start.softmax(0)[:, None] * end.softmax(0))
        spans.add(divmod(int(scores.argmax()), len(start)))
    assert len(spans) >= 3


@families("masked-lm")
def test_a_masks_word_depends_on_its_context(loaded: Callable[[str, str], Loaded], family: str) -> None:
    one = loaded(family, "masked-lm")
    best = set()
    for text in SENTENCES:
        inputs = one.encode(" ".join([*text.split()[:2], one.tokenizer.mask_token, *text.split()[3:]]))
        at = inputs["input_ids"][0] == one.tokenizer.mask_token_id
        best.add(int(one.answers(inputs)[0][at].argmax()))
    assert len(best) >= 8


@families("multiple-choice")
def test_the_best_choice_depends_on_the_prompt(loaded: Callable[[str, str], Loaded], family: str) -> None:
    one = loaded(family, "multiple-choice")
    choices = "It was good.", "It was bad.", "Nobody knows."
    best = [int(one.answers(one.encode(*((text, choice) for choice in choices))).argmax()) for text in SENTENCES]
    assert set(best) == {0, 1, 2}


def prompts(head: str) -> Sequence[str]:
    return SENTENCES[22:34] if head == "seq2seq-lm" else [" ".join(text.split()[:5]) for text in SENTENCES[22:34]]


@pytest.mark.parametrize(("family", "head"), [(family, head) for family, head in CASES if head in GENERATING])
def test_generated_rows_differ_and_end_at_different_steps(
    loaded: Callable[[str, str], Loaded], family: str, head: str
) -> None:
    """Some after a few tokens, some not within forty; with beams too."""
    one = loaded(family, head)
    for beams in (1, 4):
        rows = one.generate(*prompts(head), num_beams=beams)
        assert len({tuple(row) for row in rows}) > len(rows) / 2
        lengths = [len(row) for row in rows]
        assert sum(2 < length <= 30 for length in lengths) >= 2
        assert len(set(lengths)) >= 3
        assert 40 in lengths or beams > 1
        assert sum(len(set(row)) > 3 for row in rows) >= len(rows) / 4


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(
    ("family", "head"),
    # The decoders of BART and its kin number positions from the padding on, and so cannot be padded on the left.
    [(family, head) for family, head in CASES if head == "seq2seq-lm" or (head == "causal-lm" and family in DECODERS)],
)
def test_a_padded_batch_generates_what_each_row_does_alone(
    loaded: Callable[[str, str], Loaded], family: str, head: str, beams: int
) -> None:
    """Padding on the left for decoders, on the right for encoders; without the mask most rows differ."""
    one = loaded(family, head)
    texts = prompts(head)[:6]
    alone = [one.generate(text, num_beams=beams)[0] for text in texts]
    assert one.generate(*texts, num_beams=beams) == alone
    unmasked = one.generate(*texts, num_beams=beams, mask=False)
    assert sum(row == other for row, other in zip(unmasked, alone, strict=True)) <= len(texts) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_machine_learns_the_same_vocabulary(loaded: Callable[[str, str], Loaded], family: str) -> None:
    """The trainers go through hash maps, and must not depend on their order."""
    one = loaded(family, "base")
    trained: Any = sorted(one.tokenizer.get_vocab().items())
    if one.tokenizer.is_fast:
        trained = json.loads(one.tokenizer.backend_tokenizer.to_str())["model"]
    elif family == "ctrl":
        trained = [trained, (one.folder / "merges.txt").read_text(encoding="utf-8")]
    found = hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()[:12]
    assert found == VOCABULARIES[family]


def test_a_seed_is_a_checkpoint(tmp_path: Path) -> None:
    """The same seed gives the same weights, another one others."""
    one, same, other = (
        build_checkpoint("bert", "base", tmp_path / str(at), seed=seed).joinpath("model.safetensors").read_bytes()
        for at, seed in enumerate((1, 1, 2))
    )
    assert one == same
    assert one != other


@pytest.mark.parametrize("family", ["openai-gpt", "gpt2", "ctrl"])
def test_what_ships_without_a_pad_token_has_none(loaded: Callable[[str, str], Loaded], family: str) -> None:
    """Neither the tokenizer nor the config."""
    one = loaded(family, "causal-lm")
    assert one.tokenizer.pad_token_id is None
    assert one.model.config.pad_token_id is None


def test_mbarts_normalizer_is_in_its_file_alone(loaded: Callable[[str, str], Loaded]) -> None:
    """As in the real checkpoint: transformers 5 drops it when it loads it."""
    one = loaded("mbart", "seq2seq-lm")
    stored = json.loads((one.folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["normalizer"]["type"] == "Precompiled"
    assert one.tokenizer.backend_tokenizer.normalizer is None


def test_an_end_token_can_be_left_out(tmp_path: Path) -> None:
    """As GPT and CTRL ship: then every row has all the tokens it is allowed."""
    folder = build_checkpoint("openai-gpt", "causal-lm", tmp_path, eos_token_id=None)
    assert transformers.GenerationConfig.from_pretrained(folder).eos_token_id is None
