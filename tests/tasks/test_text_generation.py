"""Text generation: what a prompt gets in a mixed poll is what it gets alone, and what the pipeline gives it alone.

Texts, counts and reasons are identical in fp32; in bfloat16 near-ties flip, which is reported.
"""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from checkpoints import HEADS, SENTENCES
from task_bench import DEVICE, said, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from nlp_worker.batching import Batch
    from nlp_worker.tasks.search import Inputs
    from parity import Parity
    from task_bench import TaskBench

FAMILIES: Final = [family for family, heads in HEADS.items() if "causal-lm" in heads]
#: Their decoders number positions from the padding on, so they are batched with rows of equal length alone.
UNPADDED: Final = ("bart", "mbart", "marian")
PADDED: Final = [family for family in FAMILIES if family not in UNPADDED]
#: In their tiny checkpoints the end is a full stop, which the pipeline fills beams up with and does not skip.
ENDING_IN_FULL_STOPS: Final = ("openai-gpt", "ctrl")

#: Of different lengths, at most 40 tokens of any family.
PROMPTS: Final = (
    "The",
    "He wrote the letter, read it",
    "The new version is slower than the old one, and",
    "Water boils at",
    "Ann and Bob went to the museum on",
)
#: What the pipeline is asked too.
SETTLED: Final[Sequence[Mapping[str, Any]]] = (
    {"max_new_tokens": 8},
    {"max_new_tokens": 20},
    {"num_beams": 3, "max_new_tokens": 10},
    {"num_beams": 2, "length_penalty": 2.0, "early_stopping": True, "max_new_tokens": 14},
    {
        "num_beams": 3,
        "num_return_sequences": 2,
        "early_stopping": "never",
        "length_penalty": -0.5,
        "max_new_tokens": 12,
    },
    {"repetition_penalty": 1.5, "max_new_tokens": 12},
    {"no_repeat_ngram_size": 2, "max_new_tokens": 16},
    {"min_length": 36, "max_length": 42},
    {"min_new_tokens": 10, "max_new_tokens": 16},
    {"max_length": 42},
    {"stop": ["e", "o"], "max_new_tokens": 16},
    {"stop": "a", "num_beams": 2, "max_new_tokens": 12},
    {"return_full_text": False, "max_new_tokens": 6},
    {"num_beams": 2, "repetition_penalty": 1.3, "min_new_tokens": 6, "max_new_tokens": 10},
)
DRAWN: Final[Sequence[Mapping[str, Any]]] = (
    {"max_new_tokens": 8},
    {"seed": 7, "max_new_tokens": 12},
    {"seed": 7, "temperature": 2.0, "top_k": 0, "max_new_tokens": 8},
    {"top_p": 0.6, "min_new_tokens": 6, "max_new_tokens": 10},
    {"num_return_sequences": 3, "repetition_penalty": 1.4, "max_new_tokens": 8},
    {"min_p": 0.05, "typical_p": 0.9, "no_repeat_ngram_size": 1, "max_new_tokens": 9},
    {"stop": "e", "max_new_tokens": 12},
)

families = pytest.mark.parametrize("family", FAMILIES)


def mixed(*kinds: tuple[bool, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Each set of parameters for two prompts."""
    return [
        {"inputs": PROMPTS[(at + step) % len(PROMPTS)], "parameters": {"do_sample": sampled, **parameters}}
        for sampled, sets in kinds
        for at, parameters in enumerate(sets)
        for step in (0, 1)
    ]


def texts(outputs: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [output["generated_text"] for output in outputs]


def without_filling(text: str, family: str) -> str:
    return text.rstrip(" .") if family in ENDING_IN_FULL_STOPS else text


@pytest.fixture(scope="module")
def pipeline_of(folder_of: Callable[..., Path]) -> Callable[[str], Any]:
    loaded: dict[str, Any] = {}

    def load(family: str) -> Any:
        if family not in loaded:
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # Marian's recommends sacremoses
                loaded[family] = transformers.pipeline(
                    "text-generation", str(folder_of(family, "causal-lm")), dtype=torch.float32, device=DEVICE
                )
        return loaded[family]

    return load


@families
def test_a_mixed_poll_answers_as_each_request_alone(
    bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Greedy, beams and draws of different lengths and parameters; in one batch, and over many in another order."""
    bench = bench_of("text-generation", family)
    requests = mixed((False, SETTLED), (True, DRAWN))
    alone = [said(bench.ask([request], offsets=[offset])[0]) for offset, request in enumerate(requests)]
    assert [said(answer) for answer in bench.ask(requests)] == alone
    assert max(bench.batches) > (4 if family in UNPADDED else 20)
    order = list(range(len(requests)))
    random.Random(1).shuffle(order)  # noqa: S311 - an order, not a secret
    shuffled = bench.ask([requests[at] for at in order], offsets=order, budget=350)
    assert [said(answer) for answer in shuffled] == [alone[at] for at in order]
    assert max(bench.batches) < 15
    assert {reason for _, _, reasons, _ in alone for reason in reasons} == {"stop", "length"}
    parity.record("text-generation", family, cases=len(requests), single=0.0)


@families
def test_a_mixed_poll_answers_as_the_pipeline_does_each_prompt_alone(
    bench_of: Callable[..., TaskBench], pipeline_of: Callable[[str], Any], parity: Parity, family: str
) -> None:
    """Of transformers 5, with its spaces lost between prompt and continuation too."""
    requests = mixed((False, SETTLED))
    ours = bench_of("text-generation", family).outputs(requests)
    for request, outputs in zip(requests, ours, strict=True):
        asked = dict(request["parameters"])
        if "stop" in asked:
            asked["stop_sequence"] = asked.pop("stop")
        theirs = texts(pipeline_of(family)(request["inputs"], **asked))
        if len(theirs) > 1:
            theirs = [without_filling(text, family) for text in theirs]
            assert [without_filling(text, family) for text in texts(outputs)] == theirs, request
        else:
            assert texts(outputs) == theirs, request
    parity.record("text-generation", family, cases=len(requests), pipeline=0.0)


@families
def test_bfloat16_is_reported(bench_of: Callable[..., TaskBench], parity: Parity, family: str) -> None:
    """The share of rows whose text in a batch is another one than alone; every one is an answer."""
    bench = bench_of("text-generation", family, dtype="bfloat16")
    requests = mixed((False, SETTLED[:4]), (True, DRAWN[:2]))
    alone = [bench.outputs([request], offsets=[offset])[0] for offset, request in enumerate(requests)]
    differ = sum(one != other for one, other in zip(bench.outputs(requests), alone, strict=True))
    parity.record("text-generation", family, bf16=differ / len(requests))


@pytest.mark.parametrize("family", PADDED)
@pytest.mark.parametrize("wrong", ["side", "mask"])
def test_padded_on_the_right_or_without_its_mask_most_rows_differ(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch, family: str, wrong: str
) -> None:
    """The control: left padding and its mask are what makes the batch equal."""
    bench = bench_of("text-generation", family)
    requests = [{"inputs": prompt, "parameters": {"do_sample": False, "max_new_tokens": 12}} for prompt in PROMPTS]
    right = bench.outputs(requests)
    collate = bench.task.collate

    def collate_wrongly(batch: Batch) -> Inputs:
        inputs: Inputs = collate(batch)
        ids, mask = inputs.tensors["input_ids"], inputs.tensors["attention_mask"]
        if wrong == "mask":
            return inputs._replace(tensors={"input_ids": ids, "attention_mask": torch.ones_like(mask)})
        lengths = mask.sum(dim=1).tolist()
        turned = {name: torch.stack([row.roll(length) for row, length in zip(tensor, lengths, strict=True)])
                  for name, tensor in inputs.tensors.items()}  # fmt: skip
        return inputs._replace(tensors=turned)

    monkeypatch.setattr(bench.task, "collate", collate_wrongly)
    differ = sum(one != other for one, other in zip(bench.outputs(requests), right, strict=True))
    assert differ >= 3


@pytest.mark.parametrize("family", UNPADDED)
def test_decoders_without_position_ids_are_batched_by_length(bench_of: Callable[..., TaskBench], family: str) -> None:
    """Two prompts of one length make a batch, one of another length its own."""
    bench = bench_of("text-generation", family)
    prompts = "The children were happy", "The children were happy", "The"
    bench.outputs([{"inputs": prompt, "parameters": {"do_sample": False, "max_new_tokens": 2}} for prompt in prompts])
    assert sorted(bench.batches) == [1, 2]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "qwen3"])
def test_a_prompt_too_long_is_refused_or_leaves_a_hole(
    bench_of: Callable[..., TaskBench], pipeline_of: Callable[[str], Any], family: str
) -> None:
    """handle_long_generation=hole is the pipeline's, and the answer says so; Qwen3's tokenizer has no limit."""
    prompt = "The fox jumps over " * 400
    hole = {"do_sample": False, "max_new_tokens": 4, "handle_long_generation": "hole"}
    short = {"inputs": "The", "parameters": hole}
    cut, refused, other, no_room = bench_of("text-generation", family).ask(
        [
            {"inputs": prompt, "parameters": hole},
            {"inputs": prompt, "parameters": {"max_new_tokens": 4}},
            short,
            {"inputs": prompt, "parameters": {**hole, "max_new_tokens": 8000}},
        ]
    )
    assert cut["truncated"]
    assert texts(cut["outputs"]) == texts(pipeline_of(family)(prompt, **hole))
    assert refused["error"]["code"] == "input_too_long"
    assert not other["truncated"]
    assert texts(other["outputs"]) == texts(pipeline_of(family)("The", **hole))
    assert no_room["error"]["code"] == "invalid_request"
    assert "handle_long_generation" in no_room["error"]["message"]


def test_more_new_tokens_than_the_worker_allows_are_refused(folder_of: Callable[..., Path]) -> None:
    """Whoever asks for a number is told; where only a length of the whole is named, the text ends at the setting."""
    bench = serve(("text-generation", folder_of("gpt2", "causal-lm")), max_new_tokens=8)
    refused, whole, most = bench.ask(
        [
            {"inputs": "The", "parameters": {"do_sample": False, **asked}}
            for asked in ({"max_new_tokens": 9}, {"max_length": 30, "min_length": 30}, {"max_new_tokens": 8})
        ]
    )
    assert refused["error"]["code"] == "invalid_request"
    assert "max_new_tokens is 9: at most 8" in refused["error"]["message"]
    assert (whole["usage"]["output_tokens"], whole["finish_reasons"]) == (8, ["length"])
    assert most["status"] == "ok"


@families
def test_an_empty_prompt_starts_from_the_first_token(
    bench_of: Callable[..., TaskBench], pipeline_of: Callable[[str], Any], family: str
) -> None:
    """As the pipeline does it; where there is no such token the request is refused, as there."""
    asked = {"do_sample": False, "max_new_tokens": 6}
    empty, other = bench_of("text-generation", family).ask(
        [{"inputs": "", "parameters": asked}, {"inputs": "The", "parameters": asked}]
    )
    assert other["status"] == "ok"
    if family in {"openai-gpt", "ctrl", "qwen3"}:
        assert empty["error"]["code"] == "invalid_request"
        assert "inputs are empty" in empty["error"]["message"]
    else:
        assert texts(empty["outputs"]) == texts(pipeline_of(family)("", **asked))


@pytest.mark.parametrize("family", ["gpt2", "llama", "bart"])
def test_new_tokens_are_counted_and_the_reason_is_given(
    bench_of: Callable[..., TaskBench], pipeline_of: Callable[[str], Any], family: str
) -> None:
    """The end token counts; a row ends there, after a stop text, or at its limit, whatever its neighbours do."""
    bench, asked = bench_of("text-generation", family), {"do_sample": False, "max_new_tokens": 24}
    prompts = [" ".join(text.split()[:5]) for text in SENTENCES[22:34]]
    pipe, seen = pipeline_of(family), set()
    for prompt, answer in zip(
        prompts, bench.ask([{"inputs": one, "parameters": asked} for one in prompts]), strict=True
    ):
        (record,) = pipe(prompt, return_tensors=True, **asked)
        prompt_tokens = answer["usage"]["input_tokens"]
        new = record["generated_token_ids"][prompt_tokens:]
        ends = pipe.model.generation_config.eos_token_id
        assert answer["usage"]["output_tokens"] == len(new)
        assert answer["finish_reasons"] == ["stop" if new[-1] == ends else "length"]
        seen.update(answer["finish_reasons"])
    assert seen == {"stop", "length"}


def test_a_row_ends_with_the_token_that_ends_a_stop_text(bench_of: Callable[..., TaskBench]) -> None:
    """The stop text is kept; one token less, and it was not there."""
    bench, stops = bench_of("text-generation", "gpt2"), ["a", "e", "in"]
    asked = {"do_sample": False, "max_new_tokens": 24, "stop": stops, "return_full_text": False}
    prompts = [" ".join(text.split()[:5]) for text in SENTENCES[22:34]]
    stopped = [
        (prompt, answer["usage"]["output_tokens"])
        for prompt, answer in zip(
            prompts, bench.ask([{"inputs": one, "parameters": asked} for one in prompts]), strict=True
        )
        if any(stop in texts(answer["outputs"])[0] for stop in stops)
        and answer["finish_reasons"] == ["stop"]
        and answer["usage"]["output_tokens"] > 1
    ]
    assert len(stopped) > 4
    shorter = [{"inputs": one, "parameters": {**asked, "max_new_tokens": tokens - 1}} for one, tokens in stopped]
    for answer in bench.ask(shorter):
        assert not any(stop in texts(answer["outputs"])[0] for stop in stops)
        assert answer["finish_reasons"] == ["length"]
