"""Requests of all ten tasks in one poll: each is answered as if it were alone, whatever is with it and fails."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn_requests import BROKEN, GENERATING, POISON, SERVED, plain, requests
from nlp_schemas import TaskName
from same_answers import assert_same
from task_bench import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from task_bench import TaskBench

PROFILE: Final = settings(derandomize=True, deadline=None, max_examples=30, database=None)


@pytest.fixture(scope="module")
def bench(folder_of: Callable[..., Path]) -> TaskBench:
    """All of them, as one worker serves them."""
    return serve(*(f"{family}:{task}={folder_of(family, head, **more)}" for task, family, head, more in SERVED))


def assert_as_alone(
    bench: TaskBench, mix: list[dict[str, Any]], answers: list[dict[str, Any]], *, but: int = -1
) -> None:
    for offset, (request, answer) in enumerate(zip(mix, answers, strict=True)):
        if offset != but:
            (alone,) = bench.ask([request], offsets=[offset])
            assert_same(request, answer, alone)


def test_any_mix_is_answered_as_each_alone(bench: TaskBench) -> None:
    """Any requests of any tasks and checkpoints, with any parameters, in any order, under any budget."""
    answered: Counter[tuple[str, str]] = Counter()

    @PROFILE
    @given(st.lists(requests(), min_size=2, max_size=12), st.sampled_from((16, 256, 4096)))
    def mixes(mix: list[dict[str, Any]], budget: int) -> None:
        answers = bench.ask(mix, budget=budget)
        assert_as_alone(bench, mix, answers)
        answered.update((request["task"], answer["status"]) for request, answer in zip(mix, answers, strict=True))

    mixes()
    # What a checkpoint refuses is refused alike; but that is not what most of this is about.
    ok = {task: answered[task, "ok"] for task in TaskName}
    assert min(ok.values()) > 1, answered
    assert sum(ok.values()) > answered.total() * 2 / 3, answered


# --- Failures ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def poison(bench: TaskBench, kind: str) -> Iterator[None]:
    """Make every model raise for a batch with a row of POISON, or return NaN for that row."""
    hooks = []
    for task in (task for served in bench.tasks.values() for task in served.values()):
        encoder: Any = task._encoder  # type: ignore[attr-defined]
        hear = _Poison(encoder.tokenizer, kind)
        modules = {encoder.model, encoder.model.base_model}
        if encoder.model.config.is_encoder_decoder:
            modules.add(encoder.model.get_encoder())
        for module in modules:
            hooks.append(module.register_forward_pre_hook(hear.before, with_kwargs=True))
            hooks.append(module.register_forward_hook(hear.after, with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def by_row(values: torch.Tensor, inputs: dict[str, Any]) -> Sequence[torch.Tensor]:
    """What is each row's of what the model was given, or gave, padded or packed."""
    if (borders := inputs.get("cu_seq_lens_q")) is not None:
        return torch.split(values[0], borders.diff().tolist())
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    return [of_row[:length] for of_row, length in zip(values, lengths, strict=True)]


class _Poison:
    def __init__(self, tokenizer: Any, kind: str) -> None:
        self._tokenizer = tokenizer
        self._kind = kind

    def _rows(self, inputs: dict[str, Any]) -> list[bool]:
        ids = inputs.get("input_ids")
        if ids is not None and "cu_seq_lens_q" in inputs:
            ids = by_row(ids.view(1, -1), inputs)
        return [] if ids is None else [POISON in self._tokenizer.decode(row.flatten().tolist()) for row in ids]

    def before(self, module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
        del module, arguments
        if self._kind == "raises" and any(self._rows(inputs)):
            raise RuntimeError("a row that breaks the model")

    def after(self, module: Any, arguments: Any, inputs: dict[str, Any], output: Any) -> None:
        del module, arguments
        rows = self._rows(inputs)
        if self._kind == "nan" and any(rows):
            for value in output.values():
                if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                    continue
                if len(value) == len(rows):
                    value[torch.tensor(rows)] = torch.nan
                elif value.shape[:2] == inputs["input_ids"].shape:
                    for of_row, poisoned in zip(by_row(value, inputs), rows, strict=True):
                        of_row.masked_fill_(torch.tensor(poisoned), torch.nan)


@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_request_changes_none_of_the_others(bench: TaskBench, kind: str) -> None:
    """Whether it cannot be read, cannot be served, is too long, breaks the model or makes it return NaN."""
    code, broken = BROKEN[kind]

    @settings(PROFILE, max_examples=6)
    @given(st.lists(requests(), min_size=1, max_size=4), broken, st.integers(0, 4))
    def mixes(good: list[dict[str, Any]], bad: dict[str, Any], place: int) -> None:
        # One of its own kind and checkpoint too: in its batch, if anything is.
        like = plain(bad["task"], bad["model"], "All is well.") if kind != "model" else good[0]
        mix = [*good[:place], bad, like, *good[place:]]
        place = mix.index(bad)
        with poison(bench, kind):
            answers = bench.ask(mix)
        assert answers[place].get("error", {}).get("code") == code, (bad, answers[place])
        assert_as_alone(bench, mix, answers, but=place)

    mixes()


SLIPPERY: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "text-classification": ({"function_to_apply": "sigmoid"}, {"function_to_apply": "none", "top_k": None}),
    "zero-shot-classification": ({"multi_label": True},),
    "token-classification": tuple({"aggregation_strategy": one} for one in ("simple", "first", "average", "max")),
    "fill-mask": ({"targets": ["a", "it"]},),
    "question-answering": ({"handle_impossible_answer": True}, {"top_k": 3, "handle_impossible_answer": True}),
    "feature-extraction": ({"pooling": "mean", "normalize": True},),
    **dict.fromkeys(GENERATING, ({"do_sample": True}, {"num_beams": 3}, {"do_sample": True, "top_k": 5, "top_p": 0.9})),
}


@pytest.mark.parametrize("kind", ["raises", "nan"])
@pytest.mark.parametrize(("task", "family"), [one[:2] for one in SERVED])
def test_what_is_not_a_number_is_no_answer(bench: TaskBench, task: str, family: str, kind: str) -> None:
    """Whatever the parameters make of it: NaN is neither below nor above anything, so comparing could hide it."""
    texts = "All is well.", f"{POISON} is here.", "All is well."
    for asked in ({}, *SLIPPERY.get(task, ())):
        mix = [plain(task, family, text, **asked) for text in texts]
        with poison(bench, kind):
            answers = bench.ask(mix)
        assert [answer["status"] for answer in answers] == ["ok", "error", "ok"], (asked, answers)
        assert answers[1]["error"]["code"] == "inference_failed"
        assert_as_alone(bench, mix, answers, but=1)
