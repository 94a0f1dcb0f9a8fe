"""Question answering: an answer in any company is the answer alone, and that of transformers 4's pipeline.

Tolerance, fp32: probabilities within 1e-5; answers and their places are identical.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from checkpoints import HEADS, SENTENCES
from golden.recipes import difference as unlike
from golden.recipes import fingerprint
from nlp_schemas import QuestionAnsweringRequest
from nlp_worker.tasks.base import Prepared
from nlp_worker.tasks.encoder import Encoder
from parity import PROBABILITIES, difference, largest, ranked_difference
from task_bench import PACKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from parity import Parity
    from task_bench import TaskBench

TASK: Final = "question-answering"
FAMILIES: Final = [family for family, heads in HEADS.items() if TASK in heads]
GOLDEN: Final = json.loads((Path(__file__).parents[1] / "golden" / f"{TASK}.json").read_text(encoding="utf-8"))
QUESTION: Final = "Who went to Paris in 2019?"
CAUSAL: Final = ("gpt2", "llama", "qwen3")
NO_ANSWER: Final = {"score": 0.0, "start": 0, "end": 0, "answer": ""}
#: No text at all, blank, combining marks, emoji of several code points, right to left, full-width forms, beyond the
#: basic plane, special tokens of all families, unusual spaces, and what no tokenizer knows.
STRANGE: Final = (
    "   ",
    "\u200b\u200d\ufeff",
    "e\u0301\u0301\u0301 Zu\u0308rich \u0130stanbul",
    "Ann \U0001f469\u200d\U0001f469\u200d\U0001f467 and \u2764\ufe0f\U0001f1eb\U0001f1f7 Bob",
    "\u05e9\u05dc\u05d5\u05dd Ann \u0645\u0631\u062d\u0628\u0627 Bob \u202eabc\u202c",
    "\uff21\uff4e\uff4e \ufb01lm \u2026 \u3392 \ufdfa",
    "\U0001d4d0\U0001d4f7\U0001d4f7 \U00020000\U00020001 went",
    "Ann [CLS] <s> </s> [SEP] <pad> [PAD] <mask> [MASK] <|endoftext|> <|im_end|> <unk> went",
    "Ann\u00a0went\u3000to\tRome\r\n\x00\x07 a\u2028b",
    "\u13a0\u1b83\ud7ff " * 3,
    "a" * 300,
)


def request(question: str, context: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": {"question": question, "context": context}, "parameters": parameters}


def listed(outputs: Any) -> list[dict[str, Any]]:
    """Return the answers: one comes as an object, several as a list."""
    assert not isinstance(outputs, list) or len(outputs) > 1
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.fixture(scope="session")
def golden_of(folder_of: Callable[..., Path]) -> Callable[[str], list[dict[str, Any]]]:
    """What transformers 4 answered, for the checkpoint that it was asked with and for no other."""

    def cases(family: str) -> list[dict[str, Any]]:
        recipe = GOLDEN["checkpoints"][family]
        problem = unlike(fingerprint(folder_of(family, TASK)), recipe["fingerprint"])
        assert not problem, f"{family} is not the checkpoint of the golden answers ({problem}): make them anew"
        return [case for case in GOLDEN["cases"] if case["checkpoint"] == family]

    return cases


def answered(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what transformers 4 raised for, and blank contexts, which it fills up with spans of probability 0."""
    return [case for case in cases if "outputs" in case and case["inputs"]["context"].strip()]


def asked(case: dict[str, Any]) -> dict[str, Any]:
    return request(**case["inputs"], **case["parameters"])


def expected(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the golden answers less those of score 0, which end before they begin, or are too long, or no context's.

    With more answers asked for than there are, the pipeline fills up with these. The empty answer may really have 0.
    """
    outputs = case["outputs"] if isinstance(case["outputs"], list) else [case["outputs"]]
    null = [NO_ANSWER] if case["parameters"].get("handle_impossible_answer") and NO_ANSWER in outputs else []
    return [answer for answer in outputs if answer["score"] > 0] + null


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_requests_of_one_poll_get_their_answers_alone_and_transformers_4s(
    bench_of: Callable[..., TaskBench],
    golden_of: Callable[[str], list[dict[str, Any]]],
    parity: Parity,
    family: str,
    packing: str,
) -> None:
    """All golden cases in one poll, whatever their lengths and parameters, and again one by one."""
    cases = answered(golden_of(family))
    bench = bench_of(TASK, family, packing=packing)
    ours = [listed(outputs) for outputs in bench.outputs([asked(case) for case in cases])]
    assert max(bench.batches) > 10
    alone = [listed(bench.outputs([asked(case)])[0]) for case in cases]
    single = largest(ranked_difference(*each, PROBABILITIES) for each in zip(ours, alone, strict=True))
    theirs = [expected(case) for case in cases]
    pipeline = largest(ranked_difference(*each, PROBABILITIES) for each in zip(ours, theirs, strict=True))
    assert len({answer["answer"] for answers in ours for answer in answers}) > 20
    parity.record(TASK, family, cases=len(cases), single=single, pipeline=pipeline)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_difference_is_reported(
    bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Of answers that are found batched and alone; where scores are close others are found, so nothing is asserted."""
    bench = bench_of(TASK, family, dtype="bfloat16")
    requests = [request(QUESTION, " ".join(SENTENCES[:n]), top_k=20) for n in range(1, 9)]
    worst = 0.0
    for one, many in zip(requests, bench.outputs(requests), strict=True):
        alone = {(each["start"], each["end"]): each["score"] for each in listed(bench.outputs([one])[0])}
        both = [(each["score"], alone.get((each["start"], each["end"]))) for each in listed(many)]
        worst = max(worst, largest(abs(ours - theirs) for ours, theirs in both if theirs is not None))
    parity.record(TASK, family, bf16=worst)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in CAUSAL])
def test_without_the_mask_the_comparison_fails(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: with padding attended to, batched answers are not those alone. Decoders never see what follows."""
    bench = bench_of(TASK, family, packing="off")
    requests = [request(QUESTION, text, top_k=5) for text in (SENTENCES[0], " ".join(SENTENCES[:6]))]
    alone = listed(bench.outputs(requests[:1])[0])
    forward = Encoder.forward

    def unmasked(encoder: Encoder, inputs: dict[str, torch.Tensor]) -> Any:
        return forward(encoder, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    monkeypatch.setattr(Encoder, "forward", unmasked)
    with pytest.raises(AssertionError):
        ranked_difference(listed(bench.outputs(requests)[0]), alone, PROBABILITIES)


@pytest.mark.parametrize("family", ["bert", "roberta", "t5", "gpt2"])
@pytest.mark.parametrize(("longest", "stride"), [(32, 0), (40, 12), (64, 40), (384, 128)])
def test_windows_are_those_of_the_tokenizer(
    bench_of: Callable[..., TaskBench], family: str, longest: int, stride: int
) -> None:
    """Token for token what the library's own overflowing tokens are, which the pipeline used."""
    context = " ".join(SENTENCES)
    encoder = bench_of(TASK, family).task._encoder  # type: ignore[attr-defined]
    (windows,) = cut(bench_of(TASK, family), request("Why so?", context, max_seq_len=longest, doc_stride=stride))
    options = {"max_length": longest, "stride": stride, "return_overflowing_tokens": True}
    theirs = encoder.tokenizer("Why so?", context, truncation="only_second", **options)["input_ids"]
    assert len(theirs) > 2
    assert windows == theirs


def cut(bench: TaskBench, *requests: dict[str, Any]) -> list[list[list[int]]]:
    """Return the token ids of each request's rows."""
    read = [QuestionAnsweringRequest.model_validate(each) for each in requests]
    prepared = [each for each in bench.task.preprocess(read) if isinstance(each, Prepared)]
    return [[row.features["input_ids"] for row in each.rows] for each in prepared]


def test_windows_share_batches_with_other_requests(bench_of: Callable[..., TaskBench]) -> None:
    """Rows of a long context and short ones in one batch; each answer is put together of its own windows."""
    bench = bench_of(TASK, "distilbert", packing="off")
    long = request(QUESTION, " ".join(SENTENCES), max_seq_len=64, doc_stride=16, top_k=3)
    requests = [request(QUESTION, SENTENCES[0]), long, request("When?", SENTENCES[9]), {**long}, request("?", "Ann")]
    windows = [len(rows) for rows in cut(bench, *requests)]
    assert windows[1] > 15
    ours = bench.outputs(requests, budget=20 * 64)
    assert sum(bench.batches) == sum(windows)
    assert max(bench.batches) == 20
    for one, outputs in zip(requests, ours, strict=True):
        ranked_difference(listed(outputs), listed(bench.outputs([one])[0]), PROBABILITIES)


@pytest.mark.timeout(20)
def test_a_long_context_takes_hardly_longer_than_its_forward(bench_of: Callable[..., TaskBench]) -> None:
    """50,000 characters in a hundred windows: reading a tokenizer's columns anew for each span took half a minute."""
    bench = bench_of(TASK, "distilbert")
    context = (" ".join(SENTENCES) * 60)[:50_000]
    (outputs,) = bench.outputs([request(QUESTION, context, top_k=1000)])
    assert sum(bench.batches) > 60
    assert len(outputs) == 1000
    assert all(context[each["start"] : each["end"]] == each["answer"] for each in outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_text_is_answered_with_a_part_of_it(bench_of: Callable[..., TaskBench], family: str) -> None:
    """Places count code points of what was sent; a context of no tokens is refused, and its neighbours are not."""
    bench = bench_of(TASK, family)
    requests = [request(QUESTION, context, top_k=20, max_seq_len=64, doc_stride=8) for context in STRANGE]
    unaligned = [request(text[:99], text, top_k=20, align_to_words=False) for text in STRANGE]
    answers = bench.ask([*requests, *unaligned])
    for one, answer in zip([*requests, *unaligned], answers, strict=True):
        context = one["inputs"]["context"]
        if answer["status"] == "error":
            assert context in STRANGE[:2]
            assert answer["error"]["code"] == "invalid_request"
            assert "inputs.context makes no tokens" in answer["error"]["message"]
            continue
        assert all(context[each["start"] : each["end"]] == each["answer"] for each in listed(answer["outputs"]))
        assert all(0 <= each["start"] <= each["end"] <= len(context) for each in listed(answer["outputs"]))
    for one, answer in list(zip(requests, answers, strict=False))[2:]:
        # Scores alone: where two tie, as the halves of an emoji do, float noise decides which place is the first.
        alone = listed(bench.outputs([one])[0])
        ours = [each["score"] for each in listed(answer["outputs"])]
        difference(ours, [each["score"] for each in alone], PROBABILITIES)


def test_an_answer_is_of_the_context_though_the_question_has_special_tokens(
    bench_of: Callable[..., TaskBench],
) -> None:
    """A "[CLS]" typed in the question was a place for answers, by its offsets in the question."""
    bench = bench_of(TASK, "bert")
    questions = "Is it?", "[CLS] [CLS] [CLS]", "Is it far away from [CLS] or [SEP]?"
    requests = [request(question, "I love it.", top_k=100, align_to_words=False) for question in questions]
    places = [{(each["start"], each["end"]) for each in spans} for spans in bench.outputs(requests)]
    assert places[0] == places[1] == places[2]


@pytest.mark.parametrize("limit", [1, 2, 3, 10_000])
def test_answers_have_at_most_max_answer_len_tokens(bench_of: Callable[..., TaskBench], limit: int) -> None:
    """All spans that there are, and none twice, none backwards, none too long, however many are asked for."""
    context = "I love this film."
    bench = bench_of(TASK, "bert")
    offsets = bench.task._encoder.tokenizer(context, return_offsets_mapping=True)["offset_mapping"][1:-1]  # type: ignore[attr-defined]
    tokens = len(offsets)
    places = {
        (offsets[first][0], offsets[last][1])
        for first in range(tokens)
        for last in range(first, min(first + limit, tokens))
    }
    (spans,) = bench.outputs([request("What?", context, top_k=1000, max_answer_len=limit, align_to_words=False)])
    assert {(each["start"], each["end"]) for each in spans} == places
    assert len(spans) == len({each["answer"].lower() for each in spans}) == len(places)


ERRORS: Final = [
    (request("", "Ann"), "invalid_request", "inputs.question"),
    (request("Who?", ""), "invalid_request", "inputs.context"),
    (request("\ud800", "Ann"), "invalid_request", "not JSON"),
    (request("Who?", "Ann \udfff"), "invalid_request", "not JSON"),
    (request("Who?", "Ann", top_k=0), "invalid_request", "parameters.top_k"),
    (request("Who?", "Ann", top_k=1001), "invalid_request", "parameters.top_k"),
    (request("Who?", "Ann", max_answer_len=0), "invalid_request", "parameters.max_answer_len"),
    (request("Who?", "Ann", max_seq_len=7), "invalid_request", "parameters.max_seq_len"),
    (request("Who?", "Ann", doc_stride=-1), "invalid_request", "parameters.doc_stride"),
    (request("Who?", "Ann", align_to_words=1), "invalid_request", "parameters.align_to_words"),
    (request("Who?", "Ann", max_seq_len=40, doc_stride=41), "invalid_request", "parameters.doc_stride"),
    (request("Who?", "Ann went. " * 50, max_seq_len=40, doc_stride=39), "invalid_request", "parameters.doc_stride"),
    (request("Who? " * 40, "Ann", max_seq_len=40), "input_too_long", "parameters.max_seq_len"),
    (request("Who? " * 400, "Ann"), "input_too_long", "parameters.max_seq_len"),
    (request("?", "a b " * 5_000, max_seq_len=12, doc_stride=1), "input_too_long", "parameters.max_seq_len"),
]


@pytest.mark.parametrize("family", ["bert", "roberta", "t5"])
def test_an_error_names_its_cause_and_its_neighbours_are_answered(
    bench_of: Callable[..., TaskBench], family: str
) -> None:
    """What transformers 4 raised for, or panicked, among requests that are answered as if they were alone."""
    bench = bench_of(TASK, family)
    good = request(QUESTION, " ".join(SENTENCES[:3]))
    answers = bench.ask([each for bad, _, _ in ERRORS for each in (bad, good)])
    for answer, (bad, code, named) in zip(answers[::2], ERRORS, strict=True):
        assert answer["status"] == "error", bad
        assert answer["error"]["code"] == code, answer["error"]
        assert named in answer["error"]["message"], answer["error"]
    (alone,) = bench.outputs([good])
    for answer in answers[1::2]:
        ranked_difference(listed(answer["outputs"]), listed(alone), PROBABILITIES)


def test_a_window_that_fits_is_answered_whatever_the_stride(bench_of: Callable[..., TaskBench]) -> None:
    """As in transformers 4, the overlap counts where there are several windows only."""
    bench = bench_of(TASK, "bert")
    plain, strided = bench.outputs(
        [request("Who?", "Ann went", max_seq_len=40, **more) for more in ({}, {"doc_stride": 39})]
    )
    difference(strided, plain, PROBABILITIES)


def test_a_long_question_is_answered_with_less_overlap_than_the_default(bench_of: Callable[..., TaskBench]) -> None:
    """Where transformers 4 panics: nobody asked for 128 tokens in common, and the window has room for fewer."""
    bench = bench_of("question-answering", "bert")
    question, context = "why " * 135, "The train came at nine. " * 40
    (answer,) = bench.outputs([{"inputs": {"question": question, "context": context}}])
    assert context[answer["start"] : answer["end"]] == answer["answer"]
