"""What a CUDA device alone can show: `make test-gpu` runs it where there is one, and with it all tests of the tasks."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from checkpoints import SENTENCES
from fakes import shuffled
from nlp_worker import device_errors
from nlp_worker.batching import Batch
from nlp_worker.errors import OutOfMemoryError
from nlp_worker.executor import Executor
from nlp_worker.poll import Row
from nlp_worker.tasks import packing
from task_bench import rows_of, serve
from task_families import TASK_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from nlp_worker.tasks.base import Task

    Folders = Callable[..., Path]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

#: Each task that packs, with a family of the one kind of positions and one of the other. Question answering returns
#: places, which are right or wrong: no nearness can be told of them.
PACKED: Final = [
    (task, family)
    for task, head in TASK_HEADS.items()
    if head not in {"seq2seq-lm", "causal-lm", "question-answering"}
    for family in ("bert", "roberta")
]
HALF: Final = {"device": "cuda", "dtype": "bfloat16"}
#: Of many lengths.
TEXTS: Final = ("a", *SENTENCES[:12], " ".join(SENTENCES[:4]))
MIB: Final = 2**20

#: Bytes that a test leaves to torch: some of the blocks of 20 MiB that it takes from the driver.
ROOM: Final = 80 * MIB


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = Executor(device_errors.translate)
    yield executor
    executor.close()


@pytest.fixture
def little_memory() -> Iterator[Callable[[], None]]:
    """Called when the checkpoint is loaded: torch gets no more memory than it has, and ROOM."""

    def limit() -> None:
        torch.cuda.empty_cache()
        _, there_is = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM) / there_is)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def outputs(executor: Executor, task: Task, rows: Sequence[Row]) -> list[Any]:
    """Of each row, what the task's forward returns, as one array."""
    (outputs,) = submitted(executor, [Batch(task, rows)])
    return outputs


def submitted(executor: Executor, batches: Sequence[Batch]) -> list[list[Any]]:
    """The same of batches that are all submitted before the first is done."""
    futures = [executor.submit(batch) for batch in batches]
    return [
        [np.concatenate([*map(np.ravel, _parts(output))]) for output in future.result().outputs] for future in futures
    ]


def _parts(output: Any) -> Sequence[Any]:
    """Return what an output has of numbers; ids of tokens are none."""
    if isinstance(output, Exception):
        raise output
    parts = map(np.asarray, output if isinstance(output, tuple) else (output,))
    return [part for part in parts if part.dtype.kind == "f"]


def apart(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """The largest difference."""
    return max(float(np.abs(one - other).max()) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("task", "family"), PACKED)
def test_packed_rows_are_as_near_to_float32_as_padded_ones(
    executor: Executor, folder_of: Folders, task: str, family: str
) -> None:
    """In bfloat16 both round; a row that saw its neighbours would be several times as far from what is right."""
    model = task, folder_of(family, TASK_HEADS[task])
    packed, padded, exact = (
        serve(model, **HALF).task,
        serve(model, packing="off", **HALF).task,
        serve(model, device="cpu").task,
    )
    assert (packed.packs, padded.packs) == (True, False)
    rows = rows_of(exact, TEXTS)
    right = outputs(executor, exact, rows)
    of_padded = apart(outputs(executor, padded, rows), right)
    assert 0 < of_padded < 0.2 * max(float(np.abs(each).max()) for each in right)
    assert apart(outputs(executor, packed, rows), right) < 2 * of_padded


@pytest.mark.parametrize(("family", "dtype"), [("bert", "float32"), ("bert", "bfloat16"), ("gpt2", "float32")])
def test_batches_that_overlap_have_the_outputs_that_they_have_alone(
    executor: Executor, folder_of: Folders, monkeypatch: pytest.MonkeyPatch, family: str, dtype: str
) -> None:
    """Copies both ways go on while the device computes: none reads or writes what is another batch's."""
    task: Any = serve(
        ("text-classification", folder_of(family, "sequence-classification")), device="cuda", dtype=dtype
    ).task
    rows = rows_of(task, TEXTS)
    batches = [Batch(task, shuffled(rows, seed=seed)[: 1 + seed % len(rows)]) for seed in range(300)]
    alone = [outputs(executor, task, batch.rows) for batch in batches]
    order: list[str] = []
    for step in ("_begin", "_finish"):
        monkeypatch.setattr(Executor, step, _noting(order, step, getattr(Executor, step)))
    for ours, theirs in zip(submitted(executor, batches), alone, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    # The control: they did overlap.
    assert any(pair == ("_begin", "_begin") for pair in itertools.pairwise(order))


@pytest.mark.parametrize("leaks", [False, True])
def test_a_deep_model_packs_though_half_precision_is_noisy(
    folder_of: Folders, monkeypatch: pytest.MonkeyPatch, leaks: bool
) -> None:
    """24 layers: what packing changes is no more than what padding does. The control: rows that see one another."""
    if leaks:
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, packing.ATTENTION, sdpa_attention_forward)
    folder = folder_of("bert", "sequence-classification", num_hidden_layers=24)
    task: Any = serve(("text-classification", folder), **HALF).task
    assert task.packs == (not leaks)


def _noting(order: list[str], step: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        order.append(step)
        return method(*arguments)

    return noted


def test_a_batch_that_does_not_fit_is_answered_in_parts(
    executor: Executor, folder_of: Folders, little_memory: Callable[[], None]
) -> None:
    """A real failure of the GPU's allocator: every row has its answer, and what fitted fits again."""
    task: Any = serve(("text-classification", folder_of("bert", "sequence-classification")), device="cuda").task
    rows = rows_of(task, TEXTS)
    right = outputs(executor, task, rows)
    many = rows * 500
    little_memory()
    run = executor.submit(Batch(task, many)).result()
    assert run.fitted is not None
    assert 0 < run.fitted < Batch(task, many).size
    for place, output in enumerate(run.outputs):
        np.testing.assert_allclose(output, right[place % len(rows)], atol=1e-4, rtol=1e-4)
    fits = executor.submit(Batch(task, many[: len(many) * run.fitted // Batch(task, many).size])).result()
    assert fits.fitted is None


def test_a_row_that_does_not_fit_alone_costs_one_error(
    executor: Executor, folder_of: Folders, little_memory: Callable[[], None]
) -> None:
    """And its neighbours have their answers."""
    positions = 2**17
    folder = folder_of("bert", "sequence-classification", max_position_embeddings=positions)
    task: Any = serve(("text-classification", folder), device="cuda").task
    short, *_ = rows_of(task, TEXTS)
    (right,) = outputs(executor, task, [short])
    long = Row({name: [5 if name == "input_ids" else 0] * positions for name in short.features})
    little_memory()
    run = executor.submit(Batch(task, [short, long, short])).result()
    assert isinstance(run.outputs[1], OutOfMemoryError)
    for output in (run.outputs[0], run.outputs[2]):
        np.testing.assert_allclose(output, right, atol=1e-4, rtol=1e-4)


LOSES_THE_DEVICE: Final = """
import sys, torch
from nlp_worker import device_errors
from nlp_worker.batching import Batch
from nlp_worker.executor import Executor
from nlp_worker.models import load
from nlp_worker.poll import Row
from nlp_worker.tasks import packing
from nlp_worker.settings import load_settings
((task,),) = [of.values() for of in load(load_settings({"model": [sys.argv[1]], "device": "cuda"})).values()]
row = task.warm_up_rows()[0]
bad = Row({**row.features, "input_ids": [10**6] * row.length})
try:
    print(Executor(device_errors.translate).submit(Batch(task, [row, bad])).result(timeout=60).outputs)
except BaseException as error:
    print(type(error).__name__, error, flush=True)
import os; os._exit(0)
"""


def test_a_device_that_is_lost_ends_the_process(folder_of: Folders) -> None:
    """An index that a kernel refuses takes all of CUDA from the process: no request is answered with that."""
    model = f"text-classification={folder_of('bert', 'sequence-classification')}"
    said = subprocess.run(
        [sys.executable, "-c", LOSES_THE_DEVICE, model], capture_output=True, text=True, timeout=100, check=True
    )
    assert "\nDeviceLostError the device failed: CUDA error: device-side assert" in said.stdout, said
