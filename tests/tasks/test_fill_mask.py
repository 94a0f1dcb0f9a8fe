"""Fill-mask: a batched answer is the answer alone, and the pipeline's of transformers 5.

Tolerance, fp32: probabilities within 1e-5; tokens and texts are identical.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
import tokenizers
import torch
from transformers import pipeline

from checkpoints import HEADS, SENTENCES
from nlp_worker.tasks.encoder import Encoder
from parity import PROBABILITIES, largest, plain, ranked_difference
from task_bench import DEVICE, PACKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from parity import Parity
    from task_bench import TaskBench

TASK: Final = "fill-mask"
FAMILIES: Final = [family for family, heads in HEADS.items() if "masked-lm" in heads]
#: Where an entry of the vocabulary begins with a mark: of a continued word, or of the space before it.
MARKS: Final = ("##", "\u0120", "\u2581")
#: Mixed lengths with a mask each at another place, `{}`.
MASKED: Final = [text.replace(text.split()[number % 4], "{}", 1) for number, text in enumerate(SENTENCES[:14])]
LONG: Final = [" ".join([*SENTENCES[:6], "{}", *SENTENCES[6:10]]), "{}", "a {}", "{}."]
SEVERAL: Final = ["I {} this {}.", "{} {} {}", " ".join(["{}", *SENTENCES[:4], "{}", SENTENCES[4]])]
#: Combining marks, emoji of several code points, right to left, full-width forms, beyond the basic plane, special
#: tokens typed by the user, unusual spaces and control characters, and what no tokenizer knows.
STRANGE: Final = (
    "\uff21\uff4e\uff4e {} \ufb01lm \u2026 \u3392 \ufdfa",
    "e\u0301\u0301 Zu\u0308rich {} \u0130stanbul",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 {} \u2764\ufe0f\U0001f1eb\U0001f1f7",
    "\u05e9\u05dc\u05d5\u05dd {} \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c",
    "\U0001d4d0\U0001d4f7{}\U00020000\U00020001",
    "[CLS] <s> {} </s> [SEP] <pad> [PAD] <|endoftext|> <unk> [UNK]",
    "a\u00a0b\u3000{}\tc\r\n\x00\x07\u2028 d",
    "\u13a0\u1b83\ud7ff{}" + "a" * 200,
)


def request(inputs: str, **parameters: Any) -> dict[str, Any]:
    return {"inputs": inputs, "parameters": parameters}


class Filler:
    """A family's task, and transformers' pipeline on the same checkpoint."""

    def __init__(self, family: str, bench: TaskBench, folder: Path) -> None:
        self.family, self.bench = family, bench
        self.pipeline = pipeline(TASK, model=str(folder), dtype=torch.float32, device=DEVICE)
        if family == "mbart":  # version 5 loads it without its normalizer
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self.pipeline.tokenizer.backend_tokenizer.normalizer = backend.normalizer
        self.mask: str = self.pipeline.tokenizer.mask_token
        self.vocabulary: dict[str, int] = self.pipeline.tokenizer.get_vocab()

    def request(self, text: str, **parameters: Any) -> dict[str, Any]:
        return request(text.format(*[self.mask] * text.count("{}")), **parameters)

    def compare(self, requests: Sequence[dict[str, Any]]) -> tuple[float, float]:
        """Ask all in one poll: the largest difference from the answers alone, and from the pipeline's."""
        ours = self.bench.outputs(requests)
        alone = [self.bench.outputs([one])[0] for one in requests]
        theirs = [plain(self.pipeline(one["inputs"], **self._options(one["parameters"]))) for one in requests]
        pairs = zip(ours, alone, theirs, strict=True)
        differences = [(difference(one, single), difference(one, their)) for one, single, their in pairs]
        return largest(single for single, _ in differences), largest(their for _, their in differences)

    def _options(self, parameters: dict[str, Any]) -> dict[str, Any]:
        cut = {"truncation": True, "max_length": parameters.get("max_length", 512)}
        kept = {name: value for name, value in parameters.items() if name in {"top_k", "targets"}}
        return {**kept, "tokenizer_kwargs": cut}


def difference(ours: Any, theirs: Any) -> float:
    """Compare fillings of one mask, or of several."""
    assert len(ours) == len(theirs)
    if isinstance(theirs[0], dict):
        return ranked_difference(ours, theirs, PROBABILITIES)
    return largest(ranked_difference(*each, PROBABILITIES) for each in zip(ours, theirs, strict=True))


@pytest.fixture(scope="session")
def filler_of(bench_of: Callable[..., TaskBench], folder_of: Callable[..., Path]) -> Callable[..., Filler]:
    made: dict[tuple[str, str], Filler] = {}

    def filler(family: str, packing: str = "auto") -> Filler:
        if (family, packing) not in made:
            bench = bench_of(TASK, family, packing=packing)
            made[family, packing] = Filler(family, bench, folder_of(family, "masked-lm"))
        return made[family, packing]

    return filler


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_one_poll_are_filled_as_alone_and_as_by_the_pipeline(
    filler_of: Callable[..., Filler], parity: Parity, family: str, packing: str
) -> None:
    """Mixed lengths, one mask and several, and each request's own top_k and targets, in common batches."""
    filler = filler_of(family, packing)
    marked = next(entry for entry in filler.vocabulary if entry.startswith(MARKS) and len(entry) > 3)
    targets = ["the", "the", marked, "unknownword", filler.mask, "film", "\U0001f389"]
    parameters: list[dict[str, Any]] = [{}, {"top_k": 1}, {"top_k": 40}, {"targets": targets}]
    parameters += [{"targets": marked}, {"targets": targets, "top_k": 2}]
    texts = [*MASKED, *LONG, *SEVERAL]
    requests = [filler.request(text, **parameters[number % 6]) for number, text in enumerate(texts)]
    single, pipelines = filler.compare(requests)
    filler.bench.outputs(requests)
    assert max(filler.bench.batches) > 10
    parity.record(TASK, family, cases=len(requests), single=single, pipeline=pipelines)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_the_difference_is_reported(
    filler_of: Callable[..., Filler], bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Of every entry of the vocabulary; where scores are close their order is another, so nothing is asserted."""
    bench = bench_of(TASK, family, dtype="bfloat16")
    requests = [filler_of(family).request(text, top_k=1000) for text in (*MASKED[:4], LONG[0])]
    worst = 0.0
    for one, many in zip(requests, bench.outputs(requests), strict=True):
        alone = {each["token"]: each["score"] for each in bench.outputs([one])[0]}
        worst = max(worst, largest(abs(alone[each["token"]] - each["score"]) for each in many))
    parity.record(TASK, family, bf16=worst)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_mask_the_comparison_fails(
    filler_of: Callable[..., Filler], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The control: with padding attended to, batched answers are not those alone."""
    filler = filler_of(family, "off")
    requests = [filler.request(text) for text in (MASKED[0], LONG[0])]
    alone = filler.bench.outputs(requests[:1])[0]
    forward = Encoder.forward

    def unmasked(encoder: Encoder, inputs: dict[str, torch.Tensor]) -> Any:
        return forward(encoder, {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])})

    monkeypatch.setattr(Encoder, "forward", unmasked)
    with pytest.raises(AssertionError):
        difference(filler.bench.outputs(requests)[0], alone)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_text_is_filled_as_by_the_pipeline(filler_of: Callable[..., Filler], family: str) -> None:
    """Texts in no language of the checkpoint, special tokens that a user typed, and texts that are cut."""
    filler = filler_of(family)
    long = " ".join(["{}", *SENTENCES, *SENTENCES])
    requests = [filler.request(text) for text in STRANGE]
    requests += [filler.request(long), filler.request(long, max_length=16), filler.request("{} a {}" * 9, max_length=8)]
    filler.compare(requests)
    assert [answer["truncated"] for answer in filler.bench.ask(requests)] == [False] * len(STRANGE) + [True] * 3


@pytest.mark.parametrize("family", FAMILIES)
def test_more_than_the_vocabulary_is_all_of_it(filler_of: Callable[..., Filler], family: str) -> None:
    """The pipeline raises where top_k is above it. Targets are chosen from the same scores."""
    filler = filler_of(family)
    requests = [filler.request(MASKED[0], top_k=1000), filler.request(MASKED[0], targets=["the", "a"], top_k=1000)]
    everything, some = filler.bench.outputs(requests)
    assert len(everything) == len({each["token"] for each in everything}) == filler.pipeline.model.config.vocab_size
    assert sum(each["score"] for each in everything) == pytest.approx(1, abs=1e-5)
    scores = {each["token"]: each["score"] for each in everything}
    assert len(some) == 2
    assert [each["score"] for each in some] == pytest.approx([scores[each["token"]] for each in some], abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_target_is_a_raw_entry_or_its_first_token(filler_of: Callable[..., Filler], family: str) -> None:
    """Marks stand for themselves; one text is a list of one; duplicates count once."""
    filler = filler_of(family)
    entry = next(entry for entry in filler.vocabulary if entry.startswith(MARKS) and len(entry) > 3)
    asked: list[Any] = [entry, [entry], [entry, entry], "unknownword", filler.mask]
    answers = filler.bench.outputs([filler.request(MASKED[1], targets=each) for each in asked])
    first = filler.pipeline.tokenizer("unknownword", add_special_tokens=False)["input_ids"][0]
    own = filler.vocabulary[entry]
    tokens = [[each["token"] for each in outputs] for outputs in answers]
    assert tokens == [[own], [own], [own], [first], [filler.vocabulary[filler.mask]]]


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "bart"])
def test_an_error_names_its_cause_and_its_neighbours_are_answered(
    filler_of: Callable[..., Filler], family: str
) -> None:
    """No mask, one that was cut away, a text that may not be cut, and parameters out of their range."""
    filler = filler_of(family)
    mask, long = filler.mask, " ".join([*SENTENCES, *SENTENCES])
    errors = [
        (request(""), "invalid_request", "inputs"),
        (request(" "), "invalid_request", f"no {mask} token"),
        (request("no mask"), "invalid_request", f"no {mask} token"),
        (request(f"{mask} \ud800"), "invalid_request", "not JSON"),
        (request(mask, targets="\udfff"), "invalid_request", "not JSON"),
        (request(f"{long} {mask}"), "input_too_long", f"{mask} token is not among the first 512"),
        (request(f"{SENTENCES[3]} {mask}", max_length=8), "input_too_long", "not among the first 8"),
        (request(f"{mask} {long}", truncation=False), "input_too_long", "at most 512"),
        (request(f"{mask} {SENTENCES[3]}", truncation=False, max_length=10), "input_too_long", "at most 10"),
        (request(mask, max_length=7), "invalid_request", "parameters.max_length"),
        (request(mask, top_k=0), "invalid_request", "parameters.top_k"),
        (request(mask, top_k=1001), "invalid_request", "parameters.top_k"),
        (request(mask, targets=[]), "invalid_request", "parameters.targets"),
        (request(mask, targets=""), "invalid_request", "parameters.targets"),
        (request(mask, targets=["a"] * 1001), "invalid_request", "parameters.targets"),
        (request(mask, function_to_apply="none"), "invalid_request", "parameters.function_to_apply"),
    ]
    good = filler.request(MASKED[3])
    answers = filler.bench.ask([each for bad, _, _ in errors for each in (bad, good)])
    for answer, (bad, code, named) in zip(answers[::2], errors, strict=True):
        assert answer["status"] == "error", bad
        assert answer["error"]["code"] == code, answer["error"]
        assert named in answer["error"]["message"], answer["error"]
    (alone,) = filler.bench.outputs([good])
    assert largest(difference(answer["outputs"], alone) for answer in answers[1::2]) < 1e-5


def test_targets_that_make_no_token_are_ignored_or_refused(filler_of: Callable[..., Filler]) -> None:
    """As in the pipeline: some may be without, all may not."""
    filler = filler_of("bert")
    some, none = filler.bench.ask(
        [filler.request("{}", targets=[" ", "film"]), filler.request("{}", targets=[" ", "\t"])]
    )
    assert len(some["outputs"]) == 1
    assert none["error"]["code"] == "invalid_request"
    assert "parameters.targets" in none["error"]["message"]


def test_the_fillings_of_a_text_are_bounded(bench_of: Callable[..., TaskBench]) -> None:
    """Each is the whole text, decoded anew: without a bound one request would hold up all others for many seconds."""
    bench = bench_of("fill-mask", "bert")
    inputs = "[MASK] " * 40
    many, fewer = bench.ask([{"inputs": inputs, "parameters": {"top_k": top_k}} for top_k in (26, 25)])
    assert many["error"]["code"] == "invalid_request"
    assert "parameters.top_k: 40 masks with 26 words each" in many["error"]["message"]
    assert [len(of_mask) for of_mask in fewer["outputs"]] == [25] * 40
