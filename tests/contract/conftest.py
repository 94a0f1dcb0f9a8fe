"""One worker for all tests that only ask one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from nlp_worker import logging as worker_logging
from served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apache_kafka import RunningKafka


@pytest.fixture(autouse=True)
def commands_leave_the_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that a test runs in its own process would set up logging for all tests behind it."""
    monkeypatch.setattr(worker_logging, "configure", lambda **_: None)


@pytest.fixture(scope="session")
def served_by_embedded(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """On the embedded broker."""
    with contextlib.closing(Served(embedded_kafka, tiny_checkpoint, tmp_path_factory.mktemp("served"))) as served:
        yield served


@pytest.fixture(scope="session")
def served_by_apache(
    real_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """On Apache Kafka."""
    with contextlib.closing(Served(real_kafka, tiny_checkpoint, tmp_path_factory.mktemp("served"))) as served:
        yield served


@pytest.fixture
def served(request: pytest.FixtureRequest, kafka_broker: RunningKafka) -> Served:
    """On both, one after the other."""
    found: Served = request.getfixturevalue(f"served_by_{request.node.callspec.params['kafka_broker']}")
    assert found.broker is kafka_broker
    return found
