"""Checkpoints that several tests share, and the table of what they measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from checkpoints import build_checkpoint
from golden.recipes import make
from parity import Parity
from task_bench import TaskBench, serve
from task_families import TASK_HEADS, architecture
from tiny_families import FAMILY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOLDEN = Path(__file__).parents[1] / "golden"

#: Fixtures of golden answers.
GOLDENS = {"golden", "golden_of"}


@pytest.hookimpl(tryfirst=True)  # before marks are selected by
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what a test proves of a second encoder, decoder or encoder-decoder.

    The first family of each architecture, in the order of FAMILY, is quick in every test, for each set of its other
    parameters. So are golden answers: they are of few families, and of different ones in different tasks.
    """
    order = list(FAMILY)
    cases = sorted(filter(None, map(_case, items)), key=lambda case: order.index(case.family))
    quick: dict[object, str] = {}
    for case in cases:
        if quick.setdefault(case.proof, case.family) != case.family:
            case.item.add_marker(pytest.mark.slow)


class _Case(NamedTuple):
    item: pytest.Function
    family: str
    proof: object
    """The same for families that it proves the same of."""


def _case(item: pytest.Item) -> _Case | None:
    """Return what a test proves of a family; None where it is of none, or has golden answers."""
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec") or GOLDENS & {*item.fixturenames}:
        return None
    parameters = item.callspec.params
    families = [(name, value) for name, value in parameters.items() if isinstance(value, str) and value in FAMILY]
    if not families:
        return None
    ((own, family),) = families
    others = [(name, repr(value)) for name, value in sorted(parameters.items()) if name != own]
    return _Case(item, family, (item.function, architecture(family), *others))


@pytest.fixture(scope="session")
def bench_of(folder_of: Callable[..., Path]) -> Callable[..., TaskBench]:
    """A task on a family's checkpoint, loaded once; options are the checkpoint's."""
    loaded: dict[str, TaskBench] = {}

    def load(task: str, family: str, *, dtype: str = "float32", packing: str = "auto", **options: Any) -> TaskBench:
        key = f"{task} {family} {dtype} {packing} {options}"
        if key not in loaded:
            folder = folder_of(family, TASK_HEADS[task], **options)
            loaded[key] = serve((task, folder), dtype=dtype, packing=packing)
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
