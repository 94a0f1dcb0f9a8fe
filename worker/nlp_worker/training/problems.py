"""What is wrong with labelled rows: gathered from all of them, and told before anything is computed."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from nlp_worker.command_options import printable
from nlp_worker.errors import ExitCode, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Rows that are named of each kind; there may be millions.
SHOWN: Final = 10

#: What is told of a kind, each with its rows: it may be another of every row. The rest is told together.
TOLD: Final = 5
MORE: Final = "in other ways"

#: Of what is told: it may have a row's own text.
CHARACTERS: Final = 300


class Kind(StrEnum):
    """Of a problem."""

    UNREADABLE = "cannot be read"
    COLUMNS = "wrong columns"
    NO_LABEL = "missing label"
    UNKNOWN_LABEL = "unknown label"
    EMPTY = "empty text"
    INVALID = "does not fit"
    LEAKED = "in training and validation"


class Problem(NamedTuple):
    """Of a row."""

    kind: Kind
    place: str
    """Which row: its number in a file, or its record."""
    told: str = ""
    """What is wrong, where the kind does not say it all, and what would be right."""


class DataError(FatalError):
    """Labelled rows cannot be used."""

    exit_code = ExitCode.USAGE


def describe(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each kind of problem and what is told of it, with the first rows that have it."""
    places: defaultdict[Kind, dict[str, list[str]]] = defaultdict(dict)
    for problem in problems:
        of_kind = places[problem.kind]
        told = problem.told if problem.told in of_kind or len(of_kind) < TOLD else MORE
        of_kind.setdefault(told, []).append(problem.place)
    return [
        f"{kind}{f' ({_short(told)})' if told else ''}: {_rows(rows)}"
        for kind, of_kind in places.items()
        for told, rows in of_kind.items()
    ]


def _short(told: str) -> str:
    text = printable(told)
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}..."


def _rows(places: Sequence[str]) -> str:
    more = f" and {len(places) - SHOWN:,} more" if len(places) > SHOWN else ""
    return ", ".join(places[:SHOWN]) + more


def refuse(problems: Sequence[Problem], say: Callable[[str], None], *, skip_bad: bool) -> None:
    """Tell what is wrong with rows.

    Raises:
        DataError: they are not to be left out.
    """
    if not problems:
        return
    for line in describe(problems):
        say(line)
    rows, them = row_count(len(problems)), "it" if len(problems) == 1 else "them"
    if not skip_bad:
        raise DataError(f"{rows} cannot be used: mend {them}, or leave {them} out with --skip-bad")
    say(f"{rows} left out: {count(problems)}")


def row_count(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"


def count(problems: Iterable[Problem]) -> str:
    """Say how many there are of each kind."""
    counts: defaultdict[Kind, int] = defaultdict(int)
    for problem in problems:
        counts[problem.kind] += 1
    return ", ".join(f"{kind} {number:,}" for kind, number in counts.items())
