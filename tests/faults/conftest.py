"""A node behind a fault proxy, for all tests of faults: each of them leaves it healed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from faults.matrix import AT_LEAST_ONCE, Line, Matrix, missing, write
from faults.proxied_kafka import ProxiedKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apache_kafka import RunningKafka


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave `make test` each of its scenarios under exactly once, which allows less."""
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("delivery") == AT_LEAST_ONCE:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def node(real_kafka: RunningKafka) -> Iterator[ProxiedKafka]:
    """The node itself; `real_kafka` says whether there can be one."""
    del real_kafka
    if "KAFKA_BOOTSTRAP" in os.environ:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to hurt")
    with ProxiedKafka() as broker:
        yield broker


@pytest.fixture
def kafka(node: ProxiedKafka) -> Iterator[ProxiedKafka]:
    """A node whose proxy lets everything pass, until a test adds its rules."""
    yield node
    node.proxy.heal()


LINES = pytest.StashKey[list[Line]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LINES] = []


@pytest.fixture(scope="session")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """Where scenarios put what they cost; at the end of the run the table is written, or a missing row told."""
    rows = Matrix()
    yield rows
    if request.config.getoption("--write-faults"):
        request.config.stash[LINES].extend(rows.lines())
    elif lacking := missing(rows.lines()):
        pytest.fail(f"docs/guarantees.md lacks {lacking}: run `make faults`")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist's has seen."""
    node.config.stash[LINES].extend(Line(*line) for line in node.workeroutput.get("faults", []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what all processes have seen, in the one that has it all."""
    lines = session.config.stash[LINES]
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["faults"] = [tuple(line) for line in lines]
    elif lines:
        write(lines)
