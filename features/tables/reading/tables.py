"""One table of whatever a path names."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from features.errors import DataError
from features.tables.reading.column_types import typed
from features.tables.reading.delimited import Dropped, read_delimited
from features.tables.reading.files import expand
from features.tables.reading.json_rows import read_json
from features.tables.reading.leftovers import (
    without_marks,
    without_padding,
    without_repeated_header,
    without_row_numbers,
)
from features.tables.reading.options import ReadOptions
from features.tables.reading.places import Places
from features.tables.reading.remote import File, RemoteFile, location
from features.tables.reading.sniffing import found_options

__all__ = ["Reading", "damaged_parquet", "find_options", "read_frame", "read_table"]

_TYPED_NAME = re.compile(r"(.+):(token|token_seq|float|float_seq)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Reading:
    """A table and how it was read.

    Attributes:
        frame: its rows.
        found: what was said, and for the rest what was found.
        places: where its rows stand in the files.
        dropped: what was left out of each file: bad rows where these are dropped, and headers that
            stand there once more.
    """

    frame: pl.DataFrame
    found: ReadOptions
    places: Places
    dropped: tuple[Dropped, ...] = ()


def read_frame(
    path: Path | str, options: ReadOptions | None = None, *, ids: Collection[str] | None = ()
) -> pl.DataFrame:
    """The rows of `read_table`."""
    return read_table(path, options, ids=ids).frame


def find_options(path: Path | str) -> ReadOptions:
    """How a table is written; errors as of `read_table`."""
    return found_options(expand(location(path))[0], ReadOptions())


def read_table(
    path: Path | str, options: ReadOptions | None = None, *, ids: Collection[str] | None = ()
) -> Reading:
    """Read a file, all files below a directory, or those that match a pattern, in their order.

    Directories called ``name=value`` give a column, as Hive has it. Headers of RecBole
    (``user_id:token``) name columns and say their types.

    Args:
        path: of Parquet, delimited text or JSON, as it is or compressed by gzip or zstd; or a URL
            of such, as fsspec takes it.
        options: how it is written; None: found.
        ids: columns of text files that stay text as it is written, whatever it looks like. None:
            all of them.

    Raises:
        DataError: a file cannot be read as what it is; the message names file, line and remedy.
        FileNotFoundError: there is no such file.
    """
    place = location(path)
    files = expand(place)
    files = [file for file in files if not _is_empty(file)] or files[:1]
    found = found_options(files[0], options or ReadOptions())
    parts: list[pl.DataFrame] = []
    dropped: list[Dropped] = []
    for file in files:
        part, left_out = _read_file(file, found, ids)
        if isinstance(file, RemoteFile):
            file.forget()
        free = found.format in ("json_lines", "json_array")
        if parts and part.columns != parts[0].columns and not free:
            raise DataError(
                f"{file}: must have the columns of {files[0]}, {', '.join(parts[0].columns)}, got "
                f"{', '.join(part.columns)}; read files of one form together"
            )
        parts.append(part)
        dropped += left_out
    if found.format != "parquet" and all(part.is_empty() for part in parts):
        what = "a header alone" if found.header else "none that can be read"
        raise DataError(f"{place}: must hold rows, got {what}; check how it was written")
    heights = zip(files, (part.height for part in parts), strict=True)
    places = Places(tuple(heights), found)
    return Reading(_joined(place, files, parts, found, ids), found, places, tuple(dropped))


def _is_empty(file: File) -> bool:
    return isinstance(file, Path) and file.stat().st_size == 0


def _read_file(
    file: File, found: ReadOptions, ids: Collection[str] | None
) -> tuple[pl.DataFrame, list[Dropped]]:
    try:
        if found.format == "delimited":
            frame, bad = read_delimited(file, found)
            once = without_repeated_header(frame) if found.header else frame
            again = frame.height - once.height
            headers = [Dropped(file, again, None)] if again else []
            return once, [*([] if bad is None else [bad]), *headers]
        if found.format != "parquet":
            frame, bad = read_json(file, found, ids or ())
            return frame, [] if bad is None else [bad]
        source = file if isinstance(file, Path) else file.open("rb")
        return pl.read_parquet(source, glob=False, hive_partitioning=False), []
    except PermissionError:
        raise DataError(f"{file}: must be readable, got no permission; change its mode") from None
    except pl.exceptions.PolarsError as error:
        raise damaged_parquet(file, error) from None


def damaged_parquet(file: File, error: Exception) -> DataError:
    """What is told of a Parquet file that Polars cannot read."""
    told = str(error).split("\n", 1)[0]
    return DataError(f"{file}: must be a whole Parquet file, got: {told}; write or copy it again")


def _joined(
    path: File,
    files: list[File],
    parts: list[pl.DataFrame],
    found: ReadOptions,
    ids: Collection[str] | None,
) -> pl.DataFrame:
    """The rows of all files, with what their directories say, and with types."""
    text = found.format == "delimited"
    own = parts[0].columns
    said = [_partition(file, path) for file in files]
    keys = [key for key in said[0] if key not in own]
    parts = [
        part.with_columns(pl.lit(values.get(key), pl.String).alias(key) for key in keys)
        for part, values in zip(parts, said, strict=True)
    ]
    try:
        frame = pl.concat(parts, how="vertical" if text else "diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        told = str(error).split("\n", 1)[0]
        raise DataError(
            f"{path}: files must have columns of one type, got: {told}; read files of one form "
            "together"
        ) from None
    frame = without_row_numbers(frame)
    frame = without_marks(without_padding(frame) if text else frame, found.missing)
    if not text:
        return frame.with_columns(typed(frame.select(keys), ids or ())) if keys else frame
    heads = [_TYPED_NAME.fullmatch(name) for name in own if name]
    if not all(heads):
        comma = found.separator != ","
        return frame if ids is None else typed(frame, ids, decimal_comma=comma)
    try:
        return _of_recbole(frame, {one[0]: (one[1], one[2]) for one in heads if one is not None})
    except pl.exceptions.PolarsError as error:
        told = str(error).split("\n", 1)[0]
        raise DataError(
            f"{path}: columns that the header calls float must hold numbers, got: {told}; repair "
            "them, or call the column token"
        ) from None


def _partition(file: File, path: File) -> dict[str, str | None]:
    """Column -> value of the directories between a path and one of its files."""
    directories: tuple[str, ...]
    if isinstance(file, RemoteFile) or isinstance(path, RemoteFile):
        directories = file.directories if isinstance(file, RemoteFile) and file != path else ()
    elif path.is_file():
        return {}
    else:
        fixed = takewhile(lambda part: not any(mark in part for mark in "*?["), path.parts)
        directories = file.parent.relative_to(Path(*fixed)).parts
    pairs = [part.split("=", 1) for part in directories if "=" in part]
    return {name: None if value == _NO_VALUE else unquote(value) for name, value in pairs}


def _of_recbole(frame: pl.DataFrame, heads: dict[str, tuple[str, str]]) -> pl.DataFrame:
    """Columns called and typed as the header says."""
    columns = []
    for head, (name, kind) in heads.items():
        column = pl.col(head)
        if kind.endswith("_seq"):
            column = column.str.split(" ")
        if kind == "float":
            column = column.cast(pl.Float64)
        elif kind == "float_seq":
            column = column.cast(pl.List(pl.Float64))
        columns.append(column.alias(name))
    return frame.select(*columns, pl.exclude(list(heads)))
