"""What was found about a column's role, with the evidence."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from features.tables.reading.leftovers import MARKS

__all__ = ["Found", "cells", "is_whole", "percent", "shown"]


@dataclass(frozen=True)
class Found:
    """A column that plays a role.

    Attributes:
        column: which.
        reason: why, as a sentence with numbers.
        others: columns that could play it as well, and why.
    """

    column: str
    reason: str
    others: tuple[tuple[str, str], ...] = ()


def percent(share: float) -> str:
    """A share for people; what is not all is never shown as all, and what is not none not as none.

    >>> percent(1.0), percent(0.9999), percent(0.25), percent(0.0001)
    ('100 %', '99.9 %', '25 %', '0.01 %')
    """
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    number = 100 * share
    digits = 0 if 1 <= number <= 99 else 1 if number > 99 else 2
    text = f"{min(number, 99.9):.{digits}f}" if number >= 0.01 else "less than 0.01"
    return f"{text} %"


def shown(value: object, width: int = 40) -> str:
    """A value in a message."""
    text = repr(value)
    return text if len(text) <= width else f"{text[:width]}..."


def is_whole(column: pl.Series) -> bool:
    """Whether a column holds whole numbers alone, if in a float."""
    if column.dtype.is_integer():
        return True
    if not column.dtype.is_float():
        return False
    values = column.drop_nulls()
    values = values.filter(values.is_finite())
    return not values.is_empty() and bool((values == values.round()).all())


def cells(column: pl.Series) -> pl.Series:
    """A column as text, null where a mark says that there is no value."""
    if column.dtype.is_float() and is_whole(column):
        column = column.cast(pl.Int64, strict=False)
    text = column.cast(pl.String)
    if column.dtype != pl.String:
        return text
    return text.set(text.is_in(pl.Series(MARKS).implode()).fill_null(False), None)
