"""What is wrong with labelled rows: gathered from all of them, and told before anything is computed."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from nlp_worker.errors import ExitCode, FatalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: Rows that are named of each kind; there may be millions.
SHOWN: Final = 10


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
    places: defaultdict[tuple[Kind, str], list[str]] = defaultdict(list)
    for problem in problems:
        places[problem.kind, problem.told].append(problem.place)
    return [f"{kind}{f' ({told})' if told else ''}: {_rows(rows)}" for (kind, told), rows in places.items()]


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
    lines = describe(problems)
    for line in lines[:SHOWN]:
        say(line)
    if len(lines) > SHOWN:
        say(f"and {len(lines) - SHOWN:,} more kinds")
    rows = "1 row" if len(problems) == 1 else f"{len(problems):,} rows"
    if not skip_bad:
        raise DataError(f"{rows} cannot be used: mend them, or leave them out with --skip-bad")
    say(f"{rows} left out: {count(problems)}")


def count(problems: Iterable[Problem]) -> str:
    """Say how many there are of each kind."""
    counts: defaultdict[Kind, int] = defaultdict(int)
    for problem in problems:
        counts[problem.kind] += 1
    return ", ".join(f"{kind} {number:,}" for kind, number in counts.items())
