"""What held at a moment: the values of views for many keys and moments at once.

The rules are those of `features.sources.protocol`; the search is in `features.sources.newest_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl

from features.errors import DataError
from features.moments import utc
from features.packing.schema import FeatureBlock
from features.sources.newest_rows import key_numbers, newest_rows
from features.sources.protocol import Id, ViewDescription
from features.tables.schema import CREATED, TIMESTAMP

__all__ = ["ViewTable", "feature_block", "join_as_of", "known_at", "newest"]


class PointInTimeTable(Protocol):
    """A view that can say what held at a moment."""

    @property
    def view(self) -> ViewDescription:
        """What the view is called, its keys and its ttl."""
        ...

    def key_types(self) -> tuple[pl.DataType, ...]:
        """The types of its id columns."""
        ...

    def at(self, asked: pl.DataFrame) -> pl.DataFrame:
        """The values that hold at each asked moment.

        Args:
            asked: R rows of the id columns in `key_types`, and ``timestamp`` Datetime("us").

        Returns:
            R rows with the value columns; null where nothing holds.
        """
        ...


class ViewTable(NamedTuple):
    """A view whose rows Polars can read.

    Attributes:
        view: what the view is called, its keys and its ttl.
        rows: the id columns without nulls, ``timestamp`` Datetime("us") without nulls,
            ``created`` of the same type if ``view.created``, and the value columns.
    """

    view: ViewDescription
    rows: pl.LazyFrame

    def key_types(self) -> tuple[pl.DataType, ...]:
        """The types of the id columns; see `PointInTimeTable.key_types`."""
        schema = self.rows.collect_schema()
        return tuple(schema[name] for name in self.view.keys)

    def at(self, asked: pl.DataFrame) -> pl.DataFrame:
        """The values that hold; see `PointInTimeTable.at`."""
        return rows_at(self, asked).drop(TIMESTAMP)


def join_as_of(
    tables: Sequence[PointInTimeTable], keys: pl.DataFrame, *, full_names: bool = False
) -> pl.DataFrame:
    """The rows of ``keys`` with the values of every table; see `FeatureSource.as_of`.

    Raises:
        DataError: ``keys`` lacks an id column or the timestamp, a moment is null, or a value
            column would have a name that is taken.
    """
    views = [table.view for table in tables]
    moments = moments_of(keys, views)
    names = value_names(views, keys.columns, full_names)
    columns = []
    for table, renamed in zip(tables, names, strict=True):
        asked = asked_keys(table, keys).with_columns(moments)
        values = table.at(asked)
        columns += [values[old].alias(new) for old, new in renamed.items()]
    return keys.hstack(columns)


def newest(
    table: ViewTable,
    ids: Sequence[Id] | Sequence[tuple[Id, ...]],
    moment: datetime | None,
) -> FeatureBlock:
    """What holds for each id at one moment; see `FeatureSource.latest`."""
    now = utc(moment or datetime.now(UTC))
    asked = asked_keys(table, ids_frame(table.view, ids))
    asked = asked.with_columns(pl.lit(now, pl.Datetime("us")).alias(TIMESTAMP))
    return feature_block([rows_at(_of_keys(table, asked), asked)], now)


def rows_at(table: ViewTable, asked: pl.DataFrame) -> pl.DataFrame:
    """The row of ``table`` that holds at each asked moment.

    Args:
        table: the view.
        asked: R rows of its id columns in the table's types, and ``timestamp`` Datetime("us").

    Returns:
        R rows: ``timestamp`` of the row that holds, and its values; null where none does.
    """
    view = table.view
    value_names = list(view.columns)
    rows = table.rows.select(*view.keys, *_times(view), *value_names)
    if asked.height:
        moments = asked[TIMESTAMP]
        rows = rows.filter(pl.col(TIMESTAMP) <= moments.max())
        if view.ttl is not None:
            rows = rows.filter(pl.col(TIMESTAMP) >= moments.min() - pl.lit(view.ttl))
    else:
        rows = rows.head(0)
    found = rows.collect()
    places = _places(found.select(*view.keys, *_times(view)), asked, view)
    return found.select(pl.col(TIMESTAMP, *value_names).gather(places))


def _places(rows: pl.DataFrame, asked: pl.DataFrame, view: ViewDescription) -> pl.Series:
    """[R] place in ``rows`` of the row that holds for each asked one, or null."""
    row_keys, wanted = key_numbers(rows, asked, view.keys)
    times = rows[TIMESTAMP].to_physical().to_numpy()
    created = rows[CREATED].to_physical().to_numpy() if view.created else None
    moments = asked[TIMESTAMP].to_physical().to_numpy()
    places = newest_rows(row_keys, times, created, wanted, moments)
    holds = places >= 0
    if view.ttl is not None and rows.height:
        holds &= moments - times[places] <= view.ttl // timedelta(microseconds=1)
    held = pl.Series(np.where(holds, places, 0))
    return held.to_frame("place").select(pl.when(pl.Series(holds)).then("place"))["place"]


def _times(view: ViewDescription) -> list[str]:
    return [TIMESTAMP, CREATED] if view.created else [TIMESTAMP]


def _of_keys(table: ViewTable, asked: pl.DataFrame) -> ViewTable:
    """The table's rows of the asked keys, in their order."""
    if not table.view.keys:
        return table
    wanted = asked.select(table.view.keys).unique().lazy()
    rows = table.rows.join(wanted, on=list(table.view.keys), how="semi", maintain_order="left")
    return table._replace(rows=rows)


def moments_of(keys: pl.DataFrame, views: Sequence[ViewDescription]) -> pl.Series:
    """The moments of ``keys`` in UTC without a zone.

    Raises:
        DataError: there is no ``timestamp``, it is no Datetime, or some are null.
    """
    if TIMESTAMP not in keys.columns:
        shown = ", ".join(view.name for view in views)
        raise DataError(
            f"keys must have the column {TIMESTAMP!r} for view {shown!r}, got "
            f"{', '.join(keys.columns) or 'none'}"
        )
    dtype = keys.schema[TIMESTAMP]
    if not isinstance(dtype, pl.Datetime):
        raise DataError(f"keys: {TIMESTAMP} must be a Datetime, got {dtype}; cast it")
    if missing := keys[TIMESTAMP].null_count():
        raise DataError(
            f"keys: {TIMESTAMP} must not be null: {missing} of {keys.height} are; drop them"
        )
    return keys.select(as_utc(TIMESTAMP, dtype))[TIMESTAMP]


def asked_keys(table: PointInTimeTable, keys: pl.DataFrame) -> pl.DataFrame:
    """The id columns of ``keys`` in the table's types; null where an id has no such value.

    Raises:
        DataError: an id column is missing.
    """
    view = table.view
    for name in view.keys:
        if name not in keys.columns:
            raise DataError(
                f"keys must have the column {name!r} for view {view.name!r}, got "
                f"{', '.join(keys.columns) or 'none'}"
            )
    types = zip(view.keys, table.key_types(), strict=True)
    return keys.select(as_id(name, keys.schema[name], wanted) for name, wanted in types)


def as_id(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Ids in another type, null where they are none of it ("007" is not the number 7)."""
    column = pl.col(name)
    if dtype == wanted:
        return column
    cast = column.cast(wanted, strict=False)
    if wanted == pl.String or dtype.is_integer():
        return cast
    return pl.when(cast.cast(pl.String) == column.cast(pl.String)).then(cast).alias(name)


def as_utc(name: str, dtype: pl.DataType) -> pl.Expr:
    """A time in UTC without a zone, to the microsecond."""
    column = pl.col(name)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return column.cast(pl.Datetime("us"))


def ids_frame(view: ViewDescription, ids: Sequence[Id] | Sequence[tuple[Id, ...]]) -> pl.DataFrame:
    """Ids as a frame of the view's id columns, as text.

    Raises:
        DataError: an id is no tuple of one value a key column where the view has several.
    """
    if len(view.keys) == 1:
        texts = [None if one is None else str(one) for one in ids]
        return pl.DataFrame({view.keys[0]: pl.Series(texts, dtype=pl.String)})
    for one in ids:
        if not isinstance(one, tuple) or len(one) != len(view.keys):
            raise DataError(
                f"ids of view {view.name!r} must be tuples ({', '.join(view.keys)}), got {one!r}"
            )
    parts = list(zip(*ids, strict=True)) if len(ids) else [()] * len(view.keys)
    return pl.DataFrame(
        {
            name: pl.Series([None if one is None else str(one) for one in part], dtype=pl.String)
            for name, part in zip(view.keys, parts, strict=True)
        }
    )


def value_names(
    views: Sequence[ViewDescription], taken: Sequence[str], full_names: bool
) -> list[dict[str, str]]:
    """What the value columns of each view are called in the result.

    Raises:
        DataError: two columns would have one name.
    """
    owners = dict.fromkeys(taken, "keys")
    names = []
    for view in views:
        renamed = {
            column: f"{view.name}__{column}" if full_names else column for column in view.columns
        }
        for name in renamed.values():
            if name in owners:
                raise DataError(
                    f"value columns must have names of their own, got {name!r} in "
                    f"{owners[name]} and in view {view.name}; pass full_names=True or rename it"
                )
            owners[name] = f"view {view.name}"
        names.append(renamed)
    return names


def known_at(
    batches: Iterator[pl.DataFrame], moment: datetime, *, created: bool
) -> Iterator[pl.DataFrame]:
    """The rows of each batch that were known at a moment; batches without any are left out."""
    known = pl.col(TIMESTAMP) <= utc(moment)
    if created:
        known &= pl.col(CREATED) <= utc(moment)
    for batch in batches:
        rows = batch.filter(known)
        if rows.height:
            yield rows


def _age_s(times: pl.Series, moment: datetime) -> np.ndarray:
    """[C] seconds from each time to the moment; NaN where there is no time."""
    ages = (pl.lit(moment, pl.Datetime("us")) - times).alias("age")
    micro = pl.select(ages.dt.total_microseconds().cast(pl.Float64).fill_null(float("nan")))
    return micro["age"].to_numpy() / 1e6


def feature_block(frames: Sequence[pl.DataFrame], moment: datetime) -> FeatureBlock:
    """One block of what several views hold for the same ids.

    A candidate is present where any view has a row for it, and as old as the oldest of them.

    Args:
        frames: one a view, C rows of ``timestamp`` and values, null where nothing holds.
        moment: UTC without a zone, what ages count from.
    """
    ages = np.stack([_age_s(frame[TIMESTAMP], moment) for frame in frames])  # [views, C]
    present = np.asarray((~np.isnan(ages)).any(axis=0))
    oldest = np.where(np.isnan(ages), -np.inf, ages).max(axis=0)
    columns = [column for frame in frames for column in frame.drop(TIMESTAMP)]
    values = {column.name: _array(column) for column in columns}
    return FeatureBlock(values, present, np.where(present, oldest, np.nan))


def _array(column: pl.Series) -> np.ndarray:
    dtype = column.dtype
    if dtype in (pl.Float32, pl.Boolean):
        return column.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    if dtype.is_numeric() or dtype == pl.Null:
        return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if dtype.is_temporal():
        return column.to_numpy()
    if isinstance(dtype, pl.Array):
        width = dtype.shape[0]
        filled = pl.select(column.fill_null(pl.lit([float("nan")] * width, dtype)))
        return filled.to_series().to_numpy()
    if dtype == pl.String:
        return column.to_numpy()
    array = np.empty(len(column), dtype=object)
    for place, value in enumerate(column):
        array[place] = value.to_numpy() if isinstance(value, pl.Series) else value
    return array
