"""Feature extraction: a text's vectors in any company are those alone, and those of the pipeline of transformers 5.

Tolerance, fp32: within 1e-4 absolute plus 1e-4 relative.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from checkpoints import FAMILIES, SENTENCES
from nlp_schemas import FeatureExtractionRequest
from nlp_worker.batching import Batch
from nlp_worker.poll import Row
from nlp_worker.tasks.encoder import Encoder
from parity import RAW, difference, largest
from task_bench import DEVICE, PACKING, computed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

# Marian's tokenizer would like a package that it works without.
pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")

TASK: Final = "feature-extraction"
#: Decoders' tokens do not see the padding behind them.
CAUSAL: Final = ("openai-gpt", "gpt2", "ctrl", "qwen3", "llama")
#: No token at all for an empty text.
BARE: Final = ("openai-gpt", "gpt2", "ctrl")
TEXTS: Final = [*SENTENCES[:12], "a", " ".join(SENTENCES[:8])]
#: Combining marks, emoji of several code points, right to left, full-width forms, beyond the basic plane, special
#: tokens typed by the user, unusual spaces and control characters, and what no tokenizer knows.
STRANGE: Final = (
    "e\u0301\u0301 Zu\u0308rich \u0130stanbul",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f\U0001f1eb\U0001f1f7",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c",
    "\uff21\uff4e\uff4e \ufb01lm \u2026 \u3392 \ufdfa",
    "\U0001d4d0\U0001d4f7\U00020000\U00020001",
    "[CLS] <s> </s> [SEP] <pad> [PAD] <mask> [MASK] <|endoftext|> <|im_end|> <unk> [UNK]",
    "a\u00a0b\u3000\tc\r\n\x00\x07\u2028 d",
    "\u13a0\u1b83\ud7ff" + "a" * 200,
)


def request(inputs: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


Vectors = list[list[float]]


@pytest.fixture(scope="session")
def vectors_of(folder_of: Callable[..., Path]) -> Callable[[str, str, int], Vectors]:
    """A text's vectors alone, by family, text and most tokens: of the pipeline, or where that fails of the encoder."""
    pipelines: dict[str, Any] = {}

    def vectors(family: str, text: str, longest: int) -> Vectors:
        if family not in pipelines:
            folder = folder_of(family, "base")
            pipelines[family] = transformers.pipeline(TASK, model=str(folder), dtype=torch.float32, device=DEVICE)
            if family == "mbart":  # version 5 loads it without its normalizer
                backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
                pipelines[family].tokenizer.backend_tokenizer.normalizer = backend.normalizer
        pipeline, options = pipelines[family], {"truncation": True, "max_length": longest}
        if family not in {"t5", "marian"}:
            (found,) = pipeline(text, tokenize_kwargs=options)
        else:
            # The pipeline gives the decoder nothing to decode.
            with pytest.raises(ValueError, match=r"decoder_input|exactly one of input_ids"):
                pipeline(SENTENCES[0])
            inputs = pipeline.tokenizer(text, return_tensors="pt", **options)
            with torch.inference_mode():
                found = pipeline.model.get_encoder()(inputs.input_ids).last_hidden_state[0].tolist()
        return cast("Vectors", found)

    return vectors


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_one_poll_have_their_vectors_alone_and_the_pipelines(
    bench_of: Callable[..., TaskBench],
    vectors_of: Callable[[str, str, int], Vectors],
    parity: Parity,
    family: str,
    packing: str,
) -> None:
    """Vectors for the text's tokens and none for padding, for mixed lengths in common batches; pooled ones likewise."""
    bench = bench_of(TASK, family, packing=packing)
    ways: list[dict[str, Any]] = [{}, {"pooling": "mean"}, {"pooling": "cls"}, {"pooling": "mean", "normalize": True}]
    requests = [request(text, **way) for text in TEXTS for way in (ways if len(text) < 40 else ways[:1])]
    ours = bench.outputs(requests)
    assert max(bench.batches) > 10
    alone = [bench.outputs([one])[0] for one in requests]
    single = largest(difference(*each, RAW) for each in zip(ours, alone, strict=True))
    pipeline = 0.0
    for one, outputs in zip(requests, ours, strict=True):
        vectors = np.array(vectors_of(family, one["inputs"], 512))
        theirs = {None: [vectors], "mean": vectors.mean(axis=0), "cls": vectors[0]}[one["parameters"].get("pooling")]
        if one["parameters"].get("normalize"):
            theirs = theirs / np.linalg.norm(theirs)
            assert math.hypot(*outputs) == pytest.approx(1, abs=1e-6)
        pipeline = max(pipeline, difference(outputs, np.array(theirs).tolist(), RAW))
    parity.record(TASK, family, cases=len(requests), single=single, pipeline=pipeline)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_difference_is_reported(
    bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Of all tokens' vectors; nothing is asserted but their shape."""
    bench = bench_of(TASK, family, dtype="bfloat16")
    requests = [request(text) for text in TEXTS]
    pairs = [
        (np.array(many), np.array(bench.outputs([one])[0]))
        for one, many in zip(requests, bench.outputs(requests), strict=True)
    ]
    parity.record(TASK, family, bf16=largest(float(np.abs(many - alone).max()) for many, alone in pairs))


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in CAUSAL])
def test_without_the_mask_the_comparison_fails(
    bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: with padding attended to, batched vectors are not those alone."""
    bench = bench_of(TASK, family, packing="off")
    requests = [request(TEXTS[0]), request(TEXTS[-1])]
    alone = bench.outputs(requests[:1])[0]
    forward = Encoder.forward

    def unmasked(encoder: Encoder, inputs: dict[str, torch.Tensor]) -> Any:
        return forward(encoder, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    monkeypatch.setattr(Encoder, "forward", unmasked)
    with pytest.raises(AssertionError):
        difference(bench.outputs(requests)[0], alone, RAW)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_text_has_vectors(
    bench_of: Callable[..., TaskBench], vectors_of: Callable[[str, str, int], Vectors], family: str
) -> None:
    """In no language of the checkpoint, with special tokens that a user typed, blank, and cut to the longest row.

    An empty text has the special tokens' vectors, and where there are none it is refused and its neighbours are not.
    """
    bench = bench_of(TASK, family)
    encoder: Encoder = bench.task._encoder  # type: ignore[attr-defined]
    limit, long = encoder.max_length, " ".join([*SENTENCES, *SENTENCES])
    texts = [*STRANGE, long]
    empty, blank, *answers = bench.ask([request(text) for text in ("", " \t\n", *texts)])
    tokens = len(encoder.tokenizer(long)["input_ids"])
    assert [answer["truncated"] for answer in answers] == [False] * len(STRANGE) + [tokens > limit]
    assert answers[-1]["usage"]["input_tokens"] == min(tokens, limit)
    for text, answer in zip(texts, answers, strict=True):
        theirs = vectors_of(family, text, limit)
        assert np.shape(answer["outputs"][0]) == np.shape(theirs)
        difference(answer["outputs"][0], theirs, RAW)
    if family in BARE or family == "qwen3":
        assert empty["error"]["code"] == "invalid_request"
        assert "no tokens of this checkpoint" in empty["error"]["message"]
    else:
        assert len(empty["outputs"][0]) == empty["usage"]["input_tokens"] > 0
    assert blank["status"] == "ok" or "no tokens of this checkpoint" in blank["error"]["message"]


@pytest.mark.parametrize("family", ["bert", "t5", "ctrl"])
def test_max_length_and_truncation(bench_of: Callable[..., TaskBench], family: str) -> None:
    """The row has max_length tokens at most; without truncation it is refused instead, and its neighbours are not."""
    bench = bench_of(TASK, family)
    short, whole, cut, refused, more = bench.ask(
        [
            request("film"),
            request(SENTENCES[3]),
            request(SENTENCES[3], max_length=8),
            request(SENTENCES[3], max_length=8, truncation=False),
            request(SENTENCES[3], max_length=100_000, truncation=False),
        ]
    )
    assert [answer.get("truncated") for answer in (short, whole, cut, more)] == [False, False, True, False]
    assert len(cut["outputs"][0]) == cut["usage"]["input_tokens"] == 8
    assert refused["error"]["code"] == "input_too_long"
    assert "at most 8" in refused["error"]["message"]
    difference(more["outputs"], whole["outputs"], RAW)


ERRORS: Final = [
    (request("a", pooling="max"), "parameters.pooling"),
    (request("a", normalize=True), "normalize is for one vector: give pooling"),
    (request("a", normalize=1, pooling="cls"), "parameters.normalize"),
    (request("a", max_length=7), "parameters.max_length"),
    (request("a", truncation="only_first"), "parameters.truncation"),
    (request("a", return_tensors=True), "parameters.return_tensors"),
    (request("a" * 100_001), "inputs"),
    (request("\ud800"), "not JSON"),
    ({"inputs": ["a", "b"]}, "inputs"),
    ({"inputs": None}, "inputs"),
]


def test_an_error_names_its_cause_and_its_neighbours_are_answered(bench_of: Callable[..., TaskBench]) -> None:
    """Each bad request among good ones."""
    bench = bench_of(TASK, "bert")
    good = request("a film", pooling="mean")
    answers = bench.ask([each for bad, _ in ERRORS for each in (bad, good)])
    for answer, (bad, named) in zip(answers[::2], ERRORS, strict=True):
        assert answer["status"] == "error", bad
        assert answer["error"]["code"] == "invalid_request"
        assert named in answer["error"]["message"]
    (alone,) = bench.outputs([good])
    assert largest(difference(answer["outputs"], alone, RAW) for answer in answers[1::2]) < 1e-4


def test_numbers_are_the_shortest_that_are_the_same_float32(bench_of: Callable[..., TaskBench]) -> None:
    """No digit of an answer is without meaning, and none is missing."""
    bench = bench_of(TASK, "bert")
    (vectors,) = bench.outputs([request(SENTENCES[3])])
    numbers = [number for vector in vectors[0] for number in vector]
    assert numbers == [float(str(np.float32(number))) for number in numbers]
    row = bench.task.preprocess([FeatureExtractionRequest(inputs=SENTENCES[3])])[0].rows[0]  # type: ignore[union-attr]
    (exact,) = computed(Batch(bench.task, [row]))
    assert np.array_equal(np.array(vectors[0], dtype=np.float32), exact)


def test_the_largest_common_answer_fits_a_message(bench_of: Callable[..., TaskBench]) -> None:
    """512 tokens of 768 numbers, a BERT-base's: below 16 MiB as JSON, and not above what was estimated for it."""
    task = bench_of(TASK, "bert").task
    vectors = np.random.default_rng(0).standard_normal((512, 768), dtype=np.float32)
    row = Row({"input_ids": [0] * 512}, output=vectors)
    outputs = task.postprocess(FeatureExtractionRequest(inputs="a"), [row]).outputs
    size = len(json.dumps(outputs, separators=(",", ":")))
    assert size < 16 * 2**20
    assert size < vectors.size * 14
