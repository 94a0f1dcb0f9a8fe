"""The worker of the faults, with texts over which its model ends the process, stands still or fails.

"crash in forward", "crash in preprocess"
    SIGSEGV, as a native library that reads where it may not.
"stand still"
    A forward that never returns.
"run out of memory"
    MemoryError.

The environment says what is different besides faulty_worker.py's FAULTS and FORWARD_SECONDS:

PUBLISH_SECONDS=10
    How long answers may take to be published; it is no setting of the product.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from typing import TYPE_CHECKING, Any
from unittest import mock

from fakes import text_of
from faults import faulty_worker
from faults.faulty_worker import SlowTask
from faults.harness import FaultyWorker
from nlp_worker import wiring
from nlp_worker.parts import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nlp_schemas import Request
    from nlp_worker.errors import RequestError
    from nlp_worker.tasks.base import Prepared


class CrashingTask(SlowTask):
    """Labels a text with itself, unless the text says otherwise."""

    def preprocess(self, requests: Sequence[Request]) -> list[Prepared | RequestError]:
        if "crash in preprocess" in map(text_of, requests):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().preprocess(requests)

    def forward(self, inputs: list[str]) -> list[str]:
        if "crash in forward" in inputs:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "stand still" in inputs:
            threading.Event().wait()
        if "run out of memory" in inputs:
            raise MemoryError
        return super().forward(inputs)


class CrashingWorker(FaultyWorker):
    """The worker of this module as a process."""

    module = "faults.crashing_worker"


def main() -> None:
    limits: Any = Limits
    if seconds := os.environ.get("PUBLISH_SECONDS"):
        limits = functools.partial(Limits, publish_seconds=float(seconds))
    with mock.patch.object(wiring, "Limits", limits), mock.patch.object(faulty_worker, "SlowTask", CrashingTask):
        faulty_worker.main()


if __name__ == "__main__":
    main()
