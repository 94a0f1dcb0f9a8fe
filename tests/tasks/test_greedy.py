"""Rows that come and go in the middle of a batch: each gets what it gets alone, and none is carried along."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import pytest

from checkpoints import SENTENCES
from nlp_schemas import TextGenerationRequest, TranslationRequest
from nlp_worker.batching import Batch
from nlp_worker.executor import Executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nlp_worker.poll import Row
    from task_bench import TaskBench

#: Decoders whose rows take each other's places.
REFILLING: Final = ("gpt2", "ctrl", "qwen3", "llama")

#: New tokens of each prompt, so that rows end one by one and several at once.
NEW_TOKENS: Final = (9, 1, 14, 3, 3, 20, 6, 2, 11, 4, 17, 5)


class Forwards:
    """Counts the rows of each forward of a model."""

    def __init__(self, model: Any) -> None:
        self.rows: list[int] = []
        self._hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, _model: Any, arguments: Any, named: dict[str, Any]) -> None:
        del arguments
        ids = named["input_ids"] if "input_ids" in named else named["decoder_input_ids"]
        self.rows.append(len(ids))

    def close(self) -> None:
        self._hook.remove()


@pytest.fixture
def forwards_of() -> Iterator[Callable[[Any], Forwards]]:
    made: list[Forwards] = []

    def start(task: Any) -> Forwards:
        made.append(Forwards(task._generator._model))
        return made[-1]

    yield start
    for one in made:
        one.close()


def rows_of(task: Any, *, sampled: bool = False) -> list[Row]:
    """A row for each of NEW_TOKENS, of prompts of 2 to 20 words, every third with parameters of its own."""
    words = " ".join(SENTENCES).split()
    requests = []
    for index, new_tokens in enumerate(NEW_TOKENS):
        own = {"repetition_penalty": 1.5} if index % 3 == 0 else {"stop": ["e"]} if index % 3 == 1 else {}
        parameters = {"do_sample": sampled and index % 2 == 0, "max_new_tokens": new_tokens, "seed": index, **own}
        prompt = " ".join(words[7 * index : 7 * index + 2 + (5 * index) % 19])
        requests.append(TextGenerationRequest.model_validate({"inputs": prompt, "parameters": parameters}))
    return [row for prepared in task.preprocess(requests) for row in prepared.rows]


def generated(task: Any, rows: Sequence[Row], slots: int) -> list[list[int]]:
    """The new tokens of each row, from one call: what raises fails the test instead of being run again in parts."""
    outputs = task.forward(task.collate(Batch(task, rows, slots)))
    return [sequence for output in outputs for sequence in output.sequences]


@pytest.mark.parametrize("family", REFILLING)
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_rows_that_join_in_the_middle_are_generated_as_alone(
    bench_of: Callable[..., TaskBench], family: str, *, sampled: bool
) -> None:
    """In every number of slots and in any order; greedy and drawn, with penalties and stop texts of their own."""
    task = bench_of("text-generation", family).task
    rows = rows_of(task, sampled=sampled)
    assert all(row.refills for row in rows)
    alone = [generated(task, [row], 1)[0] for row in rows]
    assert len({len(sequence) for sequence in alone}) > 6
    for slots in (1, 2, 3, 5, 11, 12):
        assert generated(task, rows, slots) == alone
        order = list(range(len(rows)))
        random.Random(slots).shuffle(order)  # noqa: S311 - an order, not a secret
        assert generated(task, [rows[at] for at in order], slots) == [alone[at] for at in order]


@pytest.mark.parametrize("family", REFILLING)
def test_places_are_filled_as_soon_as_they_are_free(
    bench_of: Callable[..., TaskBench], forwards_of: Callable[[Any], Forwards], family: str
) -> None:
    """Three slots, never more rows than that at once, and nothing is computed for a row that has ended."""
    task = bench_of("text-generation", family).task
    rows = rows_of(task)
    forwards = forwards_of(task)
    tokens = sum(map(len, generated(task, rows, 3)))
    assert max(forwards.rows) == 3
    assert sum(forwards.rows) == tokens


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_rows_that_have_ended_leave_before_the_longest_has(
    bench_of: Callable[..., TaskBench], forwards_of: Callable[[Any], Forwards], family: str
) -> None:
    """All begin at once; the last forwards are of the longest alone, and an eighth at most is computed in vain."""
    task = bench_of("text-generation", family).task
    rows = [row for row in rows_of(task) if not row.parameters.stops]
    forwards = forwards_of(task)
    tokens = sum(map(len, generated(task, rows, len(rows))))
    assert forwards.rows[0] == len(rows)
    assert forwards.rows[-1] == 1
    assert sum(forwards.rows) <= 1.125 * tokens


def test_rows_of_an_encoder_decoder_leave_too(
    bench_of: Callable[..., TaskBench], forwards_of: Callable[[Any], Forwards]
) -> None:
    """What the encoder has read of them leaves with them; the others' texts are as alone."""
    task: Any = bench_of("translation", "t5").task
    parameters = ({"num_beams": 1, "max_new_tokens": count, "min_new_tokens": count} for count in NEW_TOKENS)
    requests = [
        TranslationRequest.model_validate({"inputs": sentence, "parameters": asked})
        for sentence, asked in zip(SENTENCES, parameters, strict=False)
    ]
    rows = [row for prepared in task.preprocess(requests) for row in prepared.rows]
    alone = [generated(task, [row], 1)[0] for row in rows]
    forwards = forwards_of(task)
    assert generated(task, rows, len(rows)) == alone
    assert [len(sequence) for sequence in alone] == list(NEW_TOKENS[: len(rows)])
    assert forwards.rows[-1] == 1


def test_a_part_of_a_batch_has_as_small_a_part_of_its_slots(bench_of: Callable[..., TaskBench]) -> None:
    """Where memory is short, halving the rows halves what is on the device at once."""
    task: Any = bench_of("text-generation", "gpt2").task
    batch = Batch(task, rows_of(task), 8)
    assert [batch.part(batch.rows[:count]).slots for count in (12, 6, 3, 2, 1)] == [8, 4, 2, 2, 1]


def test_one_bad_row_costs_one_answer(bench_of: Callable[..., TaskBench], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever raises when it joins, the others are generated as alone."""
    task: Any = bench_of("text-generation", "gpt2").task
    rows = rows_of(task)
    alone = [generated(task, [row], 1)[0] for row in rows]
    search = task._generator._search
    padded = search._padded

    def failing(some: Sequence[Row]) -> Any:
        if rows[7] in some:
            raise ValueError("this row cannot be padded")
        return padded(some)

    monkeypatch.setattr(search, "_padded", failing)
    executor = Executor()
    try:
        outputs = executor.submit(Batch(task, rows, 3)).result().outputs
    finally:
        executor.close()
    assert "cannot be padded" in str(outputs[7])
    others = [index for index in range(len(rows)) if index != 7]
    assert [outputs[index].sequences[0] for index in others] == [alone[index] for index in others]
