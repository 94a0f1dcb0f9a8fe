"""The demo's own command line: as it is run, and as somebody would type it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Torch's threads would wait for each other in loops, where other processes want the same two cores.
ONE_THREAD: Final = {"OMP_NUM_THREADS": "1"}


def own_command(arguments: Sequence[str]) -> list[str]:
    """Return what runs `nlp-worker` of this installation."""
    return [sys.executable, "-m", "nlp_worker", *arguments]


def typed(arguments: Sequence[str]) -> str:
    """Return what somebody would type to run it."""
    return shlex.join(["nlp-worker", *arguments])


class Command:
    """A command that runs, and whose lines are told.

    Args:
        arguments: Of `nlp-worker`.
        tell: Told each line that it prints, on a thread of its own.
    """

    def __init__(self, arguments: Sequence[str], tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._process = subprocess.Popen(  # noqa: S603 - our own command line
            own_command(arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive()

    def stop(self) -> int:
        """End it, if it has not ended; return its exit code."""
        if not self.ended:
            self._process.kill()
        self._reader.join()
        return self._process.wait()

    def _read(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    self._tell(line.rstrip())
