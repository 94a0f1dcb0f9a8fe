"""Labelled rows from a file, a folder or the hub, all read by ``datasets``; label_topic.py reads them from Kafka."""

from __future__ import annotations

import contextlib
import csv
import json
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_worker.training.examples import Row
from nlp_worker.training.problems import DataError, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: The builders of ``datasets`` for what a file's name ends with; it unpacks .gz, .bz2, .xz and .zst itself.
BUILDERS: Final[Mapping[str, str]] = {
    ".jsonl": "text",
    ".ndjson": "text",
    ".json": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst"})

#: Splits of a data set that is made for it.
TRAIN: Final = "train"
VALIDATION: Final = "validation"


class Rows(NamedTuple):
    """What was read."""

    name: str
    """Of the source."""
    rows: list[Row | Problem]
    names: Mapping[str, Sequence[str]] = MappingProxyType({})
    """By column, of labels that are numbers, where the source says them."""


def is_file(source: str) -> bool:
    """Whether a source is a file, or is meant to be one."""
    path = Path(source).expanduser()
    return path.is_file() or _kind(path) in BUILDERS


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    return suffixes[-1] if suffixes else ""


def read_file(source: str) -> Rows:
    """Read a file of JSON lines, CSV, TSV or Parquet.

    Rows are numbered from 1; of JSON lines the number is the line's.

    Raises:
        DataError: it cannot be read at all.
    """
    path = Path(source).expanduser()
    if not path.is_file():
        raise DataError(f"--data {source}: there is no such file")
    if (builder := BUILDERS.get(_kind(path))) is None:
        raise DataError(f"--data {source}: a file's name must end with {', '.join(BUILDERS)}")
    options: dict[str, Any] = {"data_files": str(path)}
    if builder == "text":
        # Each line is parsed by itself: one that is no JSON costs one row, and numbers and texts stay what they are.
        options |= {"keep_linebreaks": False, "encoding": "utf-8-sig", "encoding_errors": "surrogateescape"}
    elif builder == "csv":
        options |= _csv_options(path, source)
    found = _load(source, builder, split=TRAIN, **options)
    if builder == "text":
        return Rows(source, [_json_row(number, line) for number, line in enumerate(found["text"], 1) if line.strip()])
    return Rows(source, _numbered(found), _names(found.features))


def read_dataset(source: str, split: str) -> Rows | None:
    """Read a split of a data set: NAME[/CONFIGURATION][@REVISION] of the hub, or a folder.

    Returns:
        None where it has no such split.

    Raises:
        DataError: it cannot be read at all.
    """
    import datasets  # noqa: PLC0415 - seconds, which reading a topic does without

    name, _, revision = source.partition("@") if not Path(source).is_dir() else (source, "", "")
    parts = name.split("/")
    # As the hub names it; and as the papers do: glue/mrpc is the configuration mrpc of glue.
    candidates = [(name, None)] if Path(source).is_dir() else [
        ("/".join(parts[:size]), "/".join(parts[size:]) or None) for size in (2, 1) if size <= len(parts)
    ]  # fmt: skip
    told = ""
    for path, configuration in dict.fromkeys(candidates):
        try:
            splits = datasets.get_dataset_split_names(path, configuration, revision=revision or None)
            if split not in splits:
                return None
            found = _load(source, path, name=configuration, split=split, revision=revision or None)
        except (OSError, ValueError) as error:
            told = told or _first_line(error)
            if isinstance(error, ConnectionError):
                break
        else:
            return Rows(f"{source} ({split})", _numbered(found), _names(found.features))
    raise DataError(f"--data {source}: it is no file, no topic NAME.labels, and as a data set of the hub: {told}")


def _load(source: str, builder: str, **options: Any) -> Any:
    import datasets  # noqa: PLC0415 - as above

    options = {name: value for name, value in options.items() if value is not None}
    # What the copy that `datasets` makes of a file would hold is nobody's to keep.
    keep = contextlib.nullcontext(None) if "data_files" not in options else tempfile.TemporaryDirectory()
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        with keep as folder:
            return datasets.load_dataset(builder, cache_dir=folder, keep_in_memory=folder is not None, **options)
    except Exception as error:
        if "data_files" not in options:
            raise
        # One class for each of a dozen formats' troubles, and the cause says which it was.
        raise DataError(f"--data {source} cannot be read: {_first_line(error.__cause__ or error)}") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _csv_options(path: Path, source: str) -> dict[str, Any]:
    """Read all as text, as it is written: 01 is no number, and NA is a text like others."""
    import datasets  # noqa: PLC0415 - as above
    import fsspec  # noqa: PLC0415 - as above

    separator = "\t" if ".tsv" in path.suffixes else ","
    options: dict[str, Any] = {"sep": separator, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        with fsspec.open(str(path), "rt", compression="infer", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=separator), [])
    except UnicodeDecodeError as error:
        raise DataError(f"--data {source}: it is not UTF-8: {error.reason} at byte {error.start}") from None
    return {**options, "features": datasets.Features({name: datasets.Value("string") for name in header})}


def _json_row(number: int, line: str) -> Row | Problem:
    place = f"row {number}"
    try:
        line.encode()
        columns = json.loads(line)
    except UnicodeEncodeError:
        return Problem(Kind.UNREADABLE, place, "it is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Problem(Kind.UNREADABLE, place, f"it is not JSON: {error}")
    if not isinstance(columns, dict):
        return Problem(Kind.UNREADABLE, place, "it is no JSON object")
    return Row(place, columns)


def _numbered(found: Any) -> list[Row | Problem]:
    return [Row(f"row {number}", columns) for number, columns in enumerate(_columns(found), 1)]


def _columns(found: Any) -> Iterator[Mapping[str, Any]]:
    yield from found.with_format(None)


def _names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the labels that are numbers, as a data set's own features have them."""
    named = {column: getattr(getattr(kind, "feature", kind), "names", None) for column, kind in features.items()}
    return {column: list(names) for column, names in named.items() if names is not None}
