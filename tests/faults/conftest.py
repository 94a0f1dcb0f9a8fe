"""A node behind a fault proxy, for all tests of faults: each of them leaves it healed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from faults.matrix import Matrix
from faults.proxied_kafka import ProxiedKafka

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apache_kafka import RunningKafka


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


@pytest.fixture(scope="session")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """Where scenarios put what they cost; at the end of the run the table is written, or a missing row told."""
    rows = Matrix()
    yield rows
    if request.config.getoption("--write-docs"):
        rows.write()
    elif missing := rows.missing():
        pytest.fail(f"docs/guarantees.md lacks {missing}: run `make faults`")
