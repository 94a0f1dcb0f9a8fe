"""Packed batches: which checkpoints run them, that answers are those alone, and that the trial at load can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import task_bench
from checkpoints import SENTENCES
from nlp_worker.batching import Batch
from nlp_worker.poll import Row
from nlp_worker.tasks import encoder, packing
from nlp_worker.tasks.numbers import softmax
from task_bench import computed, serve
from task_families import EVERY, TASK_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from task_bench import TaskBench

    BenchOf = Callable[..., TaskBench]

GENERATING: Final = ("summarization", "translation", "text-generation")
TASKS: Final = [task for task in TASK_HEADS if task not in GENERATING]
#: Families that pack for every task they serve.
PACKED: Final = ("albert", "bert", "distilbert", "electra", "roberta", "xlm-roberta")
#: Tasks whose heads read a row's first token. ModernBERT's may read the mean of all, and then divide by the padding.
OF_ROWS: Final = ("text-classification", "zero-shot-classification", "multiple-choice")
CASES: Final = [(task, family) for family in PACKED for task in TASKS] + [
    (task, "modernbert") for task in TASKS if task not in OF_ROWS
]

#: Short ones, several of one length, a typed padding token, and one longer than ModernBERT's window.
TEXTS: Final = ["a", "b", *SENTENCES[:6], "It says <pad> [PAD] and <unk>", "", " ".join(SENTENCES[:4]), SENTENCES[0]]

#: Most difference of a probability, and of what is none: float noise.
PROBABILITY: Final = 5e-5
RAW: Final = 1e-4


def rows_of(bench: TaskBench) -> list[Row]:
    """Rows of TEXTS, of feature extraction with every pooling."""
    task: Any = bench.task
    rows = task_bench.rows_of(task, TEXTS)
    if task.name == "feature-extraction":
        for number, row in enumerate(rows):
            row.parameters = row.parameters._replace(pooling=(None, "mean", "cls")[number % 3])
    return rows


def run(bench: TaskBench, rows: Sequence[Row]) -> list[list[np.ndarray[Any, Any]]]:
    """Of each row, the arrays that the task's forward returns."""
    outputs = computed(Batch(bench.task, rows))
    return [list(map(np.asarray, output)) if isinstance(output, tuple) else [np.asarray(output)] for output in outputs]


def assert_close(ours: Sequence[Sequence[Any]], theirs: Sequence[Sequence[Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for mine, expected in zip(one, other, strict=True):
            assert mine.shape == expected.shape
            np.testing.assert_allclose(mine, expected, atol=RAW, rtol=RAW)
            if mine.ndim:
                np.testing.assert_allclose(softmax(mine), softmax(expected), atol=PROBABILITY, rtol=0)


@pytest.mark.parametrize(("task", "family"), [case for case in EVERY if case[0] not in GENERATING])
def test_these_families_pack_and_the_others_are_padded(bench_of: BenchOf, task: str, family: str) -> None:
    """Encoders with plain attention; no decoder, no encoder-decoder, none whose attention is its own."""
    bench: Any = bench_of(task, family)
    assert bench.task.packs == ((task, family) in CASES)
    inputs = bench.task._encoder.collate([Row({"input_ids": [5] * length}) for length in (2, 3)])
    assert inputs["input_ids"].shape == ((1, 5) if bench.task.packs else (2, 3))
    assert ("attention_mask" in inputs) != bench.task.packs


@pytest.mark.parametrize(("task", "family"), CASES)
def test_packed_rows_have_the_outputs_that_they_have_alone_and_padded(
    bench_of: BenchOf, task: str, family: str
) -> None:
    """In any order, with others of one length beside them or not; a padded checkpoint in the process is no matter."""
    packed, padded = bench_of(task, family), bench_of(task, family, packing="off")
    assert (packed.task.packs, padded.task.packs) == (True, False)
    rows = rows_of(packed)
    ours = run(packed, rows)
    assert_close(ours, [run(padded, [row])[0] for row in rows])
    assert_close(ours, run(padded, rows))
    assert_close([run(packed, [row])[0] for row in rows], ours)
    by_length = sorted(rows, key=lambda row: row.length)
    assert_close(run(packed, by_length), [ours[rows.index(row)] for row in by_length])


def sees_all(*arguments: Any, **options: Any) -> Any:
    """What a model does that has its own attention: rows see one another."""
    return sdpa_attention_forward(*arguments, **options)


def sees_nothing(*arguments: Any, **options: Any) -> Any:
    """What comes of a kernel that fails: no numbers."""
    output, weights = packing.attend(*arguments, **options)
    return output * torch.nan, weights


def numbered_through(rows: Sequence[Row], padding: int, device: torch.device) -> dict[str, Any]:
    """What a model does that takes no notice of positions: they do not begin anew with each row."""
    inputs = packing.pack(rows, padding, device)
    return {**inputs, "position_ids": torch.arange(inputs["input_ids"].shape[1])[None] + padding + 1}


@pytest.mark.parametrize("fault", ["attention", "positions", "raises", "nan"])
@pytest.mark.parametrize(("task", "dtype"), [(task, "float32") for task in TASKS] + [(TASKS[0], "bfloat16")])
def test_a_model_that_would_give_other_answers_stays_padded_and_right(
    folder_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, task: str, dtype: str, fault: str
) -> None:
    """The control: the trial at load fails for a model that looks over a row's borders, or that cannot run packed."""
    if fault == "positions":
        monkeypatch.setattr(encoder, "pack", numbered_through)
    else:
        attend = {"attention": sees_all, "raises": None, "nan": sees_nothing}[fault]
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, packing.ATTENTION, attend)
    model = task, folder_of("bert", TASK_HEADS[task])
    tried, padded = serve(model, dtype=dtype), serve(model, dtype=dtype, packing="off")
    assert not tried.task.packs
    rows = rows_of(tried)
    for ours, theirs in zip(run(tried, rows), run(padded, rows), strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("task", OF_ROWS)
def test_a_modernbert_that_reads_the_first_token_packs(bench_of: BenchOf, task: str) -> None:
    """What decides is the trial, not the family's name."""
    packed, padded = (
        bench_of(task, "modernbert", packing=packing, classifier_pooling="cls") for packing in ("auto", "off")
    )
    assert packed.task.packs
    rows = rows_of(packed)
    assert_close(run(packed, rows), [run(padded, [row])[0] for row in rows])
