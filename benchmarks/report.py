"""What every benchmark shares: contestants take turns, and what was measured becomes a table, JSON and a plot."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from apache_kafka import LIBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: In git: the figures that README and docs/ name.
RESULTS: Final = Path(__file__).parent / "results"

#: What decides how fast a worker is, beside the machine.
PACKAGES: Final = ("torch", "transformers", "kafka-python")

#: Inches of a plot: a panel's width and its bars' labels', and the height of a bar and of what is around them.
PANEL, LABELS, BAR, AROUND = 3.0, 2.5, 0.3, 1.1


class Spread(NamedTuple):
    """Of some rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))

    def columns(self, unit: str) -> dict[str, float]:
        """Return a table's columns."""
        return {unit: self.median, "lowest": self.low, "highest": self.high}


@dataclass(frozen=True)
class Panel:
    """A part of a plot: for each contestant a bar up to its median, and a line from its lowest to its highest."""

    title: str
    bars: Mapping[str, Spread]


@dataclass(frozen=True)
class Report:
    """What a run found."""

    name: str
    """Of its files."""
    title: str
    settings: Mapping[str, Any]
    """What was run."""
    rows: Sequence[Mapping[str, str | float]]
    """Of the table: each value by its column, the same columns in each row."""
    panels: Sequence[Panel]
    axis: str
    """What the bars show, with its unit."""
    of_machine: bool = True
    """False where the figures are the same on every machine."""

    def show(self) -> None:
        """Print the table."""
        print(f"{self.title} ({', '.join(f'{name} {value}' for name, value in self.settings.items())})")
        table = [list(self.rows[0]), *([_shown(value) for value in row.values()] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        words = [isinstance(value, str) for value in self.rows[0].values()]
        for line in table:
            cells = zip(line, widths, words, strict=True)
            print("  ".join(f"{cell:{'<' if word else '>'}{width}}" for cell, width, word in cells).rstrip())

    def write(self, folder: Path = RESULTS) -> None:
        """Write ``<name>.json`` and ``<name>.svg`` to the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(self.as_json(), indent=1) + "\n", encoding="utf-8")
        # The same figures give the same bytes: no day, no version, ids from the salt, and text that stays text.
        with mpl.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "none"}):
            self._plot().savefig(folder / f"{self.name}.svg", metadata={"Date": None, "Creator": None})

    def as_json(self) -> dict[str, Any]:
        """Return what is written; numbers have four decimals."""
        rows = [{name: _rounded(value) for name, value in row.items()} for row in self.rows]
        where = {"machine": machine()} if self.of_machine else {}
        return {"title": self.title, "settings": dict(self.settings), **where, "rows": rows}

    def _plot(self) -> Figure:
        bars = max(len(panel.bars) for panel in self.panels)
        size = (LABELS + PANEL * len(self.panels), AROUND + BAR * bars)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(self.title)
        figure.supxlabel(self.axis, fontsize="medium")
        axes = figure.subplots(1, len(self.panels), squeeze=False, sharey=True)[0]
        for axis, panel in zip(axes, self.panels, strict=True):
            spreads = list(panel.bars.values())
            lines = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
            shown = axis.barh(list(panel.bars), [s.median for s in spreads], xerr=lines, color="#4c72b0")
            axis.bar_label(shown, [_shown(s.median) for s in spreads], padding=3, fontsize="small")
            axis.margins(x=0.25)  # room for these numbers
            axis.set_title(panel.title, fontsize="medium")
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].invert_yaxis()  # the first on top
        return figure


def take_turns(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Spread]:
    """Run each contestant once in every round: what a machine does meanwhile meets them all.

    Returns:
        What they returned, by their names; each value is told on standard error when it is there.
    """
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            values[name].append(run())
            print(f"round {number + 1} of {rounds}, {name}: {_shown(values[name][-1])}", file=sys.stderr)
    return {name: Spread.of(measured) for name, measured in values.items()}


def machine() -> dict[str, str | int]:
    """Return what the figures were measured on, in words."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "Apache Kafka": _apache_kafka(),
    }


def _cpu() -> str:
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)  # ARM has none
    return found[1] if found else platform.machine()


def _apache_kafka() -> str:
    jars = sorted(LIBS.glob("kafka-clients-*.jar"))
    return jars[-1].stem.removeprefix("kafka-clients-") if jars else "none"


def _rounded(value: str | float) -> str | float:
    return round(value, 4) if isinstance(value, float) else value


def _shown(value: str | float) -> str:
    """Return a value as a table has it."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three digits
