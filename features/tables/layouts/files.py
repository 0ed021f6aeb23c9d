"""Files of a layout: which one it is, and their plain rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path

import polars as pl

from features.tables.layouts.layout import ITEM, ORDER, REQUEST, USER, FoundLayout, Unfolding
from features.tables.layouts.properties import DescribedItems, find_properties, unfold_properties
from features.tables.layouts.refused import refuse_lines
from features.tables.layouts.sequences import find_sequences
from features.tables.layouts.unfolding import detect_layout, unfold
from features.tables.reading import Reading, ReadOptions, find_options, read_table, typed
from features.tables.reading.files import expand, open_text
from features.tables.reading.remote import File, location
from features.tables.reading.rows import csv_rows

__all__ = ["find_item_layout", "find_layout", "read_described", "read_rows"]

_LINES = ReadOptions(format="delimited", separator="\x1f", quote="", header=False)
_LOOKED_AT = 200
_IDS = (USER, ITEM, ORDER, REQUEST)


def find_layout(
    path: Path | str, options: ReadOptions | None = None, *, orders: Path | str | None = None
) -> FoundLayout | None:
    """The layout of a log's file; None: a row is an event.

    Args:
        path: as `read_table` takes it.
        options: how it is written; None: found.
        orders: the file that says whose an order is.

    Raises:
        DataError: it cannot be read, is of a layout that is not read, or its orders are missing.
        FileNotFoundError: there is no such file.
    """
    found = find_options(path) if options is None else options
    if found.format in (None, "delimited"):
        lines = _first_lines(path, found)
        refuse_lines(str(path), lines)
        sequences = find_sequences(lines)
        if sequences is not None:
            return sequences
    frame = read_table(path, options, ids=None).frame
    others = None if orders is None else read_table(orders, ids=None).frame
    layout = detect_layout(frame, orders=others, source=str(path))
    if layout is None or orders is None:
        return layout
    return replace(layout, unfolding=replace(layout.unfolding, orders=orders))


def find_item_layout(path: Path | str, options: ReadOptions | None = None) -> FoundLayout | None:
    """The layout of a file of items: "properties", or None where a row is an item."""
    return find_properties(read_table(path, options, ids=None).frame)


def _first_lines(path: Path | str, found: ReadOptions) -> list[str]:
    """Whole lines from the beginning of the first file."""
    with open_text(expand(location(path))[0], found) as text:
        return [line.rstrip("\r\n") for line in islice(text, _LOOKED_AT)]


def read_rows(
    path: Path | str,
    options: ReadOptions | None = None,
    unfolding: Unfolding | None = None,
    *,
    ids: Collection[str] = (),
) -> Reading:
    """Read a log's file and unfold it.

    Args:
        path: as `read_table` takes it.
        options: how it is written; None: found.
        unfolding: its layout; None: a row is an event.
        ids: columns of the plain rows that stay text as it is written.

    Raises:
        DataError: it cannot be read, or a row is not of the layout; the message names the line.
        FileNotFoundError: there is no such file.
    """
    if unfolding is None or unfolding.layout == "rows":
        return read_table(path, options, ids=ids)
    options = options or ReadOptions()
    if unfolding.layout == "sequences":
        options = replace(_LINES, encoding=options.encoding, compression=options.compression)
    reading = read_table(path, options, ids=None)
    orders = unfolding.orders
    if isinstance(orders, Path | str):
        orders = read_table(orders, unfolding.read_orders, ids=None).frame

    def place(row: int) -> str:
        return _place(path, reading.found, row)

    rows = unfold(reading.frame, unfolding, source=str(path), place=place, orders=orders)
    if reading.found.format == "delimited":
        rows = _typed_text(rows, ids)
    return replace(reading, frame=rows)


def read_described(
    path: Path | str,
    options: ReadOptions | None,
    unfolding: Unfolding,
    *,
    cut: datetime | None = None,
    end: datetime | None = None,
) -> tuple[DescribedItems, Reading]:
    """Read properties over time as they were known at a moment; see `unfold_properties`."""
    reading = read_table(path, options, ids=None)
    found = unfold_properties(reading.frame, unfolding, source=str(path), cut=cut, end=end)
    return found, reading


def _typed_text(rows: pl.DataFrame, ids: Collection[str]) -> pl.DataFrame:
    """Types of what was text; columns that have a type already keep it."""
    texts = [name for name, kind in rows.schema.items() if kind == pl.String]
    return rows.with_columns(typed(rows.select(texts), {*ids, *_IDS})) if texts else rows


def _place(path: Path | str, found: ReadOptions, row: int) -> str:
    """The line that a row of the reading stands in; rows of other formats are counted from 1."""
    if found.format != "delimited":
        return f"row {row + 1}"
    files = expand(location(path))
    for file in files:
        lines = _lines(file, found)
        begin = next(islice(lines, row, None), None) if row >= 0 else None
        if begin is not None:
            return f"line {begin}" if len(files) == 1 else f"{file}, line {begin}"
        row -= sum(1 for _ in _lines(file, found))
    return f"row {row + 1}"


def _lines(file: File, found: ReadOptions) -> Iterator[int]:
    """Where the rows begin that the reader keeps."""
    with open_text(file, found) as text:
        width = None
        for begin, _, row in csv_rows(text, str(found.separator), found.quote or ""):
            if isinstance(row, str):
                continue
            if width is None:
                width = len(row)
                if found.header:
                    continue
            if len(row) == width and any(row):
                yield begin + (found.skip_lines or 0)
