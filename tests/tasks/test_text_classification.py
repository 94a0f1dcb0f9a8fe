"""Text classification: a batched answer is the pipeline's single answer, whatever stands beside it in the poll.

Tolerance, fp32: probabilities within 1e-5, raw numbers within 1e-4 absolute plus 1e-4 relative (tests/parity.py).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import pipeline

from checkpoints import HEADS, SENTENCES
from nlp_schemas import TextClassificationRequest
from nlp_worker.errors import InferenceFailedError
from nlp_worker.poll import Row
from parity import PROBABILITIES, RAW, difference, largest, ranked_difference
from task_bench import DEVICE, PACKING, alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

    BenchOf = Callable[..., TaskBench]
    FolderOf = Callable[..., Path]

FAMILIES: Final = [family for family, heads in HEADS.items() if "sequence-classification" in heads]
SEQ2SEQ: Final = ("bart", "mbart", "t5")
#: Families whose tokenizers make no token at all of the empty text; the first two make none of blanks either.
NO_TOKENS: Final = ("ctrl", "openai-gpt", "gpt2", "qwen3")
#: Most tokens of a row: by tokenizer or positions.
LIMITS: Final = dict.fromkeys(FAMILIES, 512) | {"qwen3": 1024, "llama": 2048}
#: What ends a decoder's text.
ENDS: Final = {"gpt2": "<|endoftext|>", "qwen3": "<|im_end|>", "llama": "<|end_of_text|>"}

#: Mixed lengths, one word, other scripts, special tokens that a user typed, and one that takes most of the positions.
TEXTS: Final = [
    *SENTENCES[:10],
    "a",
    "Ünïcödé 日本語 🎉 👨‍👩‍👧",
    "It says [SEP] and [MASK] [PAD]",
    "It says <pad> and <unk>",
    "<|endoftext|>",
    " ".join(SENTENCES[:8]),
    "word " * 90,
]
PAIRS: Final = [{"text": one, "text_pair": two} for one, two in zip(SENTENCES[:5], SENTENCES[20:25], strict=True)]
MIXED: Final = [*TEXTS, *PAIRS, {"text": SENTENCES[9], "text_pair": ""}]
TOO_LONG: Final = " ".join(SENTENCES) * 3

#: Scores of every label as the model's own numbers: what softmax does not hide.
LOGITS: Final = {"top_k": None, "function_to_apply": "none"}


@functools.cache
def reference(folder: Path) -> Any:
    """The pipeline of the folder, with the normalizer that it drops of mBART's tokenizer."""
    single = pipeline("text-classification", model=str(folder), dtype=torch.float32, device=DEVICE)
    backend = getattr(single.tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.normalizer is None:
        backend.normalizer = Tokenizer.from_file(str(folder / "tokenizer.json")).normalizer
    return single


def expected(folder: Path, inputs: Any, parameters: dict[str, Any], length: int = 512) -> Any:
    """The pipeline's answer to one input; with ALBERT's token types, which it leaves out by itself."""
    single = reference(folder)
    options = {"return_token_type_ids": True} if single.model.config.model_type == "albert" else {}
    return single(inputs, **{"top_k": 1} | parameters, truncation=True, max_length=length, **options)


def asked(inputs: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batched_answer_is_the_single_one_and_the_pipelines(
    bench_of: BenchOf, folder_of: FolderOf, parity: Parity, family: str, packing: str
) -> None:
    """Texts and pairs of mixed lengths in one poll, compared by their logits."""
    bench = bench_of("text-classification", family, packing=packing)
    folder = folder_of(family, "sequence-classification")
    requests = [asked(inputs, **LOGITS) for inputs in MIXED]
    ours = bench.outputs(requests)
    assert len(bench.batches) < len(requests) / 2
    theirs = [expected(folder, inputs, LOGITS) for inputs in MIXED]
    singles = alone(bench, requests)
    parity.record(
        "text-classification",
        family,
        cases=len(requests),
        single=largest(ranked_difference(*pair, RAW) for pair in zip(ours, singles, strict=True)),
        pipeline=largest(ranked_difference(*pair, RAW) for pair in zip(ours, theirs, strict=True)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_reported(bench_of: BenchOf, parity: Parity, family: str) -> None:
    """Batched against single in bfloat16; the equality contract is one of float32."""
    bench = bench_of("text-classification", family, dtype="bfloat16")
    requests = [asked(inputs, **LOGITS) for inputs in MIXED[::4]]
    scores = [
        [{label["label"]: label["score"] for label in labels} for labels in answers]
        for answers in (bench.outputs(requests), alone(bench, requests))
    ]
    differences = (abs(one[label] - two[label]) for one, two in zip(*scores, strict=True) for label in one)
    parity.record("text-classification", family, bf16=largest(differences))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_request_of_a_poll_has_its_own_parameters(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """Every top_k with every function, of one batch."""
    bench, folder = bench_of("text-classification", family), folder_of(family, "sequence-classification")
    parameters = [{}, *(
        {"top_k": top_k, "function_to_apply": function}
        for top_k in (1, 2, 50, None) for function in (None, "softmax", "sigmoid", "none")
    )]  # fmt: skip
    ours = bench.outputs([asked(text, **each) for text, each in zip(SENTENCES, parameters, strict=False)])
    for text, each, labels in zip(SENTENCES, parameters, ours, strict=False):
        tolerance = RAW if each.get("function_to_apply") == "none" else PROBABILITIES
        ranked_difference(labels, expected(folder, text, each), tolerance)
    assert [len(labels) for labels in ours] == [1] * 5 + [2] * 4 + [3] * 8


# Not Qwen3: it looks back only, and its padding, which its configuration names, is not what is read.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen3"])
def test_without_a_mask_batched_answers_are_wrong(
    bench_of: BenchOf, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: the comparison above can fail, for every family."""
    bench = bench_of("text-classification", family, packing="off")
    requests = [asked(inputs, **LOGITS) for inputs in (SENTENCES[0], "word " * 40)]
    singles = alone(bench, requests)
    task: Any = bench.task
    collate = task._encoder.collate

    def unmasked(rows: Any) -> Any:
        tensors = collate(rows)
        return {**tensors, "attention_mask": torch.ones_like(tensors["attention_mask"])}

    monkeypatch.setattr(task._encoder, "collate", unmasked)
    ours = bench.outputs(requests)
    with pytest.raises(AssertionError):
        ranked_difference(ours[0], singles[0], RAW)


def test_alberts_pairs_have_their_token_types(bench_of: BenchOf, folder_of: FolderOf) -> None:
    """The pipeline leaves them out, and so gives another answer: that is not the one to be equal to."""
    single = reference(folder_of("albert", "sequence-classification"))
    ours = bench_of("text-classification", "albert").outputs([asked(pair, **LOGITS) for pair in PAIRS])
    far = [
        abs(labels[0]["score"] - single(pair, **LOGITS)[0]["score"])
        for pair, labels in zip(PAIRS, ours, strict=True)
    ]  # fmt: skip
    assert max(far) > 1e-3, "the pipeline has its token types again: drop our own handling"


def test_mbart_reads_full_width_forms(bench_of: BenchOf) -> None:
    """Its class in transformers 5 drops the normalizer that makes ordinary letters of them."""
    text = "A dull film, and worse acted."
    wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in text)
    ours, theirs = bench_of("text-classification", "mbart").outputs([asked(wide, **LOGITS), asked(text, **LOGITS)])
    ranked_difference(ours, theirs, RAW)


@pytest.mark.parametrize(("problem_type", "labels"), [("regression", ("SCORE",)), ("regression", ("A", "B")),
                                                      ("multi_label_classification", ("A", "B", "C")),
                                                      ("single_label_classification", ("A", "B")),
                                                      (None, ("SCORE",))])  # fmt: skip
def test_the_default_function_follows_the_checkpoints_problem_type(
    bench_of: BenchOf, folder_of: FolderOf, problem_type: str | None, labels: tuple[str, ...]
) -> None:
    """Regression gives raw values, several labels a sigmoid each, and so does one label."""
    options = {"problem_type": problem_type, "labels": labels}
    bench = bench_of("text-classification", "distilbert", **options)
    folder = folder_of("distilbert", "sequence-classification", **options)
    for top_k in (1, None):
        ours = bench.outputs([asked(text, top_k=top_k) for text in TEXTS[:6]])
        for text, got in zip(TEXTS, ours, strict=False):
            ranked_difference(got, expected(folder, text, {"top_k": top_k}), RAW)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_and_says_so_or_is_refused(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """At the model's limit and at the request's; the longer text of a pair is cut, and neighbours are as ever."""
    bench, folder, limit = bench_of("text-classification", family), folder_of(family, "sequence-classification"), LIMITS
    pair = {"text": TOO_LONG, "text_pair": SENTENCES[1]}
    cases: list[tuple[Any, int, bool]] = [
        (TOO_LONG, limit[family], True),
        (pair, limit[family], True),
        (pair, 30, True),
        (TOO_LONG, 8, True),
        (SENTENCES[0], 1000, False),
    ]
    requests = [asked(inputs, **LOGITS, max_length=length) for inputs, length, _ in cases]
    refused = [asked(inputs, truncation=False, max_length=length) for inputs, length, _ in cases[:4]]
    answers = bench.ask([*requests, *refused])
    for (inputs, length, truncated), answer in zip(cases, answers, strict=False):
        assert (answer["status"], answer["truncated"]) == ("ok", truncated)
        assert not truncated or answer["usage"]["input_tokens"] == length
        ranked_difference(answer["outputs"], expected(folder, inputs, LOGITS, min(length, limit[family])), RAW)
    for answer in answers[len(requests) :]:
        assert answer["error"]["code"] == "input_too_long"
        assert "truncation" in answer["error"]["message"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u200b"], ids=ascii)
def test_empty_and_blank_texts_have_a_defined_answer(
    bench_of: BenchOf, folder_of: FolderOf, family: str, text: str
) -> None:
    """The pipeline's; or where the tokenizer makes no tokens, of which it raises, an invalid_request that says so."""
    bench, folder = bench_of("text-classification", family), folder_of(family, "sequence-classification")
    neighbour, answer = bench.ask([asked(SENTENCES[0], **LOGITS), asked(text, **LOGITS)])
    ranked_difference(neighbour["outputs"], expected(folder, SENTENCES[0], LOGITS), RAW)
    if reference(folder).tokenizer(text)["input_ids"]:
        ranked_difference(answer["outputs"], expected(folder, text, LOGITS), RAW)
    else:
        assert family in NO_TOKENS
        assert (answer["error"]["code"], "inputs" in answer["error"]["message"]) == ("invalid_request", True)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("family", ENDS)
def test_decoders_read_a_typed_end_token_as_the_pipeline_does(
    bench_of: BenchOf, folder_of: FolderOf, family: str, *, padding: bool
) -> None:
    """Checkpoints without a padding token read it; those that pad with it, as is usual, the token before it."""
    task: Any = bench_of("text-classification", family).task
    end = task._encoder.tokenizer.convert_tokens_to_ids(ENDS[family])
    options = {"pad_token_id": end if padding else None}
    bench = bench_of("text-classification", family, **options)
    folder = folder_of(family, "sequence-classification", **options)
    texts = [SENTENCES[0], f"{SENTENCES[0]}{ENDS[family]}", f"{ENDS[family]} then {SENTENCES[8]}", ENDS[family] * 3]
    ours = bench.outputs([asked(text, **LOGITS) for text in texts])
    assert bench.batches == [4]
    for text, labels in zip(texts, ours, strict=True):
        ranked_difference(labels, expected(folder, text, LOGITS), RAW)
    if padding:
        ranked_difference(ours[1], ours[0], RAW)
    else:
        with pytest.raises(AssertionError):
            ranked_difference(ours[1], ours[0], RAW)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_encoder_decoders_batch_what_has_equally_many_end_tokens(
    bench_of: BenchOf, folder_of: FolderOf, family: str
) -> None:
    """They read the last one, and raise for a batch whose rows have different numbers of it."""
    bench, folder = bench_of("text-classification", family), folder_of(family, "sequence-classification")
    inputs: list[Any] = []
    for text in SENTENCES[:4]:
        typed = {"text": f"{text}</s>", "text_pair": f"</s>{text}"}
        inputs += [text, f"{text}</s>", f"</s> {text} </s>", {"text": text, "text_pair": "Yes."}, typed]
    ours = bench.outputs([asked(each, **LOGITS) for each in inputs])
    for each, labels in zip(inputs, ours, strict=True):
        ranked_difference(labels, expected(folder, each, LOGITS), RAW)
    # Of a pair BART's tokenizer ends both texts, T5's too, mBART's only the second.
    assert sorted(bench.batches) == ([4, 8, 8] if family == "mbart" else [4, 4, 4, 8])


@pytest.mark.parametrize(
    ("inputs", "parameters", "named"),
    [
        ("a", {"top_k": 0}, "parameters.top_k"),
        ("a", {"top_k": True}, "parameters.top_k"),
        ("a", {"function_to_apply": "tanh"}, "parameters.function_to_apply"),
        ("a", {"max_length": 7}, "parameters.max_length"),
        ("a", {"return_all_scores": True}, "parameters.return_all_scores"),
        (["a", "b"], {}, "inputs"),
        ({"text": "a"}, {}, "inputs.text_pair"),
        ("a" * 100_001, {}, "inputs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_served_is_named(bench_of: BenchOf, inputs: Any, parameters: dict[str, Any], named: str) -> None:
    """An invalid_request that says which parameter it was, and neighbours that are answered."""
    before, answer, after = bench_of("text-classification", "distilbert").ask(
        [asked("I love it."), asked(inputs, **parameters), asked("I love it.")]
    )
    assert (answer["status"], answer["error"]["code"]) == ("error", "invalid_request")
    assert f"{named}:" in answer["error"]["message"]
    difference(after["outputs"], before["outputs"], PROBABILITIES)


def test_scores_print_as_the_shortest_float32(bench_of: BenchOf) -> None:
    """At most nine significant digits, and the same float32 when read back."""
    for labels in bench_of("text-classification", "bert").outputs([asked(text, top_k=None) for text in TEXTS]):
        for label in labels:
            digits = repr(label["score"]).split("e")[0].replace(".", "").strip("-0")
            assert len(digits) <= 9


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_logit_that_is_not_finite_is_no_answer(bench_of: BenchOf, function: str, number: float) -> None:
    """Whatever is made of it, and also where it is not among the labels that are asked for."""
    task = bench_of("text-classification", "bert").task
    parameters = {"top_k": 1, "function_to_apply": function}
    request = TextClassificationRequest.model_validate({"inputs": "a", "parameters": parameters})
    logits = np.array([1.0, number, 0.0], dtype=np.float32)
    with pytest.raises(InferenceFailedError, match="not finite"):
        task.postprocess(request, [Row({"input_ids": [1]}, output=logits)])
