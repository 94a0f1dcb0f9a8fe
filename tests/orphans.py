"""Folders that a process and its child share, and the end of both where the process died without a word."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: The file of a folder that has the child's process id. The child must have the folder's path in its command line.
PID: Final = "pid"

#: Seconds for a killed child to be gone; where nobody reaps it, as in some containers, it stays in the list for ever.
GONE_SECONDS: Final = 2.0


@contextlib.contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make the folder, after the orphans beside it are gone, and remove it at the end.

    Whoever holds its lock owns it. The system gives a lock back when its holder dies, however it dies: that is how
    another process tells a folder that was left behind from one that is in use.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(folder.parent)
    with _lock_of(folder).open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.mkdir()
        try:
            yield
        finally:
            _remove(folder)


def remove_orphans(parent: Path) -> None:
    """Remove the folders whose owner is dead, and kill the children that it left."""
    for path in parent.glob("*.lock"):
        # FileNotFoundError: another process was faster. BlockingIOError: its owner lives.
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open(encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = path.with_suffix("")
            _kill_child(folder)
            _remove(folder)


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _remove(folder: Path) -> None:
    """Remove it, the lock last: without one nobody would ever look at the rest."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)


def _kill_child(folder: Path) -> None:
    # FileNotFoundError: it had none yet. ValueError: its owner died while it wrote the number.
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        child = psutil.Process(int((folder / PID).read_text(encoding="ascii")))
        # The number may be another process's by now.
        if str(folder) in " ".join(child.cmdline()):
            child.kill()
            psutil.wait_procs([child], timeout=GONE_SECONDS)
