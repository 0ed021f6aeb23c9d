"""Reading a view's history out of Feast's offline store without losing or moving rows.

Two ways, chosen per view:

**The file itself.** Feast's local stores (Dask and DuckDB) read a view's Parquet file and pick, for
each key and moment, the newest row by event time and then creation time, at most ``ttl`` old. The
same file and the same rule are read here with Polars, so the values are the same, and what those
stores do not keep is kept: rows with equal key and moment (the Dask store collapses them, Feast
issue 6787), rows whose key is known but has nothing within the ttl (the Dask store drops them) and
the order (neither store keeps it). A test compares both ways.

**Through Feast**, for every other store: each distinct key and moment is asked once, under a number
of its own, and the answer is joined back to the rows by that number. So no store can collapse,
multiply or reorder rows; a store that leaves some out is refused, but for the Dask store, which
means "nothing held" by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import polars as pl

from features.errors import DataError
from features.feast.plan import PlannedView
from features.sources.point_in_time import ViewTable, as_utc
from features.sources.protocol import ViewDescription
from features.tables.schema import CREATED, TIMESTAMP

__all__ = ["StoreTable", "file_table", "store_batches"]

_ROW = "__recsys_row"
_EVENT_TIME = "event_timestamp"
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2262, 1, 1, tzinfo=UTC)


def file_table(path: Path, planned: PlannedView) -> ViewTable:
    """A view's Parquet file (or directory of them) as a table.

    Raises:
        DataError: the file lacks a column, or a time in it is no time.
    """
    rows = pl.scan_parquet(path)
    columns = selected(planned, dict(rows.collect_schema()))
    times = [TIMESTAMP, *([CREATED] if planned.description.created else [])]
    kept = rows.select(columns).drop_nulls([*planned.description.keys, *times])
    return ViewTable(planned.description, kept)


def selected(planned: PlannedView, schema: dict[str, pl.DataType]) -> list[pl.Expr]:
    """A batch source's columns as ours: keys, timestamp, created, values, in declared types.

    Raises:
        DataError: a column is missing, or a time is no time.
    """
    view = planned.description

    def stored(name: str) -> str:
        for candidate in (planned.column(name), name):
            if candidate in schema:
                return candidate
        raise DataError(
            f"the batch source of view {view.name!r} must have the column "
            f"{planned.column(name)!r}, got {', '.join(schema)}; apply the repository again"
        )

    expressions = [
        pl.col(stored(old)).cast(dtype).alias(new)
        for old, new, dtype in zip(planned.join_keys, view.keys, planned.key_types, strict=True)
    ]
    for name, wanted in ((planned.timestamp, TIMESTAMP), (planned.created, CREATED)):
        if name is None:
            continue
        column = stored(name)
        if not schema[column].is_temporal():
            raise DataError(
                f"the batch source of view {view.name!r} must have times in {column!r}, got "
                f"{schema[column]}; cast it"
            )
        expressions.append(as_utc(column, schema[column]).alias(wanted))
    for name, dtype in view.columns.items():
        column = stored(name)
        value = pl.col(column)
        if isinstance(dtype, pl.Datetime):
            value = as_utc(column, schema[column])
        expressions.append((value if dtype == pl.Object else value.cast(dtype)).alias(name))
    return expressions


class StoreTable(NamedTuple):
    """A view that is read through Feast's offline store; a `PointInTimeTable`."""

    planned: PlannedView
    store: Any

    @property
    def view(self) -> ViewDescription:
        """What the view is called, its keys and its ttl."""
        return self.planned.description

    def key_types(self) -> tuple[pl.DataType, ...]:
        """The types of the id columns."""
        return self.planned.key_types

    def at(self, asked: pl.DataFrame) -> pl.DataFrame:
        """The values that hold; see `PointInTimeTable.at`.

        Raises:
            DataError: Feast refused, or left rows out.
        """
        view = self.view
        on = [*view.keys, TIMESTAMP]
        distinct = asked.drop_nulls().unique(on, maintain_order=True).with_row_index(_ROW)
        if distinct.is_empty():
            return pl.DataFrame(schema=view.columns).clear(asked.height)
        answer = self._ask(distinct)
        known = distinct.select(*on, _ROW).join(answer, on=_ROW, how="left", validate="1:1")
        joined = asked.join(known, on=on, how="left", maintain_order="left", validate="m:1")
        if joined.height != asked.height:
            raise DataError(
                f"view {view.name!r} must give one row a key, got {joined.height} for "
                f"{asked.height}"
            )
        return joined.select(list(view.columns))

    def _ask(self, distinct: pl.DataFrame) -> pl.DataFrame:
        view = self.view
        names = dict(zip(view.keys, self.planned.join_keys, strict=True))
        moments = pl.col(TIMESTAMP).dt.replace_time_zone("UTC").alias(_EVENT_TIME)
        entities = distinct.select(
            _ROW, *(pl.col(ours).alias(theirs) for ours, theirs in names.items()), moments
        )
        try:
            job = self.store.get_historical_features(
                entity_df=entities.to_pandas(),
                features=[f"{self.planned.reference}:{name}" for name in view.columns],
                filter_by_created_timestamp=view.created,
            )
            table = job.to_arrow()
        except Exception as error:
            raise DataError(
                f"Feast could not read view {view.name!r}: {type(error).__name__}: {error}"
            ) from error
        answer = cast(pl.DataFrame, pl.from_arrow(table))
        if answer[_ROW].n_unique() != answer.height or (
            answer.height < distinct.height and not _drops_rows(self.store)
        ):
            raise DataError(
                f"the offline store {self.store.config.offline_store.type!r} must answer every "
                f"row once, got {answer.height} for {distinct.height} of view {view.name!r}; see "
                "`recsys doctor feast`"
            )
        return answer.select(
            pl.col(_ROW).cast(pl.UInt32),
            *(
                pl.col(name) if dtype == pl.Object else _cast(name, answer.schema[name], dtype)
                for name, dtype in view.columns.items()
            ),
        )


def store_batches(
    planned: PlannedView, store: Any, until: datetime | None, batch_rows: int
) -> Iterator[pl.DataFrame]:
    """A view's rows through Feast, which holds them all at once; cut into batches.

    Raises:
        DataError: the view has no batch source, or Feast could not read it.
    """
    view = planned.description
    source = planned.feast.batch_source
    if source is None:
        raise DataError(f"view {view.name!r} must have a batch source to be scanned; it has none")
    last = _LAST if until is None else until.replace(tzinfo=UTC)
    try:
        table = store.provider.offline_store.pull_all_from_table_or_query(
            config=store.config,
            data_source=source,
            join_key_columns=[planned.column(name) for name in planned.join_keys],
            feature_name_columns=[planned.column(name) for name in view.columns],
            timestamp_field=planned.timestamp,
            created_timestamp_column=planned.created,
            start_date=_FIRST,
            end_date=last,
        ).to_arrow()
    except Exception as error:
        raise DataError(
            f"Feast could not read view {view.name!r}: {type(error).__name__}: {error}"
        ) from error
    frame = cast(pl.DataFrame, pl.from_arrow(table))
    rows = frame.select(selected(planned, dict(frame.schema)))
    yield from rows.iter_slices(batch_rows)


def _cast(name: str, dtype: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    if isinstance(wanted, pl.Datetime):
        return as_utc(name, dtype).alias(name)
    return pl.col(name).cast(wanted)


def _drops_rows(store: Any) -> bool:
    return str(store.config.offline_store.type) in ("file", "dask")
