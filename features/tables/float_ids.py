"""Ids that a table keeps as floats, as pandas does where one is missing."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

__all__ = ["with_whole_ids"]

_EXACT: dict[pl.DataType, int] = {pl.Float32(): 2**24, pl.Float64(): 2**53}
"""Whole numbers up to here have floats of their own: none has lost digits."""


def with_whole_ids(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """The frame with whole numbers where an id column holds floats that are all whole.

    NaN is no id. A column with a fraction, or a number that may have lost digits, stays as it is.

    Args:
        frame: a raw table.
        names: of id columns, there or not.
    """
    for name in names:
        most = _EXACT.get(frame.schema.get(name, pl.String()))
        if most is None:
            continue
        values = frame[name].fill_nan(None)
        known = values.drop_nulls()
        if bool(((known == known.floor()) & (known.abs() <= most)).all()):
            frame = frame.with_columns(values.cast(pl.Int64).alias(name))
    return frame
