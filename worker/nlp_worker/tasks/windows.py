"""Long texts as windows: runs of tokens that overlap, each a row with the special tokens that a whole text has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlp_schemas import MAX_ROWS
from nlp_worker.errors import InputTooLongError, InvalidRequestError


@dataclass(frozen=True, slots=True)
class Window:
    """Some tokens of an encoding, by their indices in it."""

    encoding: Any
    """Of the whole text, or of the question and the whole text: the columns of a ``tokenizers.Encoding``."""
    indices: list[int]


def cut_windows(
    encoding: Any,
    sequence: int,
    longest: int,
    stride: int,
    *,
    names: tuple[str, str] = ("parameters.max_length", "parameters.stride"),
) -> list[Window]:
    """Cut a text into windows of at most ``longest`` tokens that have ``stride`` tokens in common.

    The same windows as the ``tokenizers`` library's overflowing tokens, but without a call, a limit and a state of the
    tokenizer for each pair of parameters.

    Args:
        encoding: Not truncated.
        sequence: Which of the encoding's texts is cut: 0 or 1. What is not of it is in every window.
        longest: Tokens of a window, those that every window has included.
        stride: Tokens that neighbours have in common.
        names: The parameters of a request that the last two come from.

    Raises:
        InputTooLongError: no room is left for the text, or there would be more than MAX_ROWS windows.
        InvalidRequestError: windows that overlap so much would not move on.
    """
    first, last = _span(encoding, sequence)
    text = last - first
    size, overlap = names
    room = room_for_text(encoding, sequence, longest, size)
    if text <= room:
        return [_window(encoding, first, last, first, text)]
    if stride >= room:
        problem = f"a window ({size}) has room for {room} tokens of the text"
        raise InvalidRequestError(f"{problem}: {overlap} must be below, not {stride}")
    count = 1 + -(-(text - room) // (room - stride))
    if count > MAX_ROWS:
        problem = f"the text makes {count} windows of {longest} tokens, at most {MAX_ROWS} are computed"
        raise InputTooLongError(f"{problem}: shorten it, or ask for longer windows ({size}) or a smaller {overlap}")
    starts = range(first, first + count * (room - stride), room - stride)
    return [_window(encoding, first, last, start, room) for start in starts]


def first_window(encoding: Any, sequence: int, longest: int) -> Window:
    """Return what is left of a text that is truncated, however many windows it would make.

    Raises:
        InputTooLongError: no room is left for the text.
    """
    first, last = _span(encoding, sequence)
    return _window(encoding, first, last, first, room_for_text(encoding, sequence, longest))


def _window(encoding: Any, first: int, last: int, start: int, room: int) -> Window:
    """Return the window that begins at an index of the text, which is from first to last."""
    tail = range(last, len(encoding.ids))
    return Window(encoding, [*range(first), *range(start, min(start + room, last)), *tail])


def room_for_text(encoding: Any, sequence: int, longest: int, size: str = "parameters.max_length") -> int:
    """Return how many of the text's tokens a window of at most ``longest`` has.

    Raises:
        InputTooLongError: none; ``size`` is the parameter to raise.
    """
    first, last = _span(encoding, sequence)
    fixed = len(encoding.ids) - (last - first)
    if fixed >= longest and len(encoding.ids) > longest:
        problem = f"a window has {longest} tokens, and {fixed} are taken by what each of them begins with"
        raise InputTooLongError(f"{problem}: shorten that, or ask for longer windows ({size})")
    return longest - fixed


def _span(encoding: Any, sequence: int) -> tuple[int, int]:
    """Return where a text's tokens begin and end in its encoding: they stand together."""
    owners = encoding.sequence_ids
    if sequence not in owners:
        return len(owners), len(owners)
    return owners.index(sequence), len(owners) - owners[::-1].index(sequence)
