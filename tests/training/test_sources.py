"""Files of every format give the same rows; what cannot be read at all is told in a line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pytest

from nlp_schemas import TaskName
from nlp_worker.settings import load_settings
from nlp_worker.training import labelled_set, sources
from nlp_worker.training.examples import Row
from nlp_worker.training.problems import DataError, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASK = TaskName.TEXT_CLASSIFICATION

ROWS = [
    {"id": "1", "text": 'grün, "quoted"\tand\u2028more', "label": "good"},
    {"id": "2", "text": "two\nlines", "label": "01"},
    {"id": "3", "text": "NA", "label": "null"},
]


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_table(rows: list[dict[str, Any]], separator: str) -> str:
    def quoted(value: object) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [separator.join(rows[0]), *(separator.join(map(quoted, row.values())) for row in rows)]
    return "\r\n".join(lines)


def parquet(rows: list[dict[str, Any]], file: Path) -> Path:
    datasets.Dataset.from_list(rows).to_parquet(file)
    return file


@pytest.fixture(autouse=True)
def no_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def columns(source: Path | str) -> list[Any]:
    """Return what was read of each row, all of which can be."""
    rows = sources.read_file(str(source)).rows
    assert [row.place for row in rows] == [f"row {number}" for number in range(1, len(rows) + 1)]
    return [row.columns for row in rows if isinstance(row, Row)]


FORMATS: list[tuple[str, str]] = [
    (".jsonl", as_lines(ROWS)),
    (".ndjson", as_lines(ROWS).replace("\n", "\r\n")),
    (".json", as_lines(ROWS)),
    (".json", json.dumps(ROWS)),
    (".json", json.dumps(ROWS, indent=2)),
    (".csv", as_table(ROWS, ",")),
    (".tsv", as_table(ROWS, "\t") + "\n\n"),
]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(("suffix", "text"), FORMATS)
def test_every_format_gives_the_same_rows(suffix: str, text: str, mark: bytes, tmp_path: Path) -> None:
    """With and without Excel's byte order mark; of CSV all is text, as it is written."""
    file = tmp_path / f"rows.old{suffix}"
    file.write_bytes(mark + text.encode())
    assert columns(file) == ROWS


@pytest.mark.parametrize(("packed", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize(("suffix", "text"), [FORMATS[0], FORMATS[5]])
def test_a_packed_file_is_unpacked(
    suffix: str, text: str, packed: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """And no copy of what somebody's texts say stays behind."""
    file = tmp_path / f"rows{suffix}{packed}"
    file.write_bytes(pack(text.encode()))
    assert columns(file) == ROWS


def test_parquet_has_types_and_parts(tmp_path: Path) -> None:
    """Nothing becomes a text on the way; what a column has inside stays there, and so does what is not there."""
    rows = [{"id": 1, "text": {"de": ["Tag"]}, "label": 0}, {"id": 2, "text": {"de": []}, "label": None}]
    assert columns(parquet(rows, tmp_path / "rows.parquet")) == rows


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv.gz", "rows.parquet"])
def test_nothing_is_left_of_a_copy(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` makes one, unpacked, whose texts are nobody's to keep."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    before = set(cache.rglob("*"))
    file = tmp_path / name
    if name.endswith(".parquet"):
        parquet(ROWS, file)
    else:
        file.write_bytes(as_lines(ROWS).encode() if "json" in name else gzip.compress(as_table(ROWS, ",").encode()))
    assert columns(file) == ROWS
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not {path for path in set(cache.rglob("*")) - before if path.suffix != ".lock"}


def test_bad_lines_cost_their_rows_alone(tmp_path: Path) -> None:
    """With the line's number each; an empty line is none."""
    lines = [
        b'{"text": "a"}',
        b"",
        b"{",
        b'{"text": "gr\xfcn"}',
        b"[1]",
        b"5",
        b"[" * 100_000,
        b'{"text": ' + b"1" * 5_000 + b"}",
        b'{"text": NaN, "text": "last"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    found = sources.read_file(str(tmp_path / "rows.jsonl")).rows
    assert [row.place for row in found] == [f"row {number}" for number in (1, 3, 4, 5, 6, 7, 8, 9)]
    assert [row.columns for row in found if isinstance(row, Row)] == [{"text": "a"}, {"text": "last"}]
    told = [row.told for row in found if isinstance(row, Problem)]
    assert (
        told[:4]
        == ["it is not JSON: Expecting property name enclosed in double quotes", "it is not UTF-8"]
        + ['it is no JSON object: write {"text": ..., "label": ...}'] * 2
    )
    assert told[4].startswith("it is not JSON: maximum recursion depth")
    assert told[5].startswith("it is not JSON: Exceeds the limit")


def test_bad_rows_of_csv_cost_themselves_alone(tmp_path: Path) -> None:
    """A comma without quotation marks would shift the columns of its row, or of all: pandas shifts them in silence."""
    rows = [b"text,label", b"a,good,bad", b"b", b'"c"d,good', b"gr\xfcn,good", b'"two\nlines",good', b'"never closed,x']
    (tmp_path / "rows.csv").write_bytes(b"\n".join(rows))
    found = sources.read_file(str(tmp_path / "rows.csv")).rows
    assert [row.place for row in found] == [f"row {number}" for number in range(1, 7)]
    assert {row.place: row.columns for row in found if isinstance(row, Row)} == {
        "row 2": {"text": "b", "label": None},
        "row 5": {"text": "two\nlines", "label": "good"},
    }
    assert {row.place: row.told for row in found if isinstance(row, Problem)} == {
        "row 1": "it has 3 fields, and the header 2: see its quotation marks",
        "row 3": "',' expected after '\"': see its quotation marks",
        "row 4": "it is not UTF-8",
        "row 6": "unexpected end of data: see its quotation marks",
    }


def test_columns_are_not_shifted_where_every_row_has_a_field_more(tmp_path: Path) -> None:
    """An index without a name in the header, as R writes it: what stands in the first column is not thrown away."""
    (tmp_path / "rows.csv").write_text("text,label\n1,a day,good\n2,a night,bad\n", encoding="utf-8")
    found = sources.read_file(str(tmp_path / "rows.csv")).rows
    assert [row.kind for row in found if isinstance(row, Problem)] == [Kind.UNREADABLE] * 2


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("rows.jsonl", b"", "cannot be read: it is empty"),
        ("rows.csv", b"", "cannot be read: it is empty"),
        ("rows.csv.gz", gzip.compress(b""), "cannot be read: it is empty"),
        ("rows.parquet", b"", "cannot be read: Parquet file size is 0 bytes"),
        ("rows.parquet", b"text,label\n", "cannot be read: Parquet magic bytes not found in footer"),
        ("rows.csv", b"text,label,text\n", "cannot be read: its header has 'text' twice"),
        ("rows.csv", "grün\n".encode("latin-1"), "cannot be read: its header: it is not UTF-8"),
        ("rows.csv", "text,label".encode("utf-16"), "cannot be read: its header: it is not UTF-8"),
        ("rows.csv", b"x" * 200_000, "cannot be read: its header: field larger than field limit"),
        ("rows.jsonl.gz", gzip.compress(os.urandom(999))[:500], "cannot be read: Compressed file ended before the end"),
        ("rows.txt", b"a day", ": a file's name must end with .jsonl, .ndjson, .json, .csv, .tsv, .parquet"),
        ("rows", b"a day", ": a file's name must end with .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(
    name: str, content: bytes, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line with its name, and nothing else is printed by what reads it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        labelled_set.read(load_settings({}), str(tmp_path / name), TASK, columns={}, labels=())
    assert str(caught.value).startswith(str(tmp_path / name))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_parquet_without_a_row_is_empty(tmp_path: Path) -> None:
    """It has columns all the same."""
    file = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([{"text": "a day"}]).select([]).to_parquet(file)
    with pytest.raises(DataError, match="it is empty"):
        columns(file)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("none.jsonl", "none.jsonl: there is no such file, or it may not be read"),
        ("~nobody-here/none.csv", "there is no such file"),
        ("x" * 5_000 + ".csv", "there is no such file"),
        ("x" * 5_000 + "/", "there is no such file or folder"),
        ("./none", "'./none': there is no such file or folder, and no data set of the hub has such a name"),
        ("none/", "there is no such file or folder"),
        ("/none/here", "there is no such file or folder"),
        ("a b", "there is no such file or folder"),
        ("a\0b", "there is no such file or folder"),
        ("", "'': there is no such file or folder"),
    ],
)
def test_a_name_of_nothing_is_told_without_asking_the_hub(
    source: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would take half a minute where none can be reached."""
    monkeypatch.setattr(datasets, "get_dataset_split_names", None)
    with pytest.raises(DataError) as caught:
        labelled_set.read(load_settings({}), source, TASK, columns={}, labels=())
    assert told in str(caught.value)
