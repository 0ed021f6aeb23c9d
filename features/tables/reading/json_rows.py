"""Rows of JSON: an object a line, or an array of objects; nested ones by dotted names."""

from __future__ import annotations

import io
import json
from collections.abc import Collection

import polars as pl

from features.errors import DataError
from features.tables.reading.delimited import Dropped
from features.tables.reading.files import as_utf8
from features.tables.reading.options import ReadOptions
from features.tables.reading.remote import File

__all__ = ["read_json"]

_SHOWN = 60


def read_json(
    path: File, found: ReadOptions, ids: Collection[str] = ()
) -> tuple[pl.DataFrame, Dropped | None]:
    """Every object of one file.

    Args:
        path: the file.
        found: with nothing left to find.
        ids: columns that become text.

    Raises:
        DataError: a row cannot be read and ``bad_rows`` is "refuse".
    """
    try:
        text = as_utf8(path, found).getvalue()
    except UnicodeError as error:
        raise DataError(
            f"{path}: must be {found.encoding} text, got other bytes ({error}); set encoding in "
            "[data.read]"
        ) from None
    dropped = None
    try:
        if found.format == "json_array":
            frame = _array(path, text)
        else:
            frame = pl.read_ndjson(io.BytesIO(text), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        if found.format == "json_array":
            raise _of_several_kinds(path, error) from None
        text, dropped = _objects(path, text, found)
        try:
            frame = pl.read_ndjson(io.BytesIO(text), infer_schema_length=None)
        except pl.exceptions.PolarsError as again:
            raise _of_several_kinds(path, again) from None
    frame = _flat(frame)
    whole = [name for name in ids if name in frame.columns and frame.schema[name].is_integer()]
    return frame.with_columns(pl.col(whole).cast(pl.String)), dropped


def _of_several_kinds(path: File, error: Exception) -> DataError:
    told = str(error).split("\n", 1)[0]
    return DataError(
        f"{path}: all objects must have values of one kind under one name, got: {told}; repair them"
    )


def _array(path: File, text: bytes) -> pl.DataFrame:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {error.lineno} must be JSON, got: {error.msg} (column {error.colno}); "
            "repair it"
        ) from None
    other = next((n for n, row in enumerate(rows) if not isinstance(row, dict)), None)
    if other is not None:
        raise DataError(
            f"{path}: the array must hold objects, got {_shown(json.dumps(rows[other]))} as element"
            f" {other}; write one object for each row"
        )
    return pl.read_json(io.BytesIO(text), infer_schema_length=None)


def _objects(path: File, text: bytes, found: ReadOptions) -> tuple[bytes, Dropped | None]:
    """The lines that are objects, by a reader that knows lines."""
    kept, bad, first = [], 0, ""
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            fault = "" if isinstance(json.loads(line), dict) else "is no object"
        except ValueError as error:
            fault = f"is no JSON ({error})"
        if not fault:
            kept.append(line)
            continue
        told = f"line {number} {fault}: {_shown(line.decode(errors='replace'))}"
        if found.bad_rows == "refuse":
            raise DataError(f"{path}: {told}; repair it, or set bad_rows = 'drop' in [data.read]")
        bad, first = bad + 1, first or told
    return b"\n".join(kept), Dropped(path, bad, first) if bad else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Objects within objects as columns of their own: ``{"a": {"b": 1}}`` has ``a.b``."""
    while nested := [name for name, kind in frame.schema.items() if isinstance(kind, pl.Struct)]:
        columns = []
        for name in frame.columns:
            if name not in nested:
                columns.append(pl.col(name))
                continue
            fields = frame[name].struct.fields
            columns += [pl.col(name).struct.field(one).alias(f"{name}.{one}") for one in fields]
        frame = frame.select(columns)
    return frame
