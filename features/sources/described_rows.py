"""One row an id out of a view's history: how items and users are described at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from features.errors import DataError
from features.moments import utc
from features.sources.protocol import FeatureSource
from features.tables.schema import CREATED, TIMESTAMP

__all__ = ["DescribedRows", "described_rows"]

_UNTOLD = (pl.Object, pl.Binary, pl.Struct)


class DescribedRows(NamedTuple):
    """One row an id.

    Attributes:
        frame: the id, then the view's columns; sorted by id. Maps, structs and bytes are left out.
        changing: columns of numbers, truth values and text that were not the same in all rows of
            an id up to the cut.
    """

    frame: pl.DataFrame
    changing: tuple[str, ...]


def described_rows(
    source: FeatureSource,
    view: str,
    key: str,
    *,
    cut: datetime | None = None,
    end: datetime | None = None,
) -> DescribedRows:
    """Each id with its newest values at a moment; a few rows an id and one batch are held.

    An id that was first described after the cut has its first row, without the numbers: text says
    what a thing is, numbers what came of it. The view's ttl is not applied.

    Args:
        source: the feature store.
        view: a view with one key.
        key: that key.
        cut: UTC; values as they were known then. None: the newest.
        end: UTC; ids that were known then. None: all.

    Raises:
        DataError: no row of the view was known.
    """
    newest: pl.DataFrame | None = None
    later: pl.DataFrame | None = None
    spread: pl.DataFrame | None = None
    for batch in source.scan(view, as_of=end):
        rows = batch.select(
            name for name, dtype in batch.schema.items() if not isinstance(dtype, _UNTOLD)
        )
        times = [name for name in (TIMESTAMP, CREATED) if name in rows.columns]
        known = pl.lit(True) if cut is None else pl.all_horizontal(pl.col(times) <= utc(cut))
        before, after = rows.filter(known), rows.filter(~known)
        newest = _one_each(newest, before, key, times, keep="last")
        later = _one_each(later, after, key, times, keep="first")
        spread = _spread(spread, before, key)
    if newest is None or later is None or spread is None or newest.height + later.height == 0:
        when = "" if end is None else f" until {end:%Y-%m-%d %H:%M}"
        raise DataError(f"view {view!r} must have rows{when}, got none; name another")
    fresh = later.join(newest, on=key, how="anti").with_columns(
        pl.lit(None, dtype).alias(name)
        for name, dtype in later.schema.items()
        if dtype.is_numeric() and name != key
    )
    frame = pl.concat([newest, fresh]).sort(key).drop(TIMESTAMP, CREATED, strict=False)
    changing = [
        name
        for name in frame.columns
        if f"{name}__low" in spread.columns
        and (spread[f"{name}__low"] != spread[f"{name}__high"]).any()
    ]
    return DescribedRows(frame, tuple(changing))


def _one_each(
    held: pl.DataFrame | None, rows: pl.DataFrame, key: str, times: Sequence[str], *, keep: str
) -> pl.DataFrame:
    merged = rows if held is None else pl.concat([held, rows])
    ordered = merged.sort(times, maintain_order=True)
    return ordered.unique(key, keep="last" if keep == "last" else "first", maintain_order=True)


def _spread(held: pl.DataFrame | None, rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """The least and the greatest value of each id, a pair of columns each; text by its hash."""
    found = rows.group_by(key).agg(
        expression
        for name, dtype in rows.schema.items()
        if name != key and (dtype.is_numeric() or dtype in (pl.Boolean, pl.String))
        for value in (pl.col(name).drop_nulls(),)
        for told in (value.hash() if dtype == pl.String else value,)
        for expression in (told.min().alias(f"{name}__low"), told.max().alias(f"{name}__high"))
    )
    if held is None:
        return found
    return (
        pl.concat([held, found])
        .group_by(key)
        .agg(
            pl.col(name).min() if name.endswith("__low") else pl.col(name).max()
            for name in found.columns
            if name != key
        )
    )
