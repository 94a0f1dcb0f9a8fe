"""Translation: as summarization, and how each family is told the languages.

The pipeline left transformers; its answers are kept in tests/golden/translation.json (scripts/make_golden_answers.py).
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import tokenizers

from checkpoints import HEADS, SENTENCES
from golden.recipes import difference, fingerprint
from nlp_schemas import TranslationRequest
from task_bench import TaskBench, said, warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from parity import Parity

FAMILIES: Final = [family for family, heads in HEADS.items() if "seq2seq-lm" in heads]
GOLDEN: Final = json.loads((Path(__file__).parents[1] / "golden" / "translation.json").read_text(encoding="utf-8"))

#: Pairs of each family, asked for in one poll.
LANGUAGES: Final[Mapping[str, Sequence[Mapping[str, str]]]] = {
    "bart": [{}],
    "marian": [{}],
    "mbart": [{"src_lang": source, "tgt_lang": target}
              for source, target in (("en_XX", "ro_RO"), ("fr_XX", "de_DE"), ("en_XX", "de_DE"))],
    "t5": [{"src_lang": "en", "tgt_lang": "fr"}, {}, {"src_lang": "en", "tgt_lang": "de"}],
}  # fmt: skip
TEXTS: Final = ("Rain.", SENTENCES[24], " ".join(SENTENCES[28:30]), "Ann and Bob, in Paris.")
PARAMETERS: Final[Sequence[Mapping[str, Any]]] = (
    {"max_new_tokens": 10},
    {"num_beams": 1, "max_new_tokens": 16},
    {"num_beams": 1, "min_length": 7, "max_length": 18},
    {"num_beams": 1, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "max_new_tokens": 12},
    {"num_beams": 1, "stop": ["a", "i"], "min_new_tokens": 4, "max_new_tokens": 14},
    {"num_beams": 3, "length_penalty": 0.3, "early_stopping": "never", "max_new_tokens": 10},
    {"num_beams": 2, "num_return_sequences": 2, "early_stopping": True, "max_new_tokens": 10},
    {"do_sample": True, "max_new_tokens": 10},
    {"do_sample": True, "seed": 5, "num_return_sequences": 2, "temperature": 1.5, "max_new_tokens": 10},
)


def requests(family: str) -> list[dict[str, Any]]:
    languages = LANGUAGES[family]
    return [
        {"inputs": TEXTS[(at + step) % 4], "parameters": {**parameters, **languages[(at + step) % len(languages)]}}
        for at, parameters in enumerate(PARAMETERS)
        for step in (0, 1)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mixed_poll_answers_as_each_request_alone(
    bench_of: Callable[..., TaskBench], parity: Parity, family: str
) -> None:
    """Parameters, languages and lengths mixed; in one poll, and in many small batches in another order."""
    bench, asked = bench_of("translation", family), requests(family)
    alone = [said(bench.ask([request], offsets=[offset])[0]) for offset, request in enumerate(asked)]
    assert [said(answer) for answer in bench.ask(asked)] == alone
    assert max(bench.batches) >= 8
    order = list(range(len(asked)))
    random.Random(2).shuffle(order)  # noqa: S311 - an order, not a secret
    shuffled = bench.ask([asked[at] for at in order], offsets=order, budget=200)
    assert [said(answer) for answer in shuffled] == [alone[at] for at in order]
    assert max(bench.batches) < 8
    parity.record("translation", family, cases=len(asked), single=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_reported(bench_of: Callable[..., TaskBench], parity: Parity, family: str) -> None:
    """The share of rows whose text in a batch is another one than alone; every one is an answer."""
    bench, asked = bench_of("translation", family, dtype="bfloat16"), requests(family)[:10]
    alone = [bench.outputs([request])[0] for request in asked]
    differ = sum(one != other for one, other in zip(bench.outputs(asked), alone, strict=True))
    parity.record("translation", family, bf16=differ / len(asked))


@pytest.mark.parametrize("checkpoint", GOLDEN["checkpoints"])
def test_transformers_4_answered_the_same(
    golden: Callable[[str, str], tuple[Path, TaskBench]], parity: Parity, checkpoint: str
) -> None:
    """All golden cases of a checkpoint in one poll, each pair of T5 with its own parameters.

    max_length counts where version 4 let its default of 256 new tokens win; a text too long is cut unless the request
    forbids it; a language that the tokenizer does not know is refused, where version 4 read it as unknown.
    """
    folder, bench = golden("translation", checkpoint)
    # Else the answers are another checkpoint's.
    assert difference(fingerprint(folder), GOLDEN["checkpoints"][checkpoint]["fingerprint"]) is None
    cases = [case for case in GOLDEN["cases"] if case["checkpoint"] == checkpoint]
    answers = bench.ask([{"inputs": case["inputs"], "parameters": case["parameters"]} for case in cases])
    met: dict[str, int] = defaultdict(int)
    for case, answer in zip(cases, answers, strict=True):
        if answer.get("truncated") and "truncation" not in case["parameters"]:
            met["cut"] += 1
        elif "error" in case or case.get("differs") == "language":
            met["refused"] += 1
            assert answer["error"]["code"] == "invalid_request"
            assert "_lang" in answer["error"]["message"]
        else:
            met[case.get("differs", "equal")] += 1
            assert answer.get("outputs") == case.get("honoured", case.get("outputs")), case
    assert met["equal"] >= 5
    assert met["cut"] == (checkpoint in {"marian", "mbart", "t5"})
    assert met["refused"] == (4 if checkpoint == "mbart" else 0)
    family = GOLDEN["checkpoints"][checkpoint]["family"]
    parity.record("translation", family, cases=met["equal"] + met["max_length"], pipeline=0.0)


@pytest.mark.parametrize(
    ("family", "parameters", "told"),
    [
        ("mbart", {}, "parameters.tgt_lang: is missing"),
        ("mbart", {"tgt_lang": "ro_RO"}, "parameters.src_lang: is missing"),
        ("mbart", {"src_lang": "en", "tgt_lang": "ro_RO"}, "parameters.src_lang: 'en' is no language"),
        ("mbart", {"src_lang": "en_XX", "tgt_lang": "<pad>"}, "parameters.tgt_lang: '<pad>' is no language"),
        ("marian", {"src_lang": "en", "tgt_lang": "fr"}, "parameters.src_lang and tgt_lang: this checkpoint"),
        ("bart", {"tgt_lang": "fr"}, "leave them out"),
        ("t5", {"src_lang": "en", "tgt_lang": "ro"}, "there is en_to_de, en_to_fr"),
        ("t5", {"tgt_lang": "fr"}, "parameters.src_lang and tgt_lang"),
    ],
    ids=str,
)
def test_languages_that_a_checkpoint_cannot_do_are_refused(
    bench_of: Callable[..., TaskBench], family: str, parameters: dict[str, str], told: str
) -> None:
    """The message names the parameter and what there is; the neighbour is answered."""
    right = {**LANGUAGES[family][0], "max_new_tokens": 2}
    refused, other = bench_of("translation", family).ask(
        [{"inputs": "Rain.", "parameters": parameters}, {"inputs": "Rain.", "parameters": right}]
    )
    assert refused["error"]["code"] == "invalid_request"
    assert told in refused["error"]["message"]
    assert other["status"] == "ok"


def test_t5_is_told_the_pair_by_its_prefix(bench_of: Callable[..., TaskBench]) -> None:
    """The pair's prefix of task_specific_params, the first one's without languages; no pair without such parameters."""
    short = {"num_beams": 1, "max_new_tokens": 8}
    german = {"src_lang": "en", "tgt_lang": "de"}
    task: Any = bench_of("translation", "t5").task
    prepared: list[Any] = task.preprocess(
        [
            TranslationRequest.model_validate({"inputs": TEXTS[1], "parameters": {**short, **languages}})
            for languages in ({}, german, {**german, "tgt_lang": "fr"})
        ]
    )
    first, de, fr = (one.rows[0].features["input_ids"] for one in prepared)
    assert first == de != fr
    assert task._tokenizer.decode(fr).startswith("translate English to French: ")
    (refused,) = bench_of("translation", "t5", task_specific_params=None).ask([{"inputs": "a", "parameters": german}])
    assert "this checkpoint translates one pair" in refused["error"]["message"]


def test_marian_with_several_targets_is_told_by_a_word(golden: Callable[[str, str], tuple[Path, TaskBench]]) -> None:
    """tgt_lang puts the word before the text: the same as a text that begins with it."""
    (_, bench), text, short = golden("translation", "marian-targets"), TEXTS[1], {"max_new_tokens": 12}
    told, typed, other, source, unknown = bench.ask(
        [
            {"inputs": text, "parameters": {**short, "tgt_lang": "fra"}},
            {"inputs": f">>fra<< {text}", "parameters": short},
            {"inputs": text, "parameters": {**short, "tgt_lang": "deu"}},
            {"inputs": text, "parameters": {**short, "src_lang": "en", "tgt_lang": "fra"}},
            {"inputs": text, "parameters": {**short, "tgt_lang": "ro"}},
        ]
    )
    assert said(told) == said(typed)
    assert said(told)[0] != said(other)[0]
    assert "parameters.src_lang" in source["error"]["message"]
    assert "parameters.tgt_lang: 'ro' is no language of this checkpoint: there is" in unknown["error"]["message"]


def test_mbart_reads_what_its_own_tokenizer_file_says(
    folder_of: Callable[..., Path], bench_of: Callable[..., TaskBench]
) -> None:
    """Full-width letters, a ligature and three dots in one character are what they stand for; not so in transformers 5.

    Languages of one poll do not mix, though the source is the tokenizer's state.
    """
    folder, task = folder_of("mbart", "seq2seq-lm"), bench_of("translation", "mbart").task
    text = "\uff26\uff29\uff2c\uff2d, \ufb01ne \u2026 it is."
    asked = [{"src_lang": source, "tgt_lang": "ro_RO"} for source in ("en_XX", "fr_XX", "en_XX")]
    prepared: list[Any] = task.preprocess(
        [TranslationRequest.model_validate({"inputs": text, "parameters": parameters}) for parameters in asked]
    )
    rows = [one.rows[0].features["input_ids"] for one in prepared]
    own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = own.encode(text, add_special_tokens=False).ids
    end, codes = own.token_to_id("</s>"), {code: own.token_to_id(code) for code in ("en_XX", "fr_XX")}
    assert rows == [[*ids, end, codes[parameters["src_lang"]]] for parameters in asked]
    assert ids == own.encode("FILM, fine ... it is.", add_special_tokens=False).ids
    assert prepared[0].rows[0].parameters.settings["forced_bos_token_id"] == own.token_to_id("ro_RO")


def test_warm_up_runs(bench_of: Callable[..., TaskBench]) -> None:
    """Of every family and without languages: the rows that are made are rows that the model accepts."""
    warm_up(bench_of(task, family).task for task in ("translation", "summarization") for family in FAMILIES)
