"""The commands that the documents show run as they are written, in their order, on a broker with a worker.

They are the blocks `sh`, and of the blocks `console` the lines that begin with "$ ". Words behind that say what a block
needs: `docker`, `kubernetes`, `hub`, `gpu` and `make` are never run here, `service` runs until it is stopped, and any
other word is a tool that may be installed. What is not run is skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from documents import DOCUMENTS, ROOT
from nlp_worker.client import RequestFailedError
from processes import PATIENCE, TASK
from served import Served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apache_kafka import RunningKafka

pytestmark = pytest.mark.timeout(3 * PATIENCE)

FENCE: Final = re.compile(r"^```(sh|console)\b(.*)\n((?s:.*?))^```$", re.MULTILINE)

#: What is never there, and what a command begins with that needs it.
NEVER: Final = {
    "docker": ("a Docker engine", "docker"),
    "kubernetes": ("a cluster", "kubectl apply"),
    "hub": ("the hub", "hf"),
    "gpu": ("a GPU", "make test-gpu"),
    "make": ("a machine of its own: CI runs `make test` as it is, and the demo takes a minute of all cores", "make"),
}

#: What the blocks that need the hub, or `make demo`, leave behind: the blocks after them use it.
CHECKPOINTS: Final = ("models/sst2", ".demo/text-classification-0")


class Block(NamedTuple):
    """Commands that stand together in a document."""

    place: str
    words: frozenset[str]
    commands: str

    @property
    def missing(self) -> list[str]:
        """What it needs and is not there."""
        never = [needs for word, (needs, _) in NEVER.items() if word in self.words]
        tools = sorted(self.words - {*NEVER, "service"})
        return never or [f"{tool}, which is not installed" for tool in tools if shutil.which(tool) is None]


def _blocks(document: Path) -> Iterator[Block]:
    text = document.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        language, words, commands = found.groups()
        if language == "console":
            commands = "".join(line[2:] + "\n" for line in commands.splitlines() if line.startswith("$ "))
        place = f"{document.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}"
        yield Block(place, frozenset(words.split()), commands)


BLOCKS: Final = {document.name: list(_blocks(document)) for document in DOCUMENTS}
ALL: Final = [block for blocks in BLOCKS.values() for block in blocks]


class Shell:
    """A shell of somebody who follows the documents: a folder, and an environment that is not this one's."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {"PATH": path, "HOME": str(folder), "HF_HUB_OFFLINE": "1", **environment}

    def run(self, commands: str, *, until: str | None = None) -> tuple[int, str]:
        """Run commands; return their exit code and what they printed.

        Args:
            commands: Of one block.
            until: They are stopped with Ctrl-C after the first line that has this; without it they end by themselves.
        """
        shell = ["bash", "-euo", "pipefail", "-c", commands]
        with subprocess.Popen(
            shell,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for all of a pipe
        ) as process:
            limit = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
            limit.start()
            try:
                assert process.stdout is not None
                printed = []
                for line in process.stdout:
                    printed.append(line)
                    if until is not None and until in line:
                        os.killpg(process.pid, signal.SIGINT)
                        until = None
                code = process.wait()
                assert until is None, f"it ended by itself with {code}: {''.join(printed)}"
                return code, "".join(printed)
            finally:
                limit.cancel()


@pytest.fixture(scope="module")
def served_alone(
    embedded_kafka: RunningKafka, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A worker that no other test asks: the documents' commands send dead letters back and start workers beside it."""
    with contextlib.closing(Served(embedded_kafka, tiny_checkpoint, tmp_path_factory.mktemp("served"))) as served:
        # What `tail` and `dead-letters` have to show: somebody has asked before.
        with served.client() as client, contextlib.suppress(RequestFailedError):
            client.ask(TASK, "I love this.")
            client.ask(TASK, "I hate this.", model="sst2-large")
        yield served


@pytest.fixture
def shell(served_alone: Served, tiny_checkpoint: Path, tmp_path: Path) -> Shell:
    for name in CHECKPOINTS:
        folder = tmp_path / name
        folder.parent.mkdir()
        folder.symlink_to(tiny_checkpoint)
    return Shell(
        tmp_path,
        NLP_WORKER_BOOTSTRAP_SERVERS=served_alone.topics.servers,
        NLP_WORKER_TOPIC_PREFIX=served_alone.topics.prefix,
        NLP_WORKER_GROUP=served_alone.topics.prefix,
        OMP_NUM_THREADS="1",
    )


def _here(commands: str, served: Served) -> str:
    """Put in this test's broker and topics, for those that a document names."""
    commands = re.sub(r"\b(localhost|kafka):9092\b", served.topics.servers, commands)
    commands = commands.replace(f"nlp.{TASK}.", f"{served.topics.prefix}.{TASK}.")
    return commands.replace("--port 9092", "--port 0")


@pytest.mark.parametrize("document", [name for name, blocks in BLOCKS.items() if any(not b.missing for b in blocks)])
def test_the_commands_of_a_document_run(document: str, shell: Shell, served_alone: Served) -> None:
    """One block after the other, in one folder: each ends with 0, or where it is a service when it is told to."""
    for block in BLOCKS[document]:
        if block.missing:
            continue
        commands = _here(block.commands, served_alone)
        if "service" in block.words:
            # A worker says when it is ready; of all others the first line is proof.
            code, printed = shell.run(commands, until='"ready"' if "nlp-worker run" in commands else "")
            # Of a shell that was itself interrupted Popen tells the signal, where shells tell 130.
            assert code in (0, 128 + signal.SIGINT, -signal.SIGINT), f"{block.place}: {code}\n{printed}"
        else:
            code, printed = shell.run(commands)
            assert code == 0, f"{block.place}: {code}\n{printed}"
        assert "Traceback" not in printed, f"{block.place}\n{printed}"


@pytest.mark.parametrize("block", [pytest.param(each, id=each.place) for each in ALL if each.missing])
def test_a_block_that_is_not_run(block: Block) -> None:
    """Is skipped, so that the summary lists each with what it would need."""
    pytest.skip(f"{block.place} needs {', '.join(block.missing)}")


@pytest.mark.parametrize("block", [pytest.param(each, id=each.place) for each in ALL])
def test_a_block_says_what_it_needs(block: Block) -> None:
    """So that nothing is run here that a test may not: `make test` within itself, or an engine's containers."""
    assert block.commands.strip()
    for word, (_, command) in NEVER.items():
        if re.search(rf"^(\w+=\S* )*{command}\b", block.commands, re.MULTILINE):
            assert block.words & ({word} if word != "make" else {"make", "gpu"}), f"{block.place}: say `{word}`"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_targets_of_make_are_there(tmp_path: Path) -> None:
    """What the documents have make do it would do: with -n in MAKEFLAGS it only says so."""
    blocks = [block for block in ALL if "make" in block.words]
    assert blocks
    for block in blocks:
        code, printed = Shell(tmp_path, MAKEFLAGS="n").run(f"cd {ROOT}\n{block.commands}")
        assert code == 0, f"{block.place}: {code}\n{printed}"
