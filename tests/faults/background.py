"""What goes on beside a test."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from clients import PATIENCE

if TYPE_CHECKING:
    from types import TracebackType


class Background:
    """Runs `run` on a thread of its own for as long as the block lasts; it returns when `stopping` is set."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._thread.join(PATIENCE)
        self.close()

    def run(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Called when the thread has ended."""
        raise NotImplementedError
