"""Writing rows to a Feast repository, checked before Feast sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import polars as pl

from features.errors import DataError
from features.feast.plan import PlannedView
from features.sources.point_in_time import as_utc
from features.sources.protocol import WriteReceipt
from features.tables.schema import CREATED, TIMESTAMP

__all__ = ["Destination", "push_rows", "write_rows"]

Destination: TypeAlias = Literal["online", "offline", "both"]


def write_rows(
    store: Any, planned: PlannedView, rows: pl.DataFrame, to: Destination
) -> WriteReceipt:
    """Rows to a view's stores; see `FeastSource.write`.

    Raises:
        DataError: the rows break a rule, or Feast refused.
    """
    stores = _stores(to)
    view = planned.description
    if not planned.feast.online:
        if to == "online":
            raise DataError(
                f"view {view.name!r} must be declared with online=True to be written online"
            )
        stores = ("offline",)
    if "offline" in stores and planned.mapping:
        raise DataError(
            f"view {view.name!r} must have a batch source without a field mapping to be written "
            'offline; Feast cannot write through one. Write to="online" and the file by hand'
        )
    frame = _feast_frame(planned, rows)
    for name in stores if rows.height else ():
        write = store.write_to_online_store if name == "online" else store.write_to_offline_store
        _call(view.name, write, planned.feast.name, frame)
    return WriteReceipt(view.name, rows.height, stores if rows.height else (), view.version)


def push_rows(
    store: Any, source: str, fed: Sequence[PlannedView], rows: pl.DataFrame, to: Destination
) -> WriteReceipt:
    """Rows to every view that a push source feeds; see `FeastSource.push`.

    Raises:
        DataError: there is no such push source, the rows break a rule, or Feast refused.
    """
    from feast.data_source import PushMode

    modes = {
        "online": PushMode.ONLINE,
        "offline": PushMode.OFFLINE,
        "both": PushMode.ONLINE_AND_OFFLINE,
    }
    stores = _stores(to)
    if not fed:
        raise DataError(
            f"push source {source!r} must feed a view of the Feast project {store.project!r}; "
            "`feast data-sources list` shows the sources"
        )
    frame = _feast_frame(fed[0], rows)
    for planned in fed[1:]:
        more = _feast_frame(planned, rows)
        frame = frame.with_columns(more.select(pl.exclude(frame.columns)))
    if rows.height:
        _call(source, store.push, source, frame, to=modes[to])
    return WriteReceipt(source, rows.height, stores if rows.height else ())


def _stores(to: Destination) -> tuple[str, ...]:
    if to not in get_args(Destination):
        raise DataError(f"to must be one of {', '.join(get_args(Destination))}, got {to!r}")
    return ("online", "offline") if to == "both" else (to,)


def _feast_frame(planned: PlannedView, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows as Feast takes them: its names and its types."""
    view = planned.description
    times = [TIMESTAMP, *([CREATED] if view.created else [])]
    for name in (*view.keys, *times, *view.columns):
        if name not in rows.columns:
            raise DataError(
                f"rows must have the column {name!r} for view {view.name!r}, got "
                f"{', '.join(rows.columns) or 'none'}"
            )
    for name in times:
        if not isinstance(rows.schema[name], pl.Datetime):
            raise DataError(f"rows: {name} must be a Datetime, got {rows.schema[name]}; cast it")
    for name in (*view.keys, *times):
        if missing := rows[name].null_count():
            raise DataError(
                f"rows: {name} must not be null: {missing} of {rows.height} are; drop them"
            )
    if rows.height and all(rows[name].null_count() == rows.height for name in view.columns):
        raise DataError(
            f"rows must have a value in at least one feature of view {view.name!r}; Feast drops "
            "rows without any"
        )
    moments = {TIMESTAMP: planned.timestamp, CREATED: planned.created}
    try:
        return rows.select(
            *(
                pl.col(ours).cast(dtype).alias(theirs)
                for ours, theirs, dtype in zip(
                    view.keys, planned.join_keys, planned.key_types, strict=True
                )
            ),
            *(
                as_utc(name, rows.schema[name])
                .dt.replace_time_zone("UTC")
                .alias(moments[name] or name)
                for name in times
            ),
            *(
                pl.col(name) if dtype == pl.Object else pl.col(name).cast(dtype)
                for name, dtype in view.columns.items()
            ),
        )
    except pl.exceptions.PolarsError as error:
        types = {**dict(zip(view.keys, planned.key_types, strict=True)), **view.columns}
        raise DataError(
            f"rows must have the types of view {view.name!r}, {types}, got {dict(rows.schema)}: "
            f"{error}"
        ) from error


def _call(name: str, write: Any, *arguments: Any, **options: Any) -> None:
    *first, frame = arguments
    try:
        write(*first, frame.to_pandas(use_pyarrow_extension_array=True), **options)
    except Exception as error:
        raise DataError(
            f"Feast could not write to {name!r}: {type(error).__name__}: {error}"
        ) from error
