"""How rows of one generate() call keep their own parameters, random numbers and ends; with hardly a model."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
import transformers

from nlp_worker.poll import Row
from nlp_worker.tasks.decoding import Decoding, RowEnds, RowLogits, _draw, ends_with_stop, merge, own_parameters
from task_bench import DEVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from task_bench import TaskBench

NO_PENALTY: Final[dict[str, Any]] = {}


@pytest.fixture
def model(bench_of: Callable[..., TaskBench]) -> Any:
    task: Any = bench_of("text-generation", "gpt2").task
    return task._generator._model


def row(prompt: Sequence[int], *, origin: str = "", **decoding: Any) -> Row:
    own = {"settings": NO_PENALTY, "prompt_tokens": len(prompt), "max_new_tokens": 20, **decoding}
    return Row({"input_ids": list(prompt)}, parameters=Decoding(**own), origin=origin)


def left_padded(rows: Sequence[Row], pad: int = 0) -> torch.Tensor:
    width = max(one.length for one in rows)
    lines = [[pad] * (width - one.length) + one.features["input_ids"] for one in rows]
    return torch.tensor(lines, device=DEVICE)


def scores(rows: int, seed: int = 0) -> torch.Tensor:
    return (torch.randn(rows, 400, generator=torch.Generator().manual_seed(seed)) * 3).to(DEVICE)


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "repetition_penalty": {"repetition_penalty": 1.7},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "min_new_tokens": {"min_new_tokens": 3, "eos_token_id": [9]},
    "min_length": {"min_length": 5, "eos_token_id": [9]},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 2.0},
    "bad_words_ids": {"bad_words_ids": [[4]]},
    "none": {},
}


def test_each_row_has_its_own_processors_over_its_own_tokens(model: Any) -> None:
    """In one batch, padded on the left with a token that a penalty would see, each row's logits are as alone."""
    rows = [
        row(prompt, settings=settings) for settings in SETTINGS.values() for prompt in ([3, 4, 5, 6, 3, 7, 8], [9, 2])
    ]
    given = scores(len(rows))
    mixed = RowLogits(model, rows, 7)(left_padded(rows), given.clone())
    for index, one in enumerate(rows):
        single = given[index : index + 1].clone()
        alone = RowLogits(model, [one], one.length)(left_padded([one]), single)
        assert mixed[index].equal(alone[0])
        changed = not alone[0].equal(given[index])
        assert changed == (one.parameters.settings != {} and one.parameters.settings != SETTINGS["min_length"]) or (
            one.parameters.settings == SETTINGS["min_length"] and changed == (one.length < 5)
        )


def test_beams_of_a_row_are_processed_alike(model: Any) -> None:
    """Each row has as many lines as beams; a penalty of one row stays in its lines."""
    rows = [row([5, 6], beams=2), row([5, 6], beams=2, settings={"no_repeat_ngram_size": 1})]
    given = scores(4)
    ids = torch.tensor([[5, 6, 1], [5, 6, 2], [5, 6, 1], [5, 6, 2]], device=DEVICE)
    out = RowLogits(model, rows, 2)(ids, given.clone())
    assert out[:2].equal(given[:2])
    assert [out[line].isneginf().nonzero().flatten().tolist() for line in (2, 3)] == [[1, 5, 6], [2, 5, 6]]


def test_a_draw_leaves_one_token_and_greedy_rows_all(model: Any) -> None:
    """The greedy choice then takes what was drawn; the next step draws the next number."""
    rows = [row([1, 2], draw=0, origin="a"), row([1, 2])]
    logits, given = RowLogits(model, rows, 2), scores(2)
    out = logits(left_padded(rows), given.clone())
    numbers = random.Random("a/0")  # noqa: S311 - a sample, not a secret
    assert out[0].isfinite().sum() == 1
    assert out[1].equal(given[1])
    # transformers' default: of the 50 likeliest.
    processed = transformers.TopKLogitsWarper(50)(left_padded(rows), given.clone())[:1]
    assert out[0].argmax() == _draw(processed, [numbers.random()])[0]
    again = logits(left_padded(rows), given.clone())
    assert again[0].argmax() == _draw(processed, [numbers.random()])[0]


def test_draws_have_the_distribution_that_was_asked_for(model: Any) -> None:
    """Chi-square of 6,000 seeds over the 5 likeliest tokens at a temperature of 0.7; none of the others."""
    rows = [row([1], draw=0, seed=seed, settings={"top_k": 5, "temperature": 0.7}) for seed in range(6_000)]
    given = (scores(1) / 3).expand(6_000, -1)
    drawn = RowLogits(model, rows, 1)(left_padded(rows), given.clone()).argmax(dim=1)
    best = given[0].topk(5)
    expected = (best.values / 0.7).softmax(dim=0) * 6_000
    counts = torch.stack([(drawn == token).sum() for token in best.indices])
    assert counts.sum() == 6_000
    assert expected.min() > 5
    # 4 degrees of freedom: above this in one of 1,000 samples.
    assert ((counts - expected).square() / expected).sum() < 18.5


def test_the_smallest_and_largest_numbers_draw_possible_tokens() -> None:
    """Never one of probability 0, neither before the first possible nor behind the last."""
    given = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf]] * 3)
    assert _draw(given, [0.0, 0.5, 1 - 2**-53]).tolist() == [1, 2, 2]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_only_the_row_with_a_bad_logit_has_failed(model: Any, number: float) -> None:
    """Minus infinity is no failure; a bad logit at any step is one, in any beam."""
    rows = [row([1, 2], beams=2) for _ in range(3)]
    logits, given = RowLogits(model, rows, 2), scores(6)
    given[0, 3] = -torch.inf
    ids = torch.ones(6, 2, dtype=torch.long, device=DEVICE)
    logits(ids, given.clone())
    assert logits.failed == [False, False, False]
    bad = given.clone()
    bad[3, 8] = number
    logits(ids, bad)
    logits(ids, given.clone())
    assert logits.failed == [False, True, False]


class Letters:
    """A tokenizer whose tokens are letters."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def letters(*texts: str) -> torch.Tensor:
    return torch.tensor([list(map(ord, text)) for text in texts])


def test_each_row_ends_at_its_own_limit_or_stop_text() -> None:
    """Whatever its neighbours do."""
    rows = [row(letters("__")[0].tolist(), max_new_tokens=2), row(letters("__")[0].tolist(), stops=("bc",)),
            row(letters("__")[0].tolist(), stops=("x", "y"))]  # fmt: skip
    ends = RowEnds(Letters(), rows, 2)
    steps = [letters(*(f"__{text[:step]}" for text in ("aaaa", "abcb", "aabb"))) for step in range(1, 4)]
    assert [ends(ids, None).tolist() for ids in steps] == [
        [False, False, False],
        [True, False, False],
        [True, True, False],
    ]


def test_candidates_of_beams_end_one_by_one() -> None:
    """Beam search asks for several candidates of each row, and goes on with the others."""
    rows = [row([95], beams=2, stops=("b",)), row([95], beams=2, max_new_tokens=1)]
    ends = RowEnds(Letters(), rows, 1)
    ids = letters("_a", "_b", "_c", "_d", "_a", "_b", "_c", "_d")
    assert ends(ids, None).tolist() == [False, True, False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("text", "stops", "ended"),
    [
        ("ab", ["b"], True),
        ("abc", ["b"], False),
        ("xx", ["xx"], True),
        ("xxx", ["xx"], True),
        ("b", ["ab"], False),
        ("aab", ["zz", "ab"], True),
        ("ab", [], False),
        ("aXb", ["ab"], False),
    ],
)
def test_a_stop_text_counts_where_the_last_token_ends_it(text: str, stops: list[str], ended: bool) -> None:
    """Not when it stands further back, even if it overlaps with itself."""
    assert ends_with_stop(Letters(), list(map(ord, text)), stops) is ended


def test_a_stop_text_may_end_within_a_token_or_a_character(folder_of: Callable[..., Path]) -> None:
    """Byte-level tokens: a character of several tokens, and a token that goes on behind the stop text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of("gpt2", "causal-lm"))
    ids = tokenizer("a\u65e5")["input_ids"]
    assert [ends_with_stop(tokenizer, ids[:end], ["\u65e5"]) for end in range(1, len(ids) + 1)] == [
        *[False] * (len(ids) - 1),
        True,
    ]
    word = next(
        token for token in sorted(tokenizer.get_vocab()) if token.isascii() and token.isalpha() and len(token) > 2
    )
    ids = [*tokenizer("?")["input_ids"], *tokenizer.convert_tokens_to_ids([word])]
    assert all(ends_with_stop(tokenizer, ids, [stop]) for stop in (word[0], word[1], word, f"?{word[0]}"))
    assert not ends_with_stop(tokenizer, ids, ["?"])


@pytest.mark.parametrize(
    ("levels", "merged"),
    [
        ([{"top_k": 1, "top_p": 0.5}, {"top_k": 2}], {"top_k": 2, "top_p": 0.5}),
        ([{"max_new_tokens": 256}, {"max_length": 40}], {"max_length": 40}),
        ([{"max_length": 40}, {"max_new_tokens": 9}], {"max_new_tokens": 9}),
        ([{"max_length": 40, "max_new_tokens": 9}], {"max_new_tokens": 9}),
        ([{"max_new_tokens": 9}, {}, {"max_length": 5, "max_new_tokens": 6}], {"max_new_tokens": 6}),
        ([{"min_length": 4}, {"min_new_tokens": 0}], {"min_new_tokens": 0}),
        ([{"min_new_tokens": 4}, {"min_length": 0}, {"max_length": 8}], {"min_length": 0, "max_length": 8}),
        ([], {}),
    ],
    ids=str,
)
def test_a_length_replaces_the_other_way_to_say_it(levels: list[dict[str, Any]], merged: dict[str, Any]) -> None:
    """A later level over the ones before; within one the number of new tokens counts."""
    before = [dict(level) for level in levels]
    assert merge(*levels) == merged
    assert levels == before


def test_a_checkpoints_own_parameters_are_what_it_sets() -> None:
    """Neither what GenerationConfig has by default, nor the token ids, which are kept apart."""
    config = transformers.GenerationConfig(num_beams=4, max_length=30, eos_token_id=2, pad_token_id=1)
    assert own_parameters(type("Model", (), {"generation_config": config})) == {"num_beams": 4, "max_length": 30}
