"""Types of columns that were read as text, decided over all rows."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl

__all__ = ["typed"]

_HEAD = 1_000
_WHOLE = r"^-?\d+$"
_REAL = r"^[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf|NaN)$"
_COMMA = r"^[-+]?\d+,\d+$"
_THOUSANDS = r"^[-+]?\d{1,3},\d{3}$"
_CODE = r"^-?0\d"
_MANY_DIGITS = r"^[-+]?\d{16,}$"


def typed(
    frame: pl.DataFrame, ids: Collection[str] = (), *, decimal_comma: bool = False
) -> pl.DataFrame:
    """Whole numbers, numbers and truth values where every cell is one; the rest stays text.

    A column in which a cell begins with a zero and a digit holds codes, and one with more digits
    than a float keeps is not rounded: both stay text. Empty cells are null.

    Args:
        frame: columns of text.
        ids: columns that stay as they are.
        decimal_comma: numbers may be written as 4,5 where all of a column's are.
    """
    names = frame.columns
    for name in names:
        if name not in ids:
            column = _typed(frame[name])
            if decimal_comma and column.dtype == pl.String:
                column = _with_points(column)
            frame = frame.with_columns(column)
    return frame


def _with_points(column: pl.Series) -> pl.Series:
    """Numbers of a column in which all are written with a comma before their decimals."""
    values = column.drop_nulls()
    values = values.filter(values != "")
    written = not values.is_empty() and bool(values.str.contains(_COMMA).all())
    # 1,200 alone may be twelve hundred.
    if not written or bool(values.str.contains(_THOUSANDS).all()):
        return column
    plain = column.str.replace(",", ".", literal=True)
    return plain.cast(pl.Float64, strict=False)


def _typed(column: pl.Series) -> pl.Series:
    values = column.drop_nulls()
    head = values.head(_HEAD)
    head = head.filter(head != "")
    if head.is_empty():
        head = values = values.filter(values != "")
    if values.is_empty():
        return column
    if bool(head.str.to_lowercase().is_in(["true", "false"]).all()):
        lower = column.str.to_lowercase()
        meant = lower.replace_strict(
            {"true": True, "false": False}, default=None, return_dtype=pl.Boolean
        )
        return meant if _covers(meant, column) else column
    if not bool(head.str.contains(_REAL).all()) or _has_codes(values):
        return column
    if bool(head.str.contains(_WHOLE).all()):
        whole = column.cast(pl.Int64, strict=False)
        if _covers(whole, column):
            return whole
    real = column.cast(pl.Float64, strict=False)
    if _covers(real, column) and not bool(values.str.contains(_MANY_DIGITS).any()):
        return real
    return column


def _has_codes(values: pl.Series) -> bool:
    padded = values.filter(values.str.starts_with("0") | values.str.starts_with("-"))
    return bool(padded.str.contains(_CODE).any())


def _covers(meant: pl.Series, column: pl.Series) -> bool:
    """Whether every cell that is not empty has a value."""
    missing = meant.null_count()
    return missing == column.null_count() or missing == column.null_count() + int(
        (column == "").sum()
    )
