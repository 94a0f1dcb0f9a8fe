"""Summarization: what a text gets in a mixed poll is what it gets alone, and what transformers 4's pipeline gave it.

The pipeline left transformers; its answers are in tests/golden/summarization.json (scripts/make_golden_answers.py).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch

from checkpoints import HEADS, SENTENCES
from golden.recipes import difference, fingerprint
from task_bench import TaskBench, said

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nlp_worker.batching import Batch
    from nlp_worker.tasks.search import Inputs
    from parity import Parity

FAMILIES: Final = [family for family, heads in HEADS.items() if "seq2seq-lm" in heads]
GOLDEN: Final = json.loads((Path(__file__).parents[1] / "golden" / "summarization.json").read_text(encoding="utf-8"))

TEXTS: Final = ("Rain.", SENTENCES[22], " ".join(SENTENCES[23:26]), SENTENCES[27])
PARAMETERS: Final[Sequence[Mapping[str, Any]]] = (
    {"max_new_tokens": 12},
    {"num_beams": 1, "max_new_tokens": 16},
    {"num_beams": 1, "min_length": 8, "max_length": 20},
    {"num_beams": 1, "repetition_penalty": 1.5, "min_new_tokens": 6, "max_new_tokens": 10},
    {"num_beams": 1, "no_repeat_ngram_size": 1, "max_new_tokens": 14},
    {"num_beams": 1, "stop": ["a", "o"], "max_new_tokens": 16},
    {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True, "max_new_tokens": 12},
    {"num_beams": 3, "length_penalty": -1.0, "early_stopping": "never", "max_new_tokens": 12},
    {"num_beams": 4, "num_return_sequences": 2, "stop": "e", "max_new_tokens": 12},
    {"do_sample": True, "max_new_tokens": 12},
    {"do_sample": True, "seed": 3, "temperature": 1.5, "top_k": 40, "top_p": 0.9, "max_new_tokens": 12},
    {"do_sample": True, "num_return_sequences": 3, "repetition_penalty": 1.2, "max_new_tokens": 8},
)
REQUESTS: Final = [
    {"inputs": TEXTS[(at + step) % len(TEXTS)], "parameters": parameters}
    for at, parameters in enumerate(PARAMETERS)
    for step in (0, 1)
]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_poll_answers_as_each_request_alone(
    bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Greedy, beams and draws of texts of different lengths; in one poll, and over many batches in another order."""
    bench = bench_of("summarization", family)
    alone = [said(bench.ask([request], offsets=[offset])[0]) for offset, request in enumerate(REQUESTS)]
    assert [said(answer) for answer in bench.ask(REQUESTS)] == alone
    assert max(bench.batches) >= 10
    order = list(range(len(REQUESTS)))
    random.Random(1).shuffle(order)  # noqa: S311 - an order, not a secret
    shuffled = bench.ask([REQUESTS[at] for at in order], offsets=order, budget=250)
    assert [said(answer) for answer in shuffled] == [alone[at] for at in order]
    assert max(bench.batches) < 10
    assert {reason for _, _, reasons, _ in alone for reason in reasons} == {"stop", "length"}
    parity.record("summarization", family, cases=len(REQUESTS), single=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_reported(bench_of: Callable[..., TaskBench], parity: Parity, family: str) -> None:
    """The share of rows whose text in a batch is another one than alone; every one is an answer."""
    bench, requests = bench_of("summarization", family, dtype="bfloat16"), REQUESTS[2:12]
    alone = [bench.outputs([request])[0] for request in requests]
    differ = sum(one != other for one, other in zip(bench.outputs(requests), alone, strict=True))
    parity.record("summarization", family, bf16=differ / len(requests))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_mask_rows_differ(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: the encoder's mask is what makes the batch equal."""
    bench = bench_of("summarization", family)
    requests = [{"inputs": text, "parameters": {"num_beams": 1, "max_new_tokens": 12}} for text in TEXTS]
    right = bench.outputs(requests)
    collate = bench.task.collate

    def collate_wrongly(batch: Batch) -> Inputs:
        inputs: Inputs = collate(batch)
        ones = torch.ones_like(inputs.tensors["attention_mask"])
        return inputs._replace(tensors={**inputs.tensors, "attention_mask": ones})

    monkeypatch.setattr(bench.task, "collate", collate_wrongly)
    assert sum(one != other for one, other in zip(bench.outputs(requests), right, strict=True)) >= 2


@pytest.mark.parametrize("checkpoint", GOLDEN["checkpoints"])
def test_transformers_4_answered_the_same(
    golden: Callable[[str, str], tuple[Path, TaskBench]], parity: Parity, checkpoint: str
) -> None:
    """All golden cases of a checkpoint in one poll.

    max_length counts, of the call and of task_specific_params, where version 4 let its default of 256 new tokens win;
    a text that is too long is cut unless the request forbids it, where version 4 failed or read on.
    """
    folder, bench = golden("summarization", checkpoint)
    # Else the answers are another checkpoint's.
    assert difference(fingerprint(folder), GOLDEN["checkpoints"][checkpoint]["fingerprint"]) is None
    cases = [case for case in GOLDEN["cases"] if case["checkpoint"] == checkpoint]
    answers = bench.ask([{"inputs": case["inputs"], "parameters": case["parameters"]} for case in cases])
    met: dict[str, int] = defaultdict(int)
    for case, answer in zip(cases, answers, strict=True):
        if answer.get("truncated") and "truncation" not in case["parameters"]:
            met["cut"] += 1
        elif "error" in case:
            met["refused"] += 1
            assert answer["error"]["code"] == "invalid_request"
            assert "parameters.num_return_sequences" in answer["error"]["message"]
        else:
            met[case.get("differs", "equal")] += 1
            assert answer.get("outputs") == case.get("honoured", case["outputs"]), case
    assert met["equal"] >= (2 if checkpoint == "t5-plain" else 14)
    assert checkpoint == "t5-plain" or (met["cut"], met["refused"]) == (1, 1)
    assert "t5" not in checkpoint or met["max_length"] >= 1
    family = GOLDEN["checkpoints"][checkpoint]["family"]
    parity.record("summarization", family, cases=met["equal"] + met["max_length"], pipeline=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_max_length_is_honoured(bench_of: Callable[..., TaskBench], family: str) -> None:
    """The start token counts, as in generate(); max_new_tokens wins where both are given."""
    bench = bench_of("summarization", family)
    both = {"max_length": 9, "max_new_tokens": 5}
    least = {"min_length": 9, "no_repeat_ngram_size": 0}
    sets = {"max_length": 9, **least}, {**both}, {"max_length": 9, **least, "num_beams": 1}
    answers = bench.ask([{"inputs": TEXTS[1], "parameters": parameters} for parameters in sets])
    beams, new, greedy = (answer["usage"]["output_tokens"] for answer in answers)
    assert (beams, greedy) == (8, 8)
    assert new <= 5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_too_long_is_cut_and_says_so_or_is_refused(bench_of: Callable[..., TaskBench], family: str) -> None:
    """To what tokenizer and positions allow, the last token kept; its neighbour is answered."""
    short = {"max_new_tokens": 3}
    text = " ".join(SENTENCES) * 3
    cut, refused, other = bench_of("summarization", family).ask(
        [
            {"inputs": text, "parameters": short},
            {"inputs": text, "parameters": {**short, "truncation": False}},
            {"inputs": "Rain.", "parameters": short},
        ]
    )
    assert (cut["truncated"], cut["usage"]["input_tokens"]) == (True, 512)
    assert refused["error"]["code"] == "input_too_long"
    assert (other["status"], other["truncated"]) == ("ok", False)


def test_a_prefix_stands_before_the_text(bench_of: Callable[..., TaskBench]) -> None:
    """T5's of its task_specific_params is read: the text has more tokens, and another summary without it."""
    asked = {"max_new_tokens": 8}
    requests = [{"inputs": text, "parameters": asked} for text in (TEXTS[1], f"summarize: {TEXTS[1]}")]
    with_prefix, twice = bench_of("summarization", "t5").ask(requests)
    without, same = bench_of("summarization", "t5", task_specific_params=None).ask(requests)
    assert without["usage"]["input_tokens"] < with_prefix["usage"]["input_tokens"] == same["usage"]["input_tokens"]
    assert twice["usage"]["input_tokens"] > with_prefix["usage"]["input_tokens"]


@pytest.mark.parametrize(("family", "positions"), [("bart", 64), ("mbart", 64), ("marian", 64)])
def test_the_decoders_positions_are_never_exceeded(
    bench_of: Callable[..., TaskBench], family: str, positions: int
) -> None:
    """A summary ends at the last position, whatever more is asked for; a text is cut to the encoder's."""
    bench = bench_of("summarization", family, max_position_embeddings=positions)
    long = {"min_new_tokens": 100, "max_new_tokens": 100, "no_repeat_ngram_size": 0, "num_beams": 1}
    text = " ".join(SENTENCES[:8])
    answers = bench.ask([{"inputs": one, "parameters": long} for one in (text, "Rain.")])
    assert [answer["usage"]["output_tokens"] for answer in answers] == [positions - 1] * 2
    assert [answer["finish_reasons"] for answer in answers] == [["length"]] * 2
    assert [answer["truncated"] for answer in answers] == [True, False]
