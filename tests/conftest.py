"""What every test stands on: an environment without our settings, and a quiet log."""

import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from apache_kafka import LIBS, RunningKafka, apache_kafka, is_expected, why_not
from nlp_schemas import REQUESTS, RESULTS
from nlp_worker import plugins
from nlp_worker.broker import EmbeddedBroker

# Before any Hugging Face library is imported: a test that reached for the hub would be a test of the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# Before torch is: parallel runs share the cores, and tiny models are not faster with more threads.
os.environ["OMP_NUM_THREADS"] = "1"
for name in [name for name in os.environ if name.startswith("NLP_WORKER_")]:
    del os.environ[name]
# Where the tests run in the background of a shell SIGINT is ignored, and processes that they start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-docs", action="store_true", help="write the tables of docs/ that tell what is there")
    parser.addoption("--write-faults", action="store_true", help="write the table of docs/guarantees.md")


def pytest_configure(config: pytest.Config) -> None:
    """Write the tables from one process, which has seen all that was measured."""
    if config.getoption("--write-docs") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--write-docs: leave out -n")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what a real Kafka proves too: all that runs on both brokers, but for the tests of brokers."""
    if not is_expected():
        return
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("kafka_broker") == "embedded" and not item.path.name.startswith("test_broker"):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect Kafka's jars before the first test, whose time limit a slow download would use up.

    One process after the other: the first of parallel ones collects them for all.
    """
    if not session.config.option.collectonly and any(item.get_closest_marker("kafka") for item in session.items):
        LIBS.mkdir(parents=True, exist_ok=True)
        with (LIBS / ".lock").open("w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            why_not()


@pytest.fixture(autouse=True)
def quiet_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Log nothing, and let nothing stay of what a command that runs in this process sets up.

    A logger that had kept it would keep it for ever, and the tests of what is logged would not see its events.
    """
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = root.handlers, root.level
    monkeypatch.setattr(
        structlog, "configure", lambda **settings: configure(**{**settings, "cache_logger_on_first_use": False})
    )
    structlog.reset_defaults()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def embedded_kafka() -> Iterator[RunningKafka]:
    """The embedded development broker, in this process."""
    with EmbeddedBroker() as broker:
        yield RunningKafka(broker.bootstrap_servers)


@pytest.fixture(scope="session")
def real_kafka() -> Iterator[RunningKafka]:
    """A real Apache Kafka; where there can be none the test is skipped, or fails with REQUIRE_KAFKA=1."""
    if "KAFKA_BOOTSTRAP" not in os.environ and (reason := why_not()) is not None:
        if os.environ.get("REQUIRE_KAFKA") == "1":
            pytest.fail(f"no Apache Kafka: {reason}")
        pytest.skip(f"no Apache Kafka: {reason}")
    with apache_kafka() as broker:
        yield broker


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def kafka_broker(request: pytest.FixtureRequest) -> RunningKafka:
    """Both brokers, one after the other: the same test runs on each."""
    broker: RunningKafka = request.getfixturevalue("embedded_kafka" if request.param == "embedded" else "real_kafka")
    return broker


@pytest.fixture
def plugins_end_here() -> Iterator[None]:
    """What a plugin adds is gone behind the test: others look at all tasks that there are."""
    from nlp_worker.models import SERVED  # noqa: PLC0415 - imports torch, which most tests do without

    registries: list[dict[Any, Any]] = [REQUESTS, RESULTS, SERVED, plugins._loaded]
    before = [dict(registry) for registry in registries]
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random DistilBERT of three labels, for tests of everything around the model."""
    from checkpoints import build_checkpoint  # noqa: PLC0415 - imports torch, which most tests do without

    return build_checkpoint("distilbert", "sequence-classification", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A checkpoint's folder by family, head and options; each is built once."""
    from checkpoints import build_checkpoint  # noqa: PLC0415 - imports torch, which most tests do without

    built: dict[str, Path] = {}

    def build(family: str, head: str, **options: Any) -> Path:
        key = f"{family} {head} {options}"
        if key not in built:
            built[key] = build_checkpoint(family, head, tmp_path_factory.mktemp(family), **options)
        return built[key]

    return build
