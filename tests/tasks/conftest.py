"""Checkpoints that several tests share, and the table of what they measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from checkpoints import build_checkpoint
from golden.recipes import make
from parity import Parity
from task_bench import TaskBench, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[1] / "golden"

HEADS = {
    "text-classification": "sequence-classification",
    "zero-shot-classification": "sequence-classification",
    "token-classification": "token-classification",
    "fill-mask": "masked-lm",
    "question-answering": "question-answering",
    "summarization": "seq2seq-lm",
    "translation": "seq2seq-lm",
    "text-generation": "causal-lm",
    "feature-extraction": "base",
    "multiple-choice": "multiple-choice",
}


@pytest.fixture(scope="session")
def bench_of(folder_of: Callable[..., Path]) -> Callable[..., TaskBench]:
    """A task on a family's checkpoint, loaded once; options are the checkpoint's."""
    loaded: dict[str, TaskBench] = {}

    def load(task: str, family: str, *, dtype: str = "float32", **options: Any) -> TaskBench:
        key = f"{task} {family} {dtype} {options}"
        if key not in loaded:
            loaded[key] = serve((task, folder_of(family, HEADS[task], **options)), dtype=dtype)
        return loaded[key]

    return load


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, TaskBench]]:
    """A checkpoint of a task's golden answers: its folder, and loaded."""
    built: dict[tuple[str, str], tuple[Path, TaskBench]] = {}

    def build(task: str, checkpoint: str) -> tuple[Path, TaskBench]:
        if (task, checkpoint) not in built:
            document = json.loads((GOLDEN / f"{task}.json").read_text(encoding="utf-8"))
            folder = make(document["checkpoints"][checkpoint], tmp_path_factory.mktemp(checkpoint), build_checkpoint)
            built[task, checkpoint] = folder, serve((task, folder))
        return built[task, checkpoint]

    return build


@pytest.fixture(scope="session")
def parity(request: pytest.FixtureRequest) -> Iterator[Parity]:
    """Where the tests put what they measured; at the end of the run it is compared with docs/tasks.md, or written."""
    records = Parity()
    yield records
    if request.config.getoption("--write-docs"):
        records.write()
    elif missing := records.missing():
        pytest.fail(f"docs/tasks.md lacks {missing}: run `pytest tests/tasks --write-docs`")
