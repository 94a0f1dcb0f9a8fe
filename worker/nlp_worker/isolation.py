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
    except BaseException as error:
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        if len(items) == 1:
            # A traceback holds its frames, and these hold the device's tensors.
            error = error.with_traceback(None)
            return [error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")]
    middle = len(items) // 2
    return isolate(items[:middle], call) + isolate(items[middle:], call)


def _is_panic(error: BaseException) -> bool:
    """Whether it is a failed assertion in Rust, of `tokenizers` for one, which comes as no Exception."""
    return type(error).__module__ == "pyo3_runtime"


def _counted(outputs: Sequence[Output], expected: int) -> list[Output | Exception]:
    # One output too few would give every later request its neighbour's answer.
    if len(outputs) != expected:
        raise ValueError(f"{expected} items went in, {len(outputs)} outputs came back")
    return list(outputs)
