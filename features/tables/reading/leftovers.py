"""What programs leave in files beside data: marks of no value, repeated headers, row numbers."""

from __future__ import annotations

import re
from collections.abc import Collection

import polars as pl

__all__ = [
    "MARKS",
    "without_marks",
    "without_padding",
    "without_repeated_header",
    "without_row_numbers",
]

MARKS = (
    "",
    "\\N",
    "NA",
    "N/A",
    "#N/A",
    "NULL",
    "null",
    "None",
    "none",
    "nan",
    "NaN",
    "NaT",
    "<NA>",
)
"""Texts by which databases and programs say that a value is missing."""

_NUMBERED = re.compile(r"|Unnamed: \d+(_level_\d+)?|__index_level_\d+__")


def without_marks(frame: pl.DataFrame, marks: Collection[str]) -> pl.DataFrame:
    """The same with null in place of each text that means no value."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    if not marks or not texts:
        return frame
    wanted = pl.Series(sorted(set(marks))).implode()
    cell = pl.col(texts)
    return frame.with_columns(pl.when(cell.is_in(wanted).not_()).then(cell))


def without_repeated_header(frame: pl.DataFrame) -> pl.DataFrame:
    """Without rows in which every cell is its column's name, as joined exports have them."""
    names = [name for name in frame.columns if name]
    if len(names) < 2 or any(frame.schema[name] != pl.String for name in names):
        return frame
    again = frame[names[0]] == names[0]
    if not again.any():
        return frame
    repeated = pl.all_horizontal(pl.col(name) == name for name in names)
    return frame.filter(repeated.fill_null(False).not_())


def without_row_numbers(frame: pl.DataFrame) -> pl.DataFrame:
    """Without columns of row numbers that pandas and R write with no name or one of their own."""
    gone = [
        name
        for name in frame.columns
        if _NUMBERED.fullmatch(name) and (not name or _counts(frame[name]))
    ]
    return frame.drop(gone) if len(gone) < frame.width else frame


def _counts(column: pl.Series) -> bool:
    """Whether each value is one more than that before it; in each of several files anew."""
    if not (column.dtype == pl.String or column.dtype.is_integer()):
        return False
    numbers = column.cast(pl.Int64, strict=False)
    steps = numbers.diff().drop_nulls()
    return numbers.null_count() == 0 and bool(((steps == 1) | (numbers[1:] <= 1)).all())


def without_padding(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the blanks that a program puts behind separators.

    They are told by the header: a name begins with one, and so does every cell below it.

    Args:
        frame: columns of text.
    """
    plain = [name.strip() for name in frame.columns]
    if plain == frame.columns or len(set(plain)) < len(plain):
        return frame
    padded = [
        name
        for name in frame.columns
        if name.startswith(" ") and bool(frame[name].drop_nulls().str.starts_with(" ").all())
    ]
    if padded:
        frame = frame.with_columns(pl.col(padded).str.strip_chars(" "))
    return frame.rename(dict(zip(frame.columns, plain, strict=True)))
