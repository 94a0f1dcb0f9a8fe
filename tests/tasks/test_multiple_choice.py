"""Multiple choice: rows of requests that share batches are scored as one request alone is.

There is no pipeline of this name: the model is called by hand with one request, [1, choices, tokens]. Tolerance, fp32:
probabilities within 1e-5; choices in other order only where their scores tie within it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from checkpoints import HEADS, SENTENCES
from parity import PROBABILITIES, largest, ranked_difference
from task_bench import PACKING, alone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

    BenchOf = Callable[..., TaskBench]
    FolderOf = Callable[..., Path]

FAMILIES: Final = [family for family, heads in HEADS.items() if "multiple-choice" in heads]


def asked(prompt: str, choices: Any, **parameters: Any) -> dict[str, Any]:
    return {"inputs": {"prompt": prompt, "choices": choices}, "parameters": parameters}


#: Mixed lengths and numbers of choices, empty texts, other scripts, special tokens that a user typed.
CASES: Final = [
    asked("The train is late, so", ["we wait.", "we hate this film and the long, cold night!", "the sea."]),
    asked("A", ["b"]),
    asked(" ".join(SENTENCES[:6]), [*SENTENCES[6:16]]),
    asked("", ["I love this film.", ""]),
    asked(" ", ["\t", " ", "no"]),
    asked("Ünïcödé 日本語 🎉", ["👨‍👩‍👧", "שלום", "naïve"]),
    asked("It says [SEP] or </s>", ["[MASK]", "<pad> [PAD]", "</s> and [SEP]"]),
    asked("word " * 60, ["one", "two two"]),
]


@functools.cache
def loaded(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForMultipleChoice.from_pretrained(folder, dtype=torch.float32)
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


def expected(folder: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    tokenizer, model = loaded(folder)
    prompt, choices = request["inputs"]["prompt"], request["inputs"]["choices"]
    inputs = tokenizer(
        [prompt] * len(choices),
        choices,
        padding=True,
        truncation=True,
        max_length=request["parameters"].get("max_length", 512),
        return_tensors="pt",
        return_token_type_ids=getattr(model.config, "type_vocab_size", 0) > 1,
    )
    with torch.inference_mode():
        logits = model(**{name: tensor.unsqueeze(0) for name, tensor in inputs.items()}).logits[0]
    scores = logits.softmax(dim=0).tolist()
    pairs = [{"choice": index, "score": score} for index, score in enumerate(scores)]
    return sorted(pairs, key=lambda pair: -pair["score"])


def difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    return ranked_difference(ours, theirs, PROBABILITIES)


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batched_answer_is_the_single_one_and_the_models(
    bench_of: BenchOf, folder_of: FolderOf, parity: Parity, family: str, packing: str
) -> None:
    """Choices of all requests in one poll, against one request alone and the model called by hand."""
    bench, folder = bench_of("multiple-choice", family, packing=packing), folder_of(family, "multiple-choice")
    ours = bench.outputs(CASES)
    assert sum(bench.batches) == sum(len(case["inputs"]["choices"]) for case in CASES)
    assert len(bench.batches) < len(CASES)
    parity.record(
        "multiple-choice",
        family,
        cases=len(CASES),
        single=largest(map(difference, ours, alone(bench, CASES))),
        pipeline=largest(map(difference, ours, [expected(folder, case) for case in CASES])),
    )
    for answer in ours:
        assert sum(choice["score"] for choice in answer) == pytest.approx(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_is_reported(bench_of: BenchOf, parity: Parity, family: str) -> None:
    """Batched against single in bfloat16; the equality contract is one of float32."""
    bench, cases = bench_of("multiple-choice", family, dtype="bfloat16"), CASES[:3]
    scores = [
        [{choice["choice"]: choice["score"] for choice in answer} for answer in answers]
        for answers in (bench.outputs(cases), alone(bench, cases))
    ]
    differences = (abs(one[choice] - two[choice]) for one, two in zip(*scores, strict=True) for choice in one)
    parity.record("multiple-choice", family, bf16=largest(differences))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_mask_batched_answers_are_wrong(
    bench_of: BenchOf, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: the comparison above can fail, for every family."""
    bench, requests = bench_of("multiple-choice", family, packing="off"), [CASES[0], CASES[-1]]
    singles = alone(bench, requests)
    task: Any = bench.task
    collate = task._encoder.collate

    def unmasked(rows: Any) -> Any:
        tensors = collate(rows)
        return {**tensors, "attention_mask": torch.ones_like(tensors["attention_mask"])}

    monkeypatch.setattr(task._encoder, "collate", unmasked)
    with pytest.raises(AssertionError):
        difference(bench.outputs(requests)[0], singles[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_and_says_so_or_is_refused(bench_of: BenchOf, folder_of: FolderOf, family: str) -> None:
    """At the model's limit and at the request's: the longer of prompt and choice first. Neighbours are as ever."""
    bench, folder = bench_of("multiple-choice", family), folder_of(family, "multiple-choice")
    text = " ".join(SENTENCES)
    cases = [asked(text, [text, "short"]), asked(SENTENCES[9], SENTENCES[:3], max_length=16)]
    refused = [asked(text, ["short"], truncation=False), asked("a", ["b", text], truncation=False, max_length=100)]
    answers = bench.ask([CASES[0], *cases, *refused, CASES[0]])
    for case, answer in zip([CASES[0], *cases], answers, strict=False):
        difference(answer["outputs"], expected(folder, case))
    assert [answer.get("truncated") for answer in answers] == [False, True, True, None, None, False]
    assert answers[1]["usage"]["input_tokens"] == 1024
    for answer in answers[3:5]:
        assert answer["error"]["code"] == "input_too_long"
        assert "truncation" in answer["error"]["message"]
    difference(answers[-1]["outputs"], answers[0]["outputs"])


def test_of_equal_scores_the_earlier_choice_is_first(bench_of: BenchOf) -> None:
    (answer,) = bench_of("multiple-choice", "bert").outputs([asked("The sea", ["is cold."] * 4)])
    assert answer == [{"choice": index, "score": 0.25} for index in range(4)]


def test_many_choices_are_spread_over_batches(bench_of: BenchOf, folder_of: FolderOf) -> None:
    """300 rows of one request, more than a batch takes."""
    bench, many = bench_of("multiple-choice", "bert"), asked("Water boils", [f"at {each}" for each in range(300)])
    (ours,) = bench.outputs([many], budget=1024)
    assert sum(bench.batches) == 300
    assert len(bench.batches) > 2
    difference(ours, expected(folder_of("bert", "multiple-choice"), many))


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (asked("a", []), "inputs.choices"),
        (asked("a", ["b"] * 1001), "inputs.choices"),
        (asked("a", "b"), "inputs.choices"),
        (asked("a" * 99_999, ["b"] * 11), "choices"),
        (asked("a", ["b" * 99_999] * 11), "choices"),
        (asked("a", ["b"], top_k=1), "parameters.top_k"),
        (asked("a", ["b"], max_length=1), "parameters.max_length"),
        ({"inputs": {"choices": ["b"]}}, "inputs.prompt"),
        ({"inputs": "a"}, "inputs"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_served_is_named(bench_of: BenchOf, request_: dict[str, Any], named: str) -> None:
    """An invalid_request that says which part it was, and neighbours that are answered."""
    before, answer, after = bench_of("multiple-choice", "bert").ask([CASES[0], request_, CASES[0]])
    assert (answer["status"], answer["error"]["code"]) == ("error", "invalid_request")
    assert named in answer["error"]["message"]
    difference(after["outputs"], before["outputs"])
