"""Workers as processes that start in a second, and that end or stop at the point a test names."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from clients import PATIENCE
from processes import TASK, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults.ledger import Ledger

#: Where its modules are found.
TESTS: Final = Path(__file__).parents[1]

#: Members hear of a rebalance soon.
HEARTBEAT: Final = {"NLP_WORKER_KAFKA__CONSUMER__HEARTBEAT_INTERVAL_MS": "500"}

#: Seconds between two looks at a process.
LOOK_SECONDS: Final = 0.05


class FaultyWorker(WorkerProcess):
    """`nlp-worker run` without a checkpoint, with faults: see faulty_worker.py, which has the points' names.

    Args:
        ledger: Whose requests it answers.
        folder: For its log.
        arguments: Of `nlp-worker run`, after ours.
        servers: Where it finds the broker: the ledger's, or those behind a proxy.
        faults: What it does to itself, as in `before_publish:3:kill,mid_batch:1:stop`.
        forward_seconds: What a batch takes on the device.
        environment: Over this process's own.
    """

    module = "faults.faulty_worker"
    cwd = TESTS

    def __init__(
        self,
        ledger: Ledger,
        folder: Path,
        *arguments: str,
        servers: str | None = None,
        faults: str = "",
        forward_seconds: float = 0.0,
        **environment: str,
    ) -> None:
        # Of two that say where the broker is, the last one counts.
        around = ["--bootstrap-servers", servers] if servers is not None else []
        own = {"FAULTS": faults, "FORWARD_SECONDS": str(forward_seconds)}
        model = ["--model", f"fake:{TASK}=fake"]
        super().__init__(ledger, None, folder, *around, *model, *arguments, **(HEARTBEAT | own | environment))

    def wait_until_ready(self) -> None:
        """Return when it has its signal handlers, and is about to poll for the first time."""
        self._wait_until(lambda: self.events("ready"))

    @property
    def partitions(self) -> list[str]:
        """What the group has given it by now."""
        rebalances = self.events("rebalance")
        return list(rebalances[-1]["partitions"]) if rebalances else []

    def wait_until_killed(self) -> None:
        """Return when it has killed itself; it must not end in another way."""
        assert self.end(timeout=PATIENCE) == -signal.SIGKILL, self.log()[-2_000:]

    def wait_until_stopped(self) -> None:
        """Return when it has stopped itself."""
        self._wait_until(lambda: psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)
        self.wait_until_stopped()

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def terminate(self) -> None:
        """SIGTERM: it drains. `end` waits, and returns its exit code."""
        self.process.terminate()

    def _wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.log()[-2_000:]}"
            assert time.monotonic() < deadline, self.log()[-2_000:]
            time.sleep(LOOK_SECONDS)
