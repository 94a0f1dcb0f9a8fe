"""Many requests from lines of text or of JSON, and an answer's line for each, in their order."""

from __future__ import annotations

import json
import threading
from collections import Counter
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from nlp_schemas import ErrorCode
from nlp_worker.client import RequestFailedError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from typing import BinaryIO

    from nlp_worker.client import AnswerFuture, Client


class Line(NamedTuple):
    """A line that is not empty."""

    number: int
    """The first is 1."""
    content: bytes
    end: int
    """Bytes of the input up to its end."""


def read(source: Iterable[bytes]) -> Iterator[Line]:
    """Return the lines that are not empty."""
    end = 0
    for number, content in enumerate(source, 1):
        end += len(content)
        if content.strip():
            yield Line(number, content.rstrip(b"\r\n"), end)


def is_json(line: bytes) -> bool:
    """Whether the line is a request as the contract has it, and no text."""
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(request, dict) and "inputs" in request


def request_of(line: Line, common: Mapping[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Make a request of a line.

    Args:
        line: A text, or a request in JSON.
        common: What every request has where it says nothing else; parameters are put together.
        as_json: Which it is.

    Raises:
        RequestFailedError: it is not UTF-8, no JSON or no object.
    """
    try:
        own = json.loads(line.content) if as_json else {"inputs": line.content.decode()}
    except UnicodeDecodeError as error:
        raise _refused(line, f"is not UTF-8: {error.reason} at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise _refused(line, f"is not JSON: {error}") from None
    if not isinstance(own, dict):
        raise _refused(line, 'is no JSON object: write {"inputs": ...}')
    request = {**common, **own}
    if own.get("id") is None:
        request["id"] = f"line-{line.number}"
    if isinstance(own.get("parameters", {}), dict):
        request["parameters"] = {**common.get("parameters", {}), **own.get("parameters", {})}
    return request


def _refused(line: Line, problem: str) -> RequestFailedError:
    return RequestFailedError(ErrorCode.INVALID_REQUEST, f"line {line.number} {problem}")


def ask(
    client: Client, task: str, lines: Iterable[Line], common: Mapping[str, Any], *, as_json: bool, ahead: int
) -> Generator[tuple[Line, AnswerFuture[Any] | RequestFailedError], None, None]:
    """Send a request for each line; give each line with its answer's future, in their order.

    Lines are waited for on a thread of their own, so that an answer is given when it is there, and not with the next
    line.

    Args:
        client: Sends them.
        task: Of all of them.
        lines: Any number.
        common: As of `request_of`.
        as_json: As of `request_of`.
        ahead: Lines that are taken, and whose answers are not given yet.

    Raises:
        As ``Client.send``, and what reading the lines raises.
    """
    asked: Queue[tuple[Line, AnswerFuture[Any] | RequestFailedError] | BaseException | None] = Queue(ahead)

    def feed() -> None:
        try:
            for line in lines:
                asked.put((line, _send(line)))
        except BaseException as error:  # noqa: BLE001 - raised where the answers are waited for
            asked.put(error)
        else:
            asked.put(None)

    def _send(line: Line) -> AnswerFuture[Any] | RequestFailedError:
        try:
            request = request_of(line, common, as_json=as_json)
        except RequestFailedError as error:
            return error
        return client.send(task, request)

    threading.Thread(target=feed, name="lines", daemon=True).start()
    while (each := asked.get()) is not None:
        if isinstance(each, BaseException):
            raise each
        yield each


class Output:
    """Answers, a line of JSON for each, and how many there are by their codes."""

    def __init__(self, target: BinaryIO, task: str) -> None:
        self._target = target
        self._task = task
        self.counts: Counter[str] = Counter()

    @property
    def failed(self) -> bool:
        return self.counts.total() > self.counts["ok"]

    @property
    def told(self) -> str:
        """How many were answered, in words."""
        errors = ", ".join(f"{code} {count:,}" for code, count in self.counts.most_common() if code != "ok")
        return f"{self.counts.total():,} answered" + (f", of these {errors}" if errors else "")

    def write(self, line: Line, answer: AnswerFuture[Any] | RequestFailedError) -> None:
        """Wait for an answer and write it; one that failed is a line too.

        Raises:
            As the future, but for RequestFailedError.
        """
        try:
            if isinstance(answer, RequestFailedError):
                raise answer
            value = to_json(answer.result())
            self.counts["ok"] += 1
        except RequestFailedError as error:
            value = to_json(error.answer or self._unsent(line, error))
            self.counts[error.code] += 1
        self._target.write(value + b"\n")
        # For whoever follows the file, and for a run that is killed and gone on with.
        self._target.flush()

    def _unsent(self, line: Line, error: RequestFailedError) -> dict[str, Any]:
        told = {"code": error.code, "message": str(error).partition(": ")[2]}
        where = {"id": f"line-{line.number}", "task": self._task}
        return {**where, "status": "error", "error": told, "model": None, "source": None}


def end_of_lines(target: BinaryIO) -> int:
    """Cut off a last line that is not whole; return how many lines there are, standing behind them."""
    count = end = 0
    target.seek(0)
    for line in target:
        if line.endswith(b"\n"):
            count, end = count + 1, end + len(line)
    target.truncate(end)
    target.seek(end)
    return count
