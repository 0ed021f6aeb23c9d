"""Every broken rule of a data set at once: nothing is raised, nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from features.errors import Problem
from features.moments import microseconds
from features.tables.reading import read_frame
from features.tables.schema import ITEM, MICROSECONDS_PER, USER, EventColumns

__all__ = ["find_problems"]

UNDESCRIBED = "must be described by a row of the item table"
"""The rule that an event of an item without a row breaks."""

_ROW = "__row"
_EARLIEST = datetime(1971, 1, 1)


def find_problems(
    events: pl.DataFrame | Path | str,
    items: pl.DataFrame | Path | str | None = None,
    users: pl.DataFrame | Path | str | None = None,
    *,
    columns: EventColumns | None = None,
    item_column: str = ITEM,
    user_column: str = USER,
    now: datetime | None = None,
) -> list[Problem]:
    """All problems of an event log and the tables that describe its items and users.

    Checked: missing columns and columns of a wrong type, null or empty ids, unparseable times,
    times in another unit than declared (before 1971 or more than a year after ``now``), negative
    or non-finite weights, duplicate events (same user, item, time and kind; where the log says
    when events arrived or has their ids, that is one event that came twice, and no problem),
    repeated ids in the tables, and events whose item no row of ``items`` describes.

    Args:
        events: the raw log, as a frame or a Parquet/CSV file.
        items: the raw item table, or None to leave it and the catalogue check out.
        users: the raw user table, or None.
        columns: the roles of the columns of ``events``; None: the names of
            `features.tables.schema`.
        item_column: id column of ``items``.
        user_column: id column of ``users``.
        now: UTC time without time zone that the check of units uses; None: the clock.

    Returns:
        The problems, log first; empty if the data are clean. A file that cannot be read is a
        problem as well.
    """
    columns = columns or EventColumns()
    problems: list[Problem] = []
    frames: dict[str, pl.DataFrame | None] = {}
    given: Mapping[str, pl.DataFrame | Path | str | None] = {
        "events": events,
        "items": items,
        "users": users,
    }
    names: dict[str, str] = {}
    for role, source in given.items():
        names[role] = role if isinstance(source, pl.DataFrame) or source is None else str(source)
        frames[role], unreadable = _load(source, names[role])
        problems += unreadable
    item_frame, user_frame = frames["items"], frames["users"]
    item_ids = None
    if item_frame is not None and _is_id(item_frame.schema.get(item_column)):
        item_ids = item_frame[item_column].cast(pl.String)
    event_frame = frames["events"]
    if event_frame is not None:
        problems += event_problems(
            event_frame, columns, source=names["events"], item_ids=item_ids, now=now
        )
    if item_frame is not None:
        problems += entity_problems(item_frame, item_column, source=names["items"])
    if user_frame is not None:
        problems += entity_problems(user_frame, user_column, source=names["users"])
    return problems


def event_problems(
    frame: pl.DataFrame,
    columns: EventColumns,
    *,
    source: str,
    item_ids: pl.Series | None = None,
    now: datetime | None = None,
) -> list[Problem]:
    """Problems of one raw event frame; ``item_ids`` are the String ids of the catalogue."""
    problems: list[Problem] = []
    present = frame.columns
    event = columns.optional("event", present)
    weight = columns.optional("weight", present)
    created = columns.optional("created", present)
    event_id = columns.optional("event_id", present)
    required = [columns.user, columns.item, columns.timestamp]
    for name in [
        *required,
        *(name for name in (event, weight, created, event_id) if name is not None),
    ]:
        if name not in present:
            problems.append(_missing(source, name, present))
    frame = frame.select([name for name in present]).with_row_index(_ROW)
    for name in (columns.user, columns.item):
        if name in present:
            problems += _id_problems(frame, name, source)
    if columns.timestamp in present:
        problems += _time_problems(frame, columns.timestamp, columns.unit, source, now)
    if created is not None and created in present:
        arrived = frame.filter(pl.col(created).is_not_null())
        problems += _time_problems(arrived, created, columns.unit, source, now)
    if event is not None and event in present:
        problems += _kind_problems(frame, event, source)
    if weight is not None and weight in present:
        problems += _weight_problems(frame, weight, source)
    once = created is not None or event_id is not None
    if not once and all(name in present for name in required):
        key = [*required, *([event] if event in present else [])]
        problems += _duplicate_problems(frame, key, source, "user, item, time and kind")
    if item_ids is not None and columns.item in present and _is_id(frame.schema[columns.item]):
        problems += _catalogue_problems(frame, columns.item, item_ids, source)
    return problems


def entity_problems(frame: pl.DataFrame, id_column: str, *, source: str) -> list[Problem]:
    """Problems of one raw table that must have one row per ``id_column``."""
    if id_column not in frame.columns:
        return [_missing(source, id_column, frame.columns)]
    frame = frame.select(id_column).with_row_index(_ROW)
    problems = _id_problems(frame, id_column, source)
    return problems + _duplicate_problems(frame.drop_nulls(), [id_column], source, id_column)


def time_in_microseconds(column: str, dtype: pl.DataType, unit: str) -> pl.Expr:
    """The expression that makes a checked time column ``Datetime("us")``, UTC without zone."""
    raw = pl.col(column)
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is not None:
            raw = raw.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return raw.cast(pl.Datetime("us"))
    if dtype == pl.Date:
        return raw.cast(pl.Datetime("us"))
    if dtype == pl.String:
        return _parse_iso(raw)
    scale = MICROSECONDS_PER[unit]
    if dtype.is_float():
        return (raw * scale).round().cast(pl.Int64).cast(pl.Datetime("us"))
    return (raw.cast(pl.Int64) * scale).cast(pl.Datetime("us"))


def _parse_iso(raw: pl.Expr) -> pl.Expr:
    """Text to UTC time: with or without zone, with "T" or a space, or a date alone; else null."""
    text = raw.str.strip_chars().str.replace(" ", "T", literal=True)
    zoned = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    naive = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    short = text.str.to_datetime("%Y-%m-%dT%H:%M", time_unit="us", strict=False)
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
    return pl.coalesce(zoned.dt.replace_time_zone(None), naive, short, day)


def _load(
    source: pl.DataFrame | Path | str | None, name: str
) -> tuple[pl.DataFrame | None, list[Problem]]:
    if source is None or isinstance(source, pl.DataFrame):
        return source, []
    try:
        return read_frame(source), []
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "Give the path of a readable Parquet or CSV file."
        return None, [Problem(name, "*", "must be readable", 0, reason, remedy)]


def _is_id(dtype: pl.DataType | None) -> bool:
    return dtype is not None and (
        dtype.is_integer() or dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)
    )


def _missing(source: str, name: str, present: list[str]) -> Problem:
    return Problem(
        source,
        name,
        "must exist",
        0,
        f"the columns are {', '.join(present) or 'none'}",
        "Name the column that plays this role, or add it.",
    )


def _broken(
    bad: pl.DataFrame, column: str, shown: str, source: str, rule: str, remedy: str
) -> list[Problem]:
    """One problem for the rows of ``bad``, none if it is empty."""
    if bad.height == 0:
        return []
    first = f"{bad[shown][0]!r} (row {bad[_ROW][0]})"
    return [Problem(source, column, rule, bad.height, first, remedy)]


def _wrong_type(source: str, column: str, rule: str, dtype: pl.DataType, remedy: str) -> Problem:
    return Problem(source, column, rule, 0, f"it is {dtype}", remedy)


def _id_problems(frame: pl.DataFrame, column: str, source: str) -> list[Problem]:
    dtype = frame.schema[column]
    rule = "must be an integer or a string"
    if not _is_id(dtype):
        remedy = "Cast it; an id that went through floating point may have lost digits."
        return [_wrong_type(source, column, rule, dtype, remedy)]
    text = pl.col(column).cast(pl.String)
    bad = frame.filter(pl.col(column).is_null() | (text.str.strip_chars() == ""))
    rule = "must not be null or empty"
    return _broken(bad, column, column, source, rule, "Drop these rows or fill in the id.")


def _time_problems(
    frame: pl.DataFrame, column: str, unit: str, source: str, now: datetime | None
) -> list[Problem]:
    dtype = frame.schema[column]
    numeric = dtype.is_integer() or dtype.is_float()
    if unit == "iso" and numeric:
        return [
            _wrong_type(source, column, "must be text (unit 'iso')", dtype, _unit_remedy(frame))
        ]
    if unit != "iso" and dtype == pl.String:
        remedy = "Declare the unit 'iso', or cast the column to integers."
        rule = f"must be a number (unit {unit!r})"
        return [_wrong_type(source, column, rule, dtype, remedy)]
    if not (numeric or dtype == pl.String or dtype == pl.Date or isinstance(dtype, pl.Datetime)):
        remedy = "Use integers, ISO text, or a date or datetime type."
        return [_wrong_type(source, column, "must be a time", dtype, remedy)]

    value = pl.col(column)
    latest = (now or datetime.now(UTC).replace(tzinfo=None)) + timedelta(days=365)
    if numeric:
        scale = MICROSECONDS_PER[unit]
        parsed = pl.when(value.is_finite()).then(value) if dtype.is_float() else value
        low, high = (pl.lit(microseconds(moment) // scale) for moment in (_EARLIEST, latest))
    else:
        parsed = time_in_microseconds(column, dtype, unit)
        low, high = pl.lit(_EARLIEST), pl.lit(latest)
    frame = frame.with_columns(parsed.alias("__time"))
    time = pl.col("__time")
    unread = frame.filter(time.is_null())
    rule = "must hold a time that can be read"
    remedy = "Drop or repair these rows; text must look like 2024-05-01T12:30:00."
    problems = _broken(unread, column, column, source, rule, remedy)
    outside = frame.filter(time.is_not_null() & ((time < low) | (time > high)))
    if outside.height:
        rule = f"must lie between 1971 and {latest:%Y-%m-%d} when read as {unit!r}"
        if numeric:
            remedy = _unit_remedy(outside.select(pl.col(column).alias(column)), column, latest)
        else:
            rule = f"must lie between 1971 and {latest:%Y-%m-%d}"
            remedy = "The numbers it was made from were probably in another unit; parse it again."
        problems += _broken(outside, column, column, source, rule, remedy)
    return problems


def _unit_remedy(
    outside: pl.DataFrame, column: str | None = None, latest: datetime | None = None
) -> str:
    """Which unit would put the first of these values into the plausible range."""
    if column is None or latest is None:
        return "Declare the unit 's', 'ms' or 'us'."
    value = int(outside[column][0])
    for unit, scale in MICROSECONDS_PER.items():
        if microseconds(_EARLIEST) <= value * scale <= microseconds(latest):
            return f"Declare the unit {unit!r}: read so, the first value is plausible."
    return "No unit makes the first value plausible; repair or drop these rows."


def _kind_problems(frame: pl.DataFrame, column: str, source: str) -> list[Problem]:
    dtype = frame.schema[column]
    if not (dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum)):
        remedy = "Cast it, or leave the role out."
        return [_wrong_type(source, column, "must be a string", dtype, remedy)]
    bad = frame.filter(pl.col(column).is_null())
    remedy = "Fill in the kind of event, or drop these rows."
    return _broken(bad, column, column, source, "must not be null", remedy)


def _weight_problems(frame: pl.DataFrame, column: str, source: str) -> list[Problem]:
    dtype = frame.schema[column]
    if not dtype.is_numeric():
        remedy = "Cast it to a number, or leave the role out."
        return [_wrong_type(source, column, "must be a number", dtype, remedy)]
    weight = pl.col(column).cast(pl.Float32)
    fine = weight.is_finite() & (weight >= 0)
    bad = frame.filter(fine.not_().fill_null(True))
    remedy = "Drop these rows, or shift the scale so that the smallest weight is 0."
    return _broken(bad, column, column, source, "must be finite and >= 0", remedy)


def _duplicate_problems(
    frame: pl.DataFrame, key: list[str], source: str, what: str
) -> list[Problem]:
    again = frame.filter(pl.struct(key).is_first_distinct().not_())
    if again.height == 0:
        return []
    shown = again.select(pl.struct(key).alias("__key"), _ROW).head(1)
    values = ", ".join(f"{name}={value}" for name, value in shown["__key"][0].items())
    first = f"{values} (row {shown[_ROW][0]})"
    rule = f"must not repeat ({what})"
    remedy = "Keep one of each, for example with unique()."
    return [Problem(source, ", ".join(key), rule, again.height, first, remedy)]


def _catalogue_problems(
    frame: pl.DataFrame, column: str, item_ids: pl.Series, source: str
) -> list[Problem]:
    text = pl.col(column).cast(pl.String)
    bad = frame.filter(text.is_not_null() & text.is_in(item_ids.drop_nulls().implode()).not_())
    rule = UNDESCRIBED
    remedy = "Add the items to the table, or drop their events."
    return _broken(bad, column, column, source, rule, remedy)
