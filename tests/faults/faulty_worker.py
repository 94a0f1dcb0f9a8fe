"""`nlp-worker run` with a model that answers at once, and with points at which it kills or stops itself.

The arguments are those of `nlp-worker`, and the environment says what is different. All of it is put around the
product's methods from outside; the product knows nothing of it. Run it in the folder of the tests:
python -m faults.faulty_worker run ...

FAULTS=before_publish:3:kill,mid_batch:1:stop
    Kill (SIGKILL) or stop (SIGSTOP) the process when it passes a point for the n-th time; or let its clock jump an hour
    `ahead` or `back`.
FORWARD_SECONDS=0.04
    What each batch takes on the device.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kafka.producer.transaction_manager import TransactionManager

from fakes import BATCH_TOKENS, FakeTask
from nlp_schemas import TaskName
from nlp_worker import cli
from nlp_worker.consumer import Consumer
from nlp_worker.delivery import AtLeastOnce, ExactlyOnce
from nlp_worker.poll import Committed, Row
from nlp_worker.publisher import Publisher
from nlp_worker.transactions import TransactionalPublisher

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that a clock jumps.
HOUR: Final = 3_600.0


def _signal(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def _jump(seconds: float) -> None:
    """Set the clock of the wall, as an administrator does, for this process alone."""
    before = time.time
    setattr(time, "time", lambda: before() + seconds)  # noqa: B010 - mypy lets nobody assign it


#: What a process does to itself.
FAULTS: Final[dict[str, Callable[[], None]]] = {
    "kill": functools.partial(_signal, signal.SIGKILL),
    "stop": functools.partial(_signal, signal.SIGSTOP),
    "ahead": functools.partial(_jump, HOUR),
    "back": functools.partial(_jump, -HOUR),
}


class Place(NamedTuple):
    """Where a point is passed."""

    owner: Any
    """The class."""
    method: str
    after: bool
    """When the method has returned, rather than when it is called."""
    counts: Callable[[Any], object] = lambda _result: True
    """Whether a call with this result passes it; only where it is after the method."""


def _is_done(result: object) -> bool:
    return result is Committed.DONE


#: The points, in the order of a poll's way, each with its place under at least once and under exactly once.
POINTS: Final = {
    "after_poll": [Place(Consumer, "poll", after=True, counts=bool)],
    "mid_batch": [Place(FakeTask, "forward", after=True)],
    "before_publish": [
        Place(Publisher, "publish", after=False),
        Place(TransactionalPublisher, "transact", after=False),
    ],
    # Every answer is acknowledged; in a transaction the offsets are part of it too.
    "after_publish_before_commit": [
        Place(Publisher, "publish", after=True),
        Place(TransactionManager, "begin_commit", after=False),
    ],
    "after_commit": [
        Place(AtLeastOnce, "deliver", after=True, counts=_is_done),
        Place(ExactlyOnce, "deliver", after=True, counts=_is_done),
    ],
}


def install(point: str, number: int, fault: Callable[[], None]) -> None:
    """Let the process do this to itself when it passes the point for the so-manieth time."""
    passes = itertools.count(1)

    def pass_by() -> None:
        if next(passes) == number:
            fault()

    for place in POINTS[point]:
        setattr(place.owner, place.method, _wrapped(place, pass_by))


def _wrapped(place: Place, pass_by: Callable[[], None]) -> Callable[..., Any]:
    method = getattr(place.owner, place.method)

    @functools.wraps(method)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        if not place.after:
            pass_by()
        result = method(*arguments, **named)
        if place.after and place.counts(result):
            pass_by()
        return result

    return wrapped


class SlowTask(FakeTask):
    """Takes its time for each batch, as a model does."""

    def forward(self, inputs: list[str]) -> list[str]:
        time.sleep(float(os.environ.get("FORWARD_SECONDS", "0")))
        return super().forward(inputs)

    def warm_up_rows(self) -> list[Row]:
        """None: faults count the batches of requests."""
        return []


def main() -> None:
    for fault in filter(None, os.environ.get("FAULTS", "").split(",")):
        point, number, name = fault.split(":")
        install(point, int(number), FAULTS[name])
    # In the place of nlp_worker.models, which imports torch: the command line, its wiring, its signals and its exit
    # codes are the product's own.
    models: Any = ModuleType("nlp_worker.models")
    models.load = lambda _settings: {TaskName.TEXT_CLASSIFICATION: {"fake": SlowTask()}}
    models.cache_tokens = lambda _settings: BATCH_TOKENS
    sys.modules["nlp_worker.models"] = models
    cli.main()


if __name__ == "__main__":
    main()
