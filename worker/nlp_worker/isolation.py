"""One bad item never hurts another: whatever raises is halved until the bad one stands alone."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from nlp_worker.errors import FatalError

Item = TypeVar("Item")
Output = TypeVar("Output")


def isolate(items: Sequence[Item], call: Callable[[Sequence[Item]], Sequence[Output]]) -> list[Output | Exception]:
    """Call with all the items at once; where that raises, with each half, until only what is bad has failed.

    Costs nothing when nothing fails, and about 2 log2(n) calls for one bad item among n.

    Returns:
        For each item its output, or what was raised when it was called alone.

    Raises:
        FatalError: as raised by the call; there is nothing to isolate.
    """
    try:
        return _counted(call(items), len(items))
    except FatalError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs one request and not its neighbours
        if len(items) == 1:
            # A traceback holds its frames, and these hold the device's tensors.
            return [error.with_traceback(None)]
    middle = len(items) // 2
    return isolate(items[:middle], call) + isolate(items[middle:], call)


def _counted(outputs: Sequence[Output], expected: int) -> list[Output | Exception]:
    # One output too few would give every later request its neighbour's answer.
    if len(outputs) != expected:
        raise ValueError(f"{expected} items went in, {len(outputs)} outputs came back")
    return list(outputs)
