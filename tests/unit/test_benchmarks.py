"""The benchmarks' own arithmetic: what they measure is only as good as that."""

from __future__ import annotations

import itertools
import json
import os
import statistics
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

import psutil
import pytest

from benchmarks import padding
from benchmarks.backlog import Sample, at_shares, resident
from benchmarks.fifo import collect
from benchmarks.latency import arrivals, percentiles
from benchmarks.lengths import BEAM, beam, natural, one_long, texts
from benchmarks.report import RESULTS, Panel, Report, Spread, take_turns
from tiny_tokenizers import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def test_natural_lengths_are_those_that_are_stated() -> None:
    """5 to 256 tokens, 45 on average, and one of ten has 78 or more."""
    lengths = natural(10_000)
    assert (min(lengths), max(lengths)) == (5, 256)
    assert statistics.mean(lengths) == pytest.approx(45, abs=1)
    assert statistics.quantiles(lengths, n=10)[-1] == pytest.approx(78, abs=1)


def test_the_other_lengths_are_those_that_are_stated() -> None:
    """Beam's four have its means and limits, and one text in 64 is long."""
    means = {name: statistics.mean(beam(name, 10_000)) for name in BEAM}
    # Uncapped exp(log 50 + 0.8²/2) = 69, and 0.7 · 20 + 0.3 · 200 = 74; half a token of each is cut off.
    assert means["log-normal"] == pytest.approx(68, abs=1)
    assert means["bimodal"] == pytest.approx(74, abs=1)
    assert means["low variance"] == pytest.approx(100, abs=1)
    assert statistics.median(beam("Pareto", 10_000)) == 1
    assert all(1 <= length <= 500 for name in BEAM for length in beam(name, 10_000))
    assert one_long(640).count(400) == 10


def test_texts_have_exactly_the_lengths_that_are_asked_for(tmp_path: Path) -> None:
    """As their tokenizer counts, special tokens included; what is too short for one word gets one."""
    tokenizer = save_tokenizer("distilbert", tmp_path)
    lengths = [1, 3, 4, 45, 256, 7]
    assert [len(row) for row in tokenizer(texts(lengths, tokenizer))["input_ids"]] == [3, 3, 4, 45, 256, 7]


def test_simple_policies_cut_where_they_should() -> None:
    """By number, by what fits, and by buckets, on lengths whose batches are seen at a glance."""
    lengths = [10, 2, 2, 10, 40]
    assert padding.chunks(lengths, 2) == [[10, 2], [2, 10], [40]]
    assert padding.within(lengths, 12) == [[10], [2, 2], [10], [40]]
    assert padding.within(lengths, 100, rows=1) == [[length] for length in lengths]
    assert padding.filled(lengths, lambda batch: sum(batch) <= 14) == [[10, 2, 2], [10], [40]]
    assert padding.buckets([17, 2, 18, 16, 5], 2) == [[17, 18], [2, 16], [5]]
    assert sorted(map(sorted, padding.planned([2, 400, 2, 400]))) == [[2, 2], [400, 400]]


def test_the_padding_table_is_computed_as_it_says() -> None:
    """33 texts in batches of 32: what is padded over what is real, and 512 tokens for each batch."""
    rows = {str(row["policy"]): row for row in padding.table("by hand", [1] * 31 + [10, 10])}
    fifo = rows["FIFO 32 (MLServer, LitServe, Ray, BentoML)"]
    assert fifo["batches"] == 2
    assert fifo["ratio"] == (32 * 10 + 10) / (31 + 20)
    assert fifo["cost"] == 32 * 10 + 10 + 2 * 512
    # For so few tokens a second batch does not pay.
    assert rows[padding.OURS]["cost"] == 33 * 10 + 512


def test_the_padding_figures_in_git_are_those_of_the_code_and_reach_their_targets() -> None:
    """Else a change of the plan would leave them behind: `python -m benchmarks.padding` writes them anew."""
    kept = json.loads((RESULTS / "padding.json").read_text(encoding="utf-8"))["rows"]
    assert padding.report().as_json()["rows"] == kept
    reached = {row["lengths"]: round(row["ratio"], 2) for row in kept if row["policy"] == padding.OURS}
    assert all(reached[name] <= target for name, target in padding.TARGETS.items())


def test_contestants_take_turns() -> None:
    """A-B-A-B, and of each its median, lowest and highest."""
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return len(order)

    spreads = take_turns({"a": lambda: run("a"), "b": lambda: run("b")}, 3)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert spreads == {"a": Spread(3, 1, 5), "b": Spread(4, 2, 6)}


def test_a_report_is_a_table_json_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is aligned, the JSON can be read back and names the machine, and the plot is the same each time."""
    spread = Spread(1_234.5, 1_000, 1_500.25)
    report = Report(
        name="example",
        title="An example",
        settings={"rounds": 3},
        rows=[{"contestant": "ours", **spread.columns("requests/s")}],
        panels=[Panel("small", {"ours": spread}), Panel("large", {"ours": spread, "theirs": spread})],
        axis="requests/s",
    )
    report.show()
    assert capsys.readouterr().out.splitlines() == [
        "An example (rounds 3)",
        "contestant  requests/s  lowest  highest",
        "ours             1,234   1,000    1,500",
    ]
    report.write(tmp_path)
    found = json.loads((tmp_path / "example.json").read_text(encoding="utf-8"))
    assert found["rows"] == [{"contestant": "ours", "requests/s": 1_234.5, "lowest": 1_000, "highest": 1_500.25}]
    assert {"cpu", "cores", "torch", "transformers", "kafka-python"} <= set(found["machine"])
    plot = (tmp_path / "example.svg").read_bytes()
    assert "An example" in ET.fromstring(plot).itertext()  # noqa: S314 - our own
    report.write(tmp_path)
    assert (tmp_path / "example.svg").read_bytes() == plot


class Arrivals:
    """Records that come at given times, and a clock that goes on only where somebody waits for them."""

    class Record(NamedTuple):
        timestamp: int
        """Milliseconds, as Kafka's."""

    def __init__(self, *milliseconds: int) -> None:
        self._coming = [self.Record(moment) for moment in milliseconds]
        self.ms = 0.0

    def now(self) -> float:
        return self.ms / 1_000

    def poll(self, timeout_ms: int, most: int) -> list[Record]:
        if self._coming and self._coming[0].timestamp <= self.ms + timeout_ms:
            self.ms = max(self.ms, self._coming[0].timestamp)
        else:
            self.ms += timeout_ms
        ready = [record for record in self._coming[:most] if record.timestamp <= self.ms]
        del self._coming[: len(ready)]
        return ready


def test_a_fifo_batch_ends_when_it_is_full_or_its_linger_is_over() -> None:
    """Full at once where all is there; else 50 ms after the first request was sent, those that came meanwhile in it."""
    full = Arrivals(*[7] * 40)
    assert len(collect(full.poll, 32, 0.05, full.now)) == 32
    assert full.ms == 7
    few = Arrivals(100, 120, 149, 151)
    assert [record.timestamp for record in collect(few.poll, 32, 0.05, few.now)] == [100, 120, 149]
    assert few.ms == pytest.approx(150, abs=1)


def test_a_fifo_batch_does_not_linger_for_requests_that_have_waited() -> None:
    """They were sent while the batch before was computed: what is there is taken, in the time of a fetch."""
    late = Arrivals(100, 120, 200, 290, 320)
    late.ms = 300
    assert [record.timestamp for record in collect(late.poll, 32, 0.05, late.now)] == [100, 120, 200, 290]
    assert late.ms == pytest.approx(305, abs=1)


def test_arrivals_are_as_many_as_the_load_says_and_the_same_each_time() -> None:
    """Of Poisson arrivals the gaps differ as much as they are long."""
    due = arrivals(rate=100, seconds=50)
    assert due == arrivals(rate=100, seconds=50)
    assert (len(due), sorted(due)) == (5_000, due)
    assert all(0 <= moment <= 50 for moment in due)
    gaps = [after - before for before, after in itertools.pairwise(due)]
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.01)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.1)


def test_percentiles_are_those_of_the_values() -> None:
    """The middle of 101 values, and the one that 99 of 100 are not above."""
    assert percentiles([float(value) for value in range(100, -1, -1)]) == (50, 99)


def test_memory_is_told_when_so_many_are_answered() -> None:
    """The first sample at which a share is reached, and the most of all samples."""
    samples = [Sample(0, 50.0), Sample(9, 60.0), Sample(30, 65.0), Sample(80, 70.0), Sample(100, 62.0)]
    assert at_shares(samples, 100) == {
        "start": 50,
        "10% answered": 65,
        "25% answered": 65,
        "50% answered": 70,
        "75% answered": 70,
        "100% answered": 62,
        "most": 70,
    }


def test_resident_memory_is_what_psutil_says() -> None:
    """In MiB; it may move by a little between the two looks."""
    assert resident(os.getpid()) == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.05)
