"""Labelled rows from a file, a folder or the hub, all read by ``datasets``; label_topic.py reads them from Kafka."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nlp_worker.training.examples import Row
from nlp_worker.training.problems import DataError, Kind, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: The builders of ``datasets`` for what a file's name ends with; it unpacks .gz, .bz2, .xz and .zst itself.
BUILDERS: Final[Mapping[str, str]] = {
    ".jsonl": "text",
    ".ndjson": "text",
    ".json": "text",
    ".csv": "text",
    ".tsv": "text",
    ".parquet": "parquet",
}
PACKED: Final = frozenset({".gz", ".bz2", ".xz", ".zst"})

#: What separates the fields of a line.
SEPARATORS: Final[Mapping[str, str]] = {".csv": ",", ".tsv": "\t"}

#: What the hub could have: other names are of folders that are not there, for which nobody is asked.
HUB_NAME: Final = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)

#: Rows that are taken from a data set at once: one by one would take most of the time.
BATCH: Final = 1_000

#: What is told of rows that cannot be read.
NO_UTF8: Final = "it is not UTF-8"
NO_OBJECT: Final = 'it is no JSON object: write {"text": ..., "label": ...}'

#: What `datasets` says where there is not one row, beside its SchemaInferenceError.
EMPTY: Final = ("corresponds to no data", "BatchSize must be greater")

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
    path = _path(source)
    return _is(path, Path.is_file) or _kind(path) in BUILDERS


def _path(source: str) -> Path:
    with contextlib.suppress(RuntimeError):  # there is no such user
        return Path(source).expanduser()
    return Path(source)


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # it may not be looked at, or no file could have so long a name
        return False


def _kind(path: Path) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    return suffixes[-1] if suffixes else ""


def read_file(source: str) -> Rows:
    """Read a file of JSON lines, CSV, TSV or Parquet.

    Rows are numbered from 1; of JSON lines the number is the line's.

    Raises:
        DataError: it cannot be read at all.
    """
    path = _path(source)
    if not _is(path, Path.is_file):
        raise DataError(f"{source}: there is no such file, or it may not be read")
    if (builder := BUILDERS.get(kind := _kind(path))) is None:
        raise DataError(f"{source}: a file's name must end with {', '.join(BUILDERS)}")
    options: dict[str, Any] = {"data_files": str(path)}
    if builder == "text":
        # Each line is parsed by itself: one that is wrong costs one row, and numbers and texts stay what they are. As
        # Latin-1 bytes stay what they are too, and those that are no UTF-8 have a row's number.
        options |= {"keep_linebreaks": True, "encoding": "latin-1"}
    found = _load(source, builder, split=TRAIN, **options)
    if builder != "text":
        return Rows(source, _numbered(found), _names(found.features))
    lines = (columns["text"] for columns in _columns(found))
    lines = (line.encode("latin-1").decode(errors="surrogateescape") for line in lines)
    lines = (line.removeprefix("\ufeff") if number == 0 else line for number, line in enumerate(lines))
    return Rows(source, _csv_rows(source, lines, SEPARATORS[kind]) if kind in SEPARATORS else _json_rows(list(lines)))


def read_dataset(source: str, split: str) -> Rows | None:
    """Read a split of a data set: NAME[/CONFIGURATION][@REVISION] of the hub, or a folder.

    Returns:
        None where it has no such split.

    Raises:
        DataError: it cannot be read at all.
    """
    import datasets  # noqa: PLC0415 - seconds, which reading a topic does without

    folder = _path(source)
    own = bool(source) and _is(folder, Path.is_dir)
    if own:
        candidates: list[tuple[str, str | None]] = [(str(folder), None)]
        revision, problem = "", f"{source} cannot be read"
    else:
        name, _, revision = source.partition("@")
        if not HUB_NAME.fullmatch(name):
            raise DataError(f"{source!r}: there is no such file or folder, and no data set of the hub has such a name")
        parts = name.split("/")
        # As the hub names it; and as the papers do: glue/mrpc is the configuration mrpc of glue.
        candidates = [("/".join(parts[:size]), "/".join(parts[size:]) or None) for size in (2, 1)]
        problem = f"{source}: it is no file, no folder, no topic NAME.labels, and as a data set of the hub"
    told = ""
    for path, configuration in dict.fromkeys(candidates):
        try:
            with _quiet():
                splits = datasets.get_dataset_split_names(path, configuration, revision=revision or None)
            if split not in splits:
                return None
            found = _load(source, path, name=configuration, split=split, revision=revision or None)
        except DataError:
            raise
        except Exception as error:  # noqa: BLE001 - one class for each of a dozen troubles
            told = told or _first_line((own and error.__cause__) or error)
            if isinstance(error, ConnectionError):
                break
        else:
            return Rows(f"{source} ({split})", _numbered(found), _names(found.features))
    raise DataError(f"{problem}: {told}")


def _load(source: str, builder: str, **options: Any) -> Any:
    import datasets  # noqa: PLC0415 - as above

    options = {name: value for name, value in options.items() if value is not None}
    # What the copy that `datasets` makes of a file would hold is nobody's to keep.
    own = "data_files" in options or Path(builder).is_dir()
    keep = tempfile.TemporaryDirectory() if own else contextlib.nullcontext(None)
    try:
        with keep as folder, _quiet():
            if "data_files" in options:
                # Not by the builder, which would read a packed text as UTF-8, whatever it is told.
                manager = datasets.DownloadManager(download_config=datasets.DownloadConfig(cache_dir=folder))
                options["data_files"] = manager.extract(options["data_files"])
            return datasets.load_dataset(builder, cache_dir=folder, keep_in_memory=folder is not None, **options)
    except Exception as error:
        if not own:
            raise
        # One class for each of a dozen formats' troubles, and the cause says which it was.
        cause = error.__cause__ or error
        empty = type(cause).__name__ == "SchemaInferenceError" or any(told in str(cause) for told in EMPTY)
        raise DataError(f"{source} cannot be read: {'it is empty' if empty else _first_line(cause)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Show no bars, and log nothing that an error tells too."""
    import datasets  # noqa: PLC0415 - as above

    shown, verbosity = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if shown:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _csv_rows(source: str, lines: Iterable[str], separator: str) -> list[Row | Problem]:
    """Read all as text, as it is written: 01 is no number, and NA is a text like others."""
    records = csv.reader(lines, delimiter=separator, strict=True)
    rows: list[Row | Problem] = []
    header: list[str] | None = None
    while True:
        place = f"row {len(rows) + 1}"
        try:
            fields = next(records, None)
        except csv.Error as error:
            if header is None:
                raise DataError(f"{source} cannot be read: its header: {error}") from None
            rows.append(Problem(Kind.UNREADABLE, place, f"{error}: see its quotation marks"))
            continue
        if fields is None:
            return rows
        if not fields:  # an empty line
            continue
        if header is None:
            header = _header(source, fields)
        elif not _is_utf8("".join(fields)):
            rows.append(Problem(Kind.UNREADABLE, place, NO_UTF8))
        elif len(fields) > len(header):
            told = f"it has {len(fields)} fields, and the header {len(header)}: see its quotation marks"
            rows.append(Problem(Kind.UNREADABLE, place, told))
        else:
            rows.append(Row(place, dict(itertools.zip_longest(header, fields))))


def _header(source: str, fields: list[str]) -> list[str]:
    if not _is_utf8("".join(fields)):
        raise DataError(f"{source} cannot be read: its header: {NO_UTF8}")
    if twice := next((name for name in fields if fields.count(name) > 1), None):
        raise DataError(f"{source} cannot be read: its header has {twice!r} twice")
    return fields


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # what could not be decoded
        return False
    return True


def _json_rows(lines: list[str]) -> list[Row | Problem]:
    """Read a line's object each, or one list of objects, whatever lines it stands on."""
    if next((line for line in lines if line.strip()), "").lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            objects = json.loads("".join(lines))
            return [_object(f"row {number}", columns) for number, columns in enumerate(objects, 1)]
    return [_json_row(f"row {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def _json_row(place: str, line: str) -> Row | Problem:
    if not _is_utf8(line):
        return Problem(Kind.UNREADABLE, place, NO_UTF8)
    try:
        columns = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Problem(Kind.UNREADABLE, place, not_json(error))
    return _object(place, columns)


def not_json(error: Exception) -> str:
    """Say why a text is no JSON, and not where in it: the same of many rows is told once."""
    return f"it is not JSON: {getattr(error, 'msg', error)}"


def _object(place: str, columns: Any) -> Row | Problem:
    return Row(place, columns) if isinstance(columns, dict) else Problem(Kind.UNREADABLE, place, NO_OBJECT)


def _numbered(found: Any) -> list[Row | Problem]:
    return [Row(f"row {number}", columns) for number, columns in enumerate(_columns(found), 1)]


def _columns(found: Any) -> Iterator[Mapping[str, Any]]:
    for table in found.with_format("arrow").iter(BATCH):
        yield from table.to_pylist()


def _names(features: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the labels that are numbers, as a data set's own features have them."""
    named = {column: getattr(getattr(kind, "feature", kind), "names", None) for column, kind in features.items()}
    return {column: list(names) for column, names in named.items() if names is not None}
