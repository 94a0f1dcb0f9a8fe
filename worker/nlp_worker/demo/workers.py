"""The demo's worker processes, and what their logs say of them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nlp_worker.demo.commands import own_command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import IO

#: Seconds. A killed worker's partitions go to the others after this; Kafka's own 45 s would be most of the demo.
SESSION_TIMEOUT: Final = 6.0


@dataclass
class WorkerView:
    """What one worker did so far, read from its log."""

    arguments: list[str]
    """Of `nlp-worker`."""
    process: subprocess.Popen[str]
    log: Path
    partitions: list[str] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    ready: threading.Event = field(default_factory=threading.Event)
    reader: threading.Thread | None = None

    def follow(self, lines: IO[str]) -> None:
        """Read the log until the process ends; a copy is kept for whoever wants to know more."""
        with self.log.open("w", encoding="utf-8") as copy, lines:
            for line in lines:
                copy.write(line)
                if line.startswith("{"):
                    self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        if event["event"] == "batch":
            self.rows += event["rows"]
            self.tokens += event["tokens"]
            self.padded_tokens += event["padded_tokens"]
        elif event["event"] == "rebalance":
            self.partitions = event["partitions"]
            self.ready.set()

    @property
    def state(self) -> str:
        code = self.process.poll()
        if code is None:
            return "running" if self.ready.is_set() else "starting"
        return "killed" if code < 0 else f"exit {code}"

    def kill(self) -> None:
        """SIGKILL: no goodbye to the group, nothing flushed."""
        self.process.kill()
        self.process.wait()
        self.partitions = []

    def stop(self) -> int:
        """SIGTERM: drain, and leave the group."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout=30)
        if self.reader is not None:
            self.reader.join()
        return code


def start_worker(number: int, bootstrap_servers: str, models: Sequence[str], folder: Path) -> WorkerView:
    """Start a worker of the group with one torch thread: two of them share the demo's two cores."""
    arguments = [
        "run",
        "--bootstrap-servers",
        bootstrap_servers,
        *(argument for model in models for argument in ("--model", model)),
        "--threads",
        "1",
        "--log-format",
        "json",
    ]
    environment = os.environ | {
        "NLP_WORKER_KAFKA__CONSUMER__SESSION_TIMEOUT_MS": str(int(SESSION_TIMEOUT * 1000)),
        "NLP_WORKER_KAFKA__CONSUMER__HEARTBEAT_INTERVAL_MS": str(int(SESSION_TIMEOUT * 1000 / 4)),
    }
    process = subprocess.Popen(  # noqa: S603 - our own command line
        own_command(arguments), stderr=subprocess.PIPE, text=True, env=environment
    )
    view = WorkerView(arguments, process, folder / f"worker-{number}.log")
    if process.stderr is not None:
        view.reader = threading.Thread(target=view.follow, args=(process.stderr,), daemon=True)
        view.reader.start()
    return view
