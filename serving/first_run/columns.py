"""Which columns of an event file, and of a file of items or users, play which role."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from features.errors import DataError
from features.feast.training_data import EVENT_NAMES, WEIGHT_NAMES, names_item, names_user
from features.moments import microseconds
from features.tables.layouts import Unfolding, read_rows
from features.tables.reading import read_frame
from features.tables.schema import MICROSECONDS_PER

__all__ = ["guess_event_columns", "guess_id_column"]

_TIMES = ("timestamp", "event_timestamp", "time", "datetime", "date", "created_at", "ts")
_ARRIVED = ("created", "ingested_at", "received_at")
_EARLY = datetime(1990, 1, 1)


def guess_event_columns(
    path: Path, unfolding: Unfolding | None = None
) -> list[tuple[str, str, str]]:
    """Role, value and reason of each setting of ``data.columns``.

    Args:
        path: the file.
        unfolding: its layout; None: a row is an event.

    Raises:
        DataError: no column is called like a user's id, an item's id or a time.
        FileNotFoundError: there is no such file.
    """
    frame = read_rows(path, None, unfolding).frame
    found = [
        ("user", _named(frame, path, "user", names_user), "called like a user's id"),
        ("item", _named(frame, path, "item", names_item), "called like an item's id"),
    ]
    time = _first(frame.columns, _TIMES) or next(
        (name for name, dtype in frame.schema.items() if dtype.is_temporal()), None
    )
    if time is None:
        raise _unknown(frame, path, "timestamp", ", ".join(_TIMES))
    found.append(("timestamp", time, f"it is {frame.schema[time]}"))
    unit = _unit(frame[time])
    if unit is not None:
        first = frame[time].drop_nulls()
        shown = "empty" if first.is_empty() else f"{first[0]!r} is a likely time in it"
        found.append(("timestamp_unit", unit, shown))
    for role, names, why in (
        ("event", EVENT_NAMES, "says what kind of event it is"),
        ("weight", WEIGHT_NAMES, "events weigh this; without this line all weigh the same"),
        ("created", _ARRIVED, "says when an event arrived"),
    ):
        name = _first(frame.columns, names)
        if name is not None and _fits(role, frame[name]):
            found.append((role, name, why))
    return found


def guess_id_column(path: Path, wanted: str) -> str:
    """The id column of a file of items or users: the one the events have, or an equal one.

    Args:
        path: the file.
        wanted: what the events call it.

    Raises:
        DataError: no column is called so or nearly so.
        FileNotFoundError: there is no such file.
    """
    frame = read_frame(path)
    plain = {name.lower().replace("_", ""): name for name in reversed(frame.columns)}
    found = plain.get(wanted.lower().replace("_", "")) or plain.get("id")
    if found is None:
        raise _unknown(frame, path, "id", f"{wanted}, id")
    return found


def _named(frame: pl.DataFrame, path: Path, role: str, rule: object) -> str:
    names = [name for name in frame.columns if callable(rule) and rule(name)]
    ids = [name for name in names if name.lower().replace("_", "").endswith("id")]
    found = (ids or names)[:1]
    if not found:
        raise _unknown(frame, path, role, f"{role}_id")
    return found[0]


def _unknown(frame: pl.DataFrame, path: Path, role: str, names: str) -> DataError:
    nameless = frame.columns[0] == "column_1"
    remedy = "the file has no header, so add one" if nameless else "rename one"
    return DataError(
        f"{path} must have a column called like {names} for the role {role!r}, got "
        f"{', '.join(frame.columns)}; {remedy}, or write recsys.toml by hand"
    )


def _first(columns: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)


def _unit(times: pl.Series) -> str | None:
    """The unit in which all values are likely times; None: the type says it."""
    if times.dtype == pl.String:
        return "iso"
    if not times.dtype.is_numeric():
        return None
    latest = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=365)
    low, high = times.min(), times.max()
    for unit, scale in MICROSECONDS_PER.items():
        bounds = [microseconds(moment) // scale for moment in (_EARLY, latest)]
        if low is not None and bounds[0] <= low and high <= bounds[1]:  # type: ignore[operator]
            return unit
    return "s"


def _fits(role: str, values: pl.Series) -> bool:
    if role == "event":
        return values.dtype == pl.String and values.null_count() == 0
    if role == "weight":
        return values.dtype.is_numeric() and values.null_count() == 0 and bool((values >= 0).all())
    return values.dtype.is_temporal() or values.dtype.is_numeric()
