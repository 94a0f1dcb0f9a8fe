"""Zero-shot classification: a batched answer is the pipeline's single answer, whatever stands beside it in the poll.

Tolerance, fp32: probabilities within 1e-5; labels in other order only where their scores tie within it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from tokenizers import Tokenizer
from transformers import pipeline

from checkpoints import HEADS, SENTENCES
from parity import PROBABILITIES, largest, ranked_difference
from task_bench import DEVICE, PACKING, alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

    BenchOf = Callable[..., TaskBench]
    FolderOf = Callable[..., Path]

FAMILIES: Final = [family for family, heads in HEADS.items() if "sequence-classification" in heads]
NLI: Final = {"labels": ("contradiction", "neutral", "entailment")}
TOPICS: Final = ["food", "travel by train", "film", "sea"]


def asked(inputs: str, candidate_labels: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": {"candidate_labels": candidate_labels, **parameters}}


#: Every parameter, and texts of mixed lengths; neighbours of one poll.
CASES: Final = [
    asked(SENTENCES[0], TOPICS),
    asked(SENTENCES[9], TOPICS, multi_label=True),
    asked(" ".join(SENTENCES[:6]), ["film", "food"]),
    asked(SENTENCES[3], ["food"]),
    asked(SENTENCES[3], "food, , the weather ,sea,"),
    asked("a", TOPICS, hypothesis_template="About {}, is it not?"),
    asked(SENTENCES[5], ["dog", "fox", "dog", "sea"]),
    asked("Ünïcödé 日本語 🎉 שלום", ["日本語", "🎉 party", "{x}", "naïve"]),
    asked(" ", ["dog", "sea"]),
    asked(f"{SENTENCES[1]} </s> [SEP] <|endoftext|>", ["film </s>", "food", "[MASK]"]),
    asked("word " * 60, ["dog", "sea"], multi_label=True),
]


@functools.cache
def reference(folder: Path) -> Any:
    """The pipeline, with what it misses: mBART's normalizer, and a padding token, which one row does not use."""
    single = pipeline("zero-shot-classification", model=str(folder), dtype=torch.float32, device=DEVICE)
    backend = getattr(single.tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.normalizer is None:
        backend.normalizer = Tokenizer.from_file(str(folder / "tokenizer.json")).normalizer
    if single.tokenizer.pad_token is None:
        single.tokenizer.pad_token = single.tokenizer.eos_token or single.tokenizer.unk_token
    return single


def ranked(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"label": label, "score": one} for label, one in zip(answer["labels"], answer["scores"], strict=True)]


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    assert ours["sequence"] == theirs["sequence"]
    return ranked_difference(ranked(ours), ranked(theirs), PROBABILITIES)


def expected(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's answer, its texts cut at max_length; ALBERT's with the token types that it leaves out."""
    single = reference(folder)
    options = {key: value for key, value in request["parameters"].items() if key != "max_length"}
    usual = single.tokenizer.model_max_length
    single.tokenizer.model_max_length = request["parameters"].get("max_length", usual)
    try:
        if single.model.config.model_type == "albert":
            return by_hand(single, request["inputs"], **options)
        answer: dict[str, Any] = single(request["inputs"], **options)
        return answer
    finally:
        single.tokenizer.model_max_length = usual


def by_hand(
    single: Any, text: str, *, candidate_labels: Any, multi_label: bool = False, **options: Any
) -> dict[str, Any]:
    outputs = []
    labels = (
        candidate_labels if isinstance(candidate_labels, list) else single._args_parser._parse_labels(candidate_labels)
    )
    for label in labels:
        hypothesis = options.get("hypothesis_template", "This example is {}.").format(label)
        inputs = single.tokenizer(
            text, hypothesis, return_token_type_ids=True, return_tensors="pt", truncation="only_first"
        )
        with torch.inference_mode():
            logits = single.model(**inputs.to(DEVICE)).logits.cpu()
        outputs.append({"candidate_label": label, "sequence": text, "is_last": False, "logits": logits})
    answer: dict[str, Any] = single.postprocess(outputs, multi_label=multi_label)
    return answer


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batched_answer_is_the_single_one_and_the_pipelines(
    bench_of: BenchOf, folder_of: FolderOf, parity: Parity, family: str, packing: str
) -> None:
    """Every parameter, mixed lengths, other scripts and typed special tokens in one poll."""
    bench = bench_of("zero-shot-classification", family, packing=packing, **NLI)
    folder = folder_of(family, "sequence-classification", **NLI)
    ours = bench.outputs(CASES)
    rows = sum(len(answer["labels"]) for answer in ours)
    assert len(bench.batches) < rows / 3
    singles, theirs = alone(bench, CASES), [expected(folder, case) for case in CASES]
    parity.record(
        "zero-shot-classification",
        family,
        cases=len(CASES),
        single=largest(map(difference, ours, singles)),
        pipeline=largest(map(difference, ours, theirs)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_reported(bench_of: BenchOf, parity: Parity, family: str) -> None:
    """Batched against single in bfloat16; the equality contract is one of float32."""
    bench, cases = bench_of("zero-shot-classification", family, dtype="bfloat16", **NLI), CASES[:3]
    scores = [
        [dict(zip(answer["labels"], answer["scores"], strict=True)) for answer in answers]
        for answers in (bench.outputs(cases), alone(bench, cases))
    ]
    differences = (abs(one[label] - two[label]) for one, two in zip(*scores, strict=True) for label in one)
    parity.record("zero-shot-classification", family, bf16=largest(differences))


@pytest.mark.parametrize("family", ["bert", "t5", "gpt2"])
def test_without_a_mask_batched_answers_are_wrong(
    bench_of: BenchOf, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: the comparison above can fail."""
    bench = bench_of("zero-shot-classification", family, packing="off", **NLI)
    requests = [asked(SENTENCES[0], TOPICS), asked("word " * 60, TOPICS)]
    singles = alone(bench, requests)
    task: Any = bench.task
    collate = task._encoder.collate

    def unmasked(rows: Any) -> Any:
        tensors = collate(rows)
        return {**tensors, "attention_mask": torch.ones_like(tensors["attention_mask"])}

    monkeypatch.setattr(task._encoder, "collate", unmasked)
    with pytest.raises(AssertionError):
        difference(bench.outputs(requests)[0], singles[0])


def test_alberts_pairs_have_their_token_types(bench_of: BenchOf, folder_of: FolderOf) -> None:
    """The pipeline leaves them out, and so gives another answer: that is not the one to be equal to."""
    single = reference(folder_of("albert", "sequence-classification", **NLI))
    ours = bench_of("zero-shot-classification", "albert", **NLI).outputs([CASES[0]])[0]
    theirs = single(CASES[0]["inputs"], candidate_labels=TOPICS)
    far = max(abs(one - other) for one, other in zip(ours["scores"], theirs["scores"], strict=True))
    assert far > 1e-3, "the pipeline has its token types again: drop our own handling"


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "labels",
    [("A", "B", "C"), ("Entailment", "neutral", "contradiction"), ("not_entailment", "ENTAILED"), ("no", "yes")],
    ids="-".join,
)
def test_the_entailment_logit_is_found_by_its_label(
    bench_of: BenchOf, folder_of: FolderOf, labels: tuple[str, ...], *, multi_label: bool
) -> None:
    """Whatever its case and place; the last logit where no label says so. Contradiction is at the other end."""
    bench = bench_of("zero-shot-classification", "distilbert", labels=labels)
    folder = folder_of("distilbert", "sequence-classification", labels=labels)
    requests = [asked(text, TOPICS, multi_label=multi_label) for text in SENTENCES[:3]]
    for request, answer in zip(requests, bench.outputs(requests), strict=True):
        difference(answer, expected(folder, request))


def test_of_equal_scores_the_later_label_is_first(bench_of: BenchOf, folder_of: FolderOf) -> None:
    """As in the pipeline; these are the same tokens of an uncased checkpoint, so their scores are the same."""
    request = asked(SENTENCES[0], ["sea", "SEA", "Sea", "sEA"])
    (ours,) = bench_of("zero-shot-classification", "bert", **NLI).outputs([request])
    theirs = expected(folder_of("bert", "sequence-classification", **NLI), request)
    assert ours["labels"] == theirs["labels"] == ["sEA", "Sea", "SEA", "sea"]
    assert ours["scores"] == [0.25] * 4


@pytest.mark.parametrize("family", ["bert", "bart", "qwen3"])
def test_many_labels_are_spread_over_batches(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """300 rows of one request, with a neighbour's between them."""
    bench = bench_of("zero-shot-classification", family, **NLI)
    many = asked(SENTENCES[2], [f"{word} {number}" for number in range(100) for word in ("film", "the sea", "no")])
    ours, neighbour = bench.outputs([many, CASES[0]])
    assert sum(bench.batches) == 304
    assert len(bench.batches) > 1
    folder = folder_of(family, "sequence-classification", **NLI)
    difference(ours, expected(folder, many))
    difference(neighbour, expected(folder, CASES[0]))
    assert sum(ours["scores"]) == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_but_never_a_label(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """At the model's limit and at the request's; without truncation, or where only the label would be left, refused."""
    bench = bench_of("zero-shot-classification", family, **NLI)
    folder = folder_of(family, "sequence-classification", **NLI)
    text = " ".join(SENTENCES[:30])
    cut = asked(text, ["food", "the sea"], max_length=40)
    refused = asked(text, ["food"], max_length=40, truncation=False)
    no_room = asked(text, ["food", "word " * 60], max_length=40)
    answers = bench.ask([CASES[0], cut, refused, no_room, CASES[0]])
    difference(answers[1]["outputs"], expected(folder, cut))
    assert (answers[1]["truncated"], answers[1]["usage"]["input_tokens"]) == (True, 80)
    for answer in answers[2:4]:
        assert answer["error"]["code"] == "input_too_long"
        assert "40" in answer["error"]["message"]
    assert "truncation" in answers[2]["error"]["message"]
    for answer in (answers[0], answers[4]):
        difference(answer["outputs"], expected(folder, CASES[0]))


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (asked("", ["a"]), "inputs"),
        (asked("a", []), "parameters.candidate_labels"),
        (asked("a", [""]), "parameters.candidate_labels"),
        (asked("a", " , "), "candidate_labels"),
        (asked("a", ["a"] * 1001), "parameters.candidate_labels"),
        (asked("a" * 99_999, ["a"] * 11), "candidate_labels"),
        (asked("a", ["a"], hypothesis_template="no place"), "parameters.hypothesis_template"),
        (asked("a", ["a"], hypothesis_template="{} and {}"), "parameters.hypothesis_template"),
        (asked("a", ["a"], hypothesis_template="{0}"), "parameters.hypothesis_template"),
        (asked("a", ["a"], multi_class=True), "parameters.multi_class"),
        ({"inputs": "a", "parameters": {}}, "parameters.candidate_labels"),
        ({"inputs": "a"}, "parameters"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_served_is_named(bench_of: BenchOf, request_: dict[str, Any], named: str) -> None:
    """An invalid_request that says which parameter it was, and neighbours that are answered."""
    before, answer, after = bench_of("zero-shot-classification", "bert", **NLI).ask([CASES[0], request_, CASES[0]])
    assert (answer["status"], answer["error"]["code"]) == ("error", "invalid_request")
    assert named in answer["error"]["message"]
    difference(after["outputs"], before["outputs"])
