"""Token classification: a batched answer is the pipeline's single answer, whatever stands beside it in the poll.

Tolerance, fp32: probabilities within 1e-5, everything else identical.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from transformers import pipeline

from checkpoints import HEADS, SENTENCES
from parity import PROBABILITIES, difference, largest, plain
from task_bench import DEVICE, PACKING, alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

    BenchOf = Callable[..., TaskBench]
    FolderOf = Callable[..., Path]

FAMILIES: Final = [family for family, heads in HEADS.items() if "token-classification" in heads]
STRATEGIES: Final = ("none", "simple", "first", "average", "max")
LIMITS: Final = dict.fromkeys(FAMILIES, 512) | {"qwen3": 1024, "llama": 2048}
#: Families whose tokenizers make no token at all of the empty text: the pipeline raises, and we find no entities.
NO_TOKENS: Final = ("gpt2", "qwen3")

#: What offsets of bytes, of UTF-16 or of a normalized text would be wrong for.
UNICODE: Final = [
    "e\u0301te\u0301 nai\u0308ve A\u030angstro\u0308m Bob",
    "The \N{PARTY POPPER}\N{PARTY POPPER} family \N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL} of Ann",
    "\u05e9\u05dc\u05d5\u05dd Bob, \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c Ann",
    "\uff26\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48 \ufb01ne\u2026 \u00bd Rome",
    "\U0001d538stral \U0001d54bext \U00020000 Bob",
    "\u65e5\u672c\u8a9e \u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \u0130stanbul \ufdfa",
    "\ufeff  Leading \t\u00a0 blanks\r\nand  lines\u200b ",
]
TEXTS: Final = [
    *SENTENCES[:8],
    *UNICODE,
    "a",
    "Bob</s> and [SEP] Ann<|endoftext|> [MASK] <unk> [UNK] <pad>",
    " ".join(SENTENCES[10:16]),
    "word " * 50,
]
BLANKS: Final = ["", " ", "\n\t ", "\u200b", "\ufeff"]
LONG: Final = " ".join(SENTENCES[8:14])


@functools.cache
def reference(folder: Path) -> Any:
    """The pipeline; where there is no padding token one for its windows, which it masks."""
    single = pipeline("token-classification", model=str(folder), dtype=torch.float32, device=DEVICE)
    if single.tokenizer.pad_token is None:
        single.tokenizer.pad_token = single.tokenizer.eos_token
    return single


def expected(folder: Path, text: str, parameters: dict[str, Any]) -> Any:
    """The pipeline's answer, with windows of max_length tokens; it has no parameter of that name."""
    single = reference(folder)
    options = {key: value for key, value in parameters.items() if key != "max_length"}
    usual = single.tokenizer.model_max_length
    single.tokenizer.model_max_length = parameters.get("max_length", min(usual, LIMITS[single.model.config.model_type]))
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # a heuristic, that words are guessed
            return plain(single(text, **options))
    finally:
        single.tokenizer.model_max_length = usual


def asked(inputs: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


def compared(ours: Any, theirs: Any) -> float:
    return difference(ours, theirs, PROBABILITIES)


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batched_answer_is_the_single_one_and_the_pipelines(
    bench_of: BenchOf, folder_of: FolderOf, parity: Parity, family: str, packing: str
) -> None:
    """All strategies and mixed lengths in one poll, with and without the label O, other scripts, special tokens."""
    bench, folder = bench_of("token-classification", family, packing=packing), folder_of(family, "token-classification")
    cases = [
        asked(text, aggregation_strategy=strategy, **({} if (index + place) % 3 else {"ignore_labels": []}))
        for index, text in enumerate(TEXTS)
        for place, strategy in enumerate(STRATEGIES)
        if index < 2 or index % 5 == place
    ]
    ours = bench.outputs(cases)
    assert len(bench.batches) < len(cases) / 2
    assert sum(map(len, ours)) > len(cases) * 2
    parity.record(
        "token-classification",
        family,
        cases=len(cases),
        single=largest(map(compared, ours, alone(bench, cases))),
        pipeline=largest(
            compared(one, expected(folder, **_as_call(case))) for one, case in zip(ours, cases, strict=True)
        ),
    )


def _as_call(case: dict[str, Any]) -> dict[str, Any]:
    return {"text": case["inputs"], "parameters": case["parameters"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_reported(bench_of: BenchOf, parity: Parity, family: str) -> None:
    """Batched against single in bfloat16, where both give a token the same label; the contract is one of float32."""
    bench = bench_of("token-classification", family, dtype="bfloat16")
    cases = [asked(text, ignore_labels=[]) for text in TEXTS[::6]]
    pairs = zip(bench.outputs(cases), alone(bench, cases), strict=True)
    tokens = [(one, other) for answers in pairs for one, other in zip(*answers, strict=True)]
    same = (abs(one["score"] - other["score"]) for one, other in tokens if one["entity"] == other["entity"])
    parity.record("token-classification", family, bf16=largest(same))


#: Decoders look back only: their tokens do not see the padding, which is on the right.
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in {"gpt2", "qwen3", "llama"}])
def test_without_a_mask_batched_answers_are_wrong(
    bench_of: BenchOf, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: the comparison above can fail."""
    bench = bench_of("token-classification", family, packing="off")
    cases = [asked(text, ignore_labels=[]) for text in (SENTENCES[0], "word " * 60)]
    singles = alone(bench, cases)
    task: Any = bench.task
    forward = task._encoder.forward

    def unmasked(inputs: Any) -> Any:
        return forward({**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    monkeypatch.setattr(task._encoder, "forward", unmasked)
    with pytest.raises(AssertionError):
        compared(bench.outputs(cases)[0], singles[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_offsets_count_code_points_of_the_text_that_was_sent(
    bench_of: BenchOf, folder_of: FolderOf, family: str
) -> None:
    """Every letter is in a token, the tokens stand where the pipeline says, and an entity's words are the text's."""
    bench, folder = bench_of("token-classification", family), folder_of(family, "token-classification")
    for strategy in ("none", "average"):
        cases = [asked(text, aggregation_strategy=strategy, ignore_labels=[]) for text in UNICODE]
        for case, answer in zip(cases, bench.outputs(cases), strict=True):
            text = case["inputs"]
            compared(answer, expected(folder, text, case["parameters"]))
            spans = [(entity["start"], entity["end"]) for entity in answer]
            assert all(0 <= start <= end <= len(text) for start, end in spans)
            covered = {place for start, end in spans for place in range(start, end)}
            assert {place for place, letter in enumerate(text) if letter.isalnum()} <= covered
            for entity in answer:
                # What is plain ASCII in the answer stands at these offsets in the text; else tokens are bytes or marks.
                word = entity["word"].strip("#\u2581\u0120 ")
                if word.isascii() and word.isalpha() and text[entity["start"] : entity["end"]].isascii():
                    assert text[entity["start"] : entity["end"]].strip().lower() == word.lower()


@pytest.mark.parametrize("family", FAMILIES)
def test_empty_and_blank_texts_have_a_defined_answer(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """The pipeline's; and no entities where the tokenizer makes no tokens, of which the pipeline raises."""
    bench, folder = bench_of("token-classification", family), folder_of(family, "token-classification")
    cases = [asked(text, aggregation_strategy=strategy) for text in BLANKS for strategy in STRATEGIES]
    neighbour = asked(SENTENCES[0], ignore_labels=[])
    *answers, last = bench.outputs([*cases, neighbour])
    for case, answer in zip(cases, answers, strict=True):
        if reference(folder).tokenizer(case["inputs"])["input_ids"]:
            compared(answer, expected(folder, case["inputs"], case["parameters"]))
        else:
            assert family in NO_TOKENS
            assert answer == []
    compared(last, bench.outputs([neighbour])[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_of_a_long_text_are_merged_as_the_pipeline_does(
    bench_of: BenchOf, folder_of: FolderOf, parity: Parity, family: str
) -> None:
    """Of different sizes and strides in one poll, the windows of all requests in the same batches."""
    bench, folder = bench_of("token-classification", family), folder_of(family, "token-classification")
    sizes = [(24, 0), (24, 7), (20, 5), (64, 20), (400, 5)]
    cases = [
        asked(text, aggregation_strategy=strategy, max_length=length, stride=stride, ignore_labels=ignored)
        for text, ignored in ((LONG, ["O"]), (f"{UNICODE[1]} {UNICODE[2]} {UNICODE[0]}", []))
        for (length, stride), strategy in zip(
            sizes if text is LONG else sizes[1:3], ("simple", "first", "average", "max", "simple"), strict=False
        )
    ]
    # Without a strategy tokens are merged; the pipeline accepts it so.
    cases += [asked(LONG, max_length=24, stride=7), asked(LONG, max_length=60, stride=3, truncation=False)]
    ours = bench.outputs(cases)
    assert sum(bench.batches) > len(cases) * 2
    theirs = [expected(folder, case["inputs"], _without_truncation(case["parameters"])) for case in cases]
    parity.record(
        "token-classification",
        family,
        cases=len(cases),
        single=largest(map(compared, ours, alone(bench, cases))),
        pipeline=largest(map(compared, ours, theirs)),
    )


def _without_truncation(parameters: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if key != "truncation"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_and_says_so_or_is_refused(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """At the model's limit and at the request's, however long it is; windows are not truncation."""
    bench, folder = bench_of("token-classification", family), folder_of(family, "token-classification")
    text = " ".join(SENTENCES) * 3
    cases = [
        asked(text),
        asked(text, max_length=20, aggregation_strategy="simple"),
        asked("word " * 15_000, max_length=8, ignore_labels=[]),
    ]
    refused = asked(text, truncation=False)
    windows = asked(text, truncation=False, stride=10)
    *answers, no, whole = bench.ask([*cases, refused, windows])
    for case, answer in zip(cases, answers, strict=True):
        assert answer["truncated"], answer
        assert answer["usage"]["input_tokens"] == case["parameters"].get("max_length", LIMITS[family])
        compared(answer["outputs"], expected(folder, case["inputs"][:4000], case["parameters"]))
    assert no["error"]["code"] == "input_too_long"
    assert "truncation" in no["error"]["message"]
    assert (whole["status"], whole["truncated"]) == ("ok", False)


@pytest.mark.parametrize("family", ["bert"])
def test_labels_are_ignored_by_name(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """Of tokens as the model names them, of groups without B- and I-, after they were grouped."""
    bench, folder = bench_of("token-classification", family), folder_of(family, "token-classification")
    for ignored in (
        [],
        ["O"],
        ["PER", "O"],
        ["B-PER", "I-LOC"],
        ["B-PER", "I-PER", "B-LOC", "I-LOC", "O", "PER", "LOC"],
    ):
        cases = [asked(LONG, aggregation_strategy=strategy, ignore_labels=ignored) for strategy in STRATEGIES]
        for case, answer in zip(cases, bench.outputs(cases), strict=True):
            compared(answer, expected(folder, LONG, case["parameters"]))
            names = {entity.get("entity", entity.get("entity_group")) for entity in answer}
            assert not names & set(ignored)
            assert answer or len(ignored) == 7


@pytest.mark.parametrize(
    ("request_", "code", "named"),
    [
        (asked("a", aggregation_strategy="last"), "invalid_request", "parameters.aggregation_strategy"),
        (asked("a", aggregation_strategy="none", stride=2), "invalid_request", "stride needs an aggregation_strategy"),
        (asked("a", stride=-1), "invalid_request", "parameters.stride"),
        (asked("a", ignore_labels="O"), "invalid_request", "parameters.ignore_labels"),
        (asked("a", grouped_entities=True), "invalid_request", "parameters.grouped_entities"),
        (asked("a", max_length=7), "invalid_request", "parameters.max_length"),
        (asked(LONG, max_length=10, stride=8), "invalid_request", "stride"),
        (asked("a " * 6_100, max_length=8, stride=0), "input_too_long", "stride"),
        ({"inputs": {"text": "a", "text_pair": "b"}}, "invalid_request", "inputs"),
        ({}, "invalid_request", "inputs"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_served_is_named(bench_of: BenchOf, request_: dict[str, Any], code: str, named: str) -> None:
    """An error that says which parameter it was, and neighbours that are answered."""
    usual = asked(SENTENCES[0], ignore_labels=[])
    before, answer, after = bench_of("token-classification", "bert").ask([usual, request_, usual])
    assert (answer["status"], answer["error"]["code"]) == ("error", code)
    assert named in answer["error"]["message"]
    difference(after["outputs"], before["outputs"], PROBABILITIES)
