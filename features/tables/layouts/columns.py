"""Columns of a table by their names and their values, and times that are none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import polars as pl

from features.errors import DataError
from features.moments import microseconds
from features.tables.layouts.layout import Unfolding

__all__ = ["called", "check_columns", "is_time", "moments_of", "need", "renamed", "steps"]

_EARLY = datetime(1990, 1, 1)
_STEPS_FROM = datetime(2000, 1, 1)
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_DIGITS = r"^\d{9,17}(?:\.\d+)?$"
_FORMS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%m/%d/%YT%I:%M:%ST%p",
    "%m/%d/%YT%H:%M:%S",
    "%m/%d/%YT%H:%M",
)
_NAMES = {
    "user": r"(user|visitor|customer|client|member|account|person|profile|uid|viewer|reviewer)",
    "item": r"(item|product|article|movie|track|song|news|book|sku|asin|video|game|iid|isbn)",
    "time": r"(time|date|timestamp|when|ts|at)",
    "order": r"(order|basket|invoice|transaction|receipt|cart)",
}


def called(names: Sequence[str], role: str) -> list[str]:
    """Those called like a role: "user", "item", "time" or "order"; ids first.

    >>> called(["order_number", "order_id", "when"], "order")
    ['order_id', 'order_number']
    """
    whole = re.compile(rf"(?:^|[^a-z]|(?<=[a-z])){_NAMES[role]}s?(?:[^a-z]|ids?$|$)")
    snake = {name: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in names}
    found = [name for name in names if whole.search(snake[name])]
    return sorted(found, key=lambda name: not snake[name].endswith("id"))


def check_columns(frame: pl.DataFrame, columns: Mapping[str, str], source: str) -> None:
    """Every column that an unfolding names must be there.

    Raises:
        DataError: one is not.
    """
    for plain, name in columns.items():
        if name not in frame.columns:
            raise DataError(
                f"{source}: the column that {plain!r} is unfolded from must exist, got {name!r}; "
                f"known: {', '.join(frame.columns)}"
            )


def need(unfolding: Unfolding, *plain: str, source: str) -> None:
    """Columns without which the layout cannot be unfolded must be named.

    Raises:
        DataError: one is not.
    """
    for name in plain:
        if name not in unfolding.columns:
            raise DataError(
                f"{source}: layout {unfolding.layout!r} needs the column that {name!r} is made of, "
                "which the values do not tell; name it in the settings of the unfolding"
            )


def renamed(frame: pl.DataFrame, columns: Mapping[str, str], source: str) -> pl.DataFrame:
    """With the columns called as in plain rows.

    Raises:
        DataError: another column is called so already.
    """
    for plain, name in columns.items():
        if plain != name and plain in frame.columns and plain not in columns.values():
            raise DataError(
                f"{source}: {name!r} becomes the column {plain!r} of the plain rows, and there is "
                "another one of that name; rename it in the file"
            )
    return frame.rename({name: plain for plain, name in columns.items()})


def is_time(values: pl.Series) -> bool:
    """Whether all values are times in one form, and there are some."""
    return values.null_count() < len(values) and moments_of(values) is not None


def moments_of(values: pl.Series) -> pl.Series | None:
    """UTC times without zone; None: not all values are times in one form.

    Numbers count seconds, milliseconds or microseconds since 1970, text is ISO 8601 or
    month/day/year with a time of 12 or 24 hours.
    """
    if values.dtype == pl.Date:
        return values.cast(pl.Datetime("us"))
    if isinstance(values.dtype, pl.Datetime):
        if values.dtype.time_zone is not None:
            values = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return values.cast(pl.Datetime("us"))
    if values.dtype == pl.String:
        if bool(values.drop_nulls().str.contains(_DIGITS).all()):
            return _counted(values.cast(pl.Float64, strict=False))
        return _written(values)
    return _counted(values) if values.dtype.is_numeric() else None


def _counted(values: pl.Series) -> pl.Series | None:
    latest = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=365)
    low, high = values.min(), values.max()
    for scale in _UNITS.values():
        first, last = (microseconds(moment) // scale for moment in (_EARLY, latest))
        if low is not None and first <= low and high <= last:  # type: ignore[operator]
            if values.dtype.is_float():
                return (values * scale).round().cast(pl.Int64).cast(pl.Datetime("us"))
            return (values.cast(pl.Int64) * scale).cast(pl.Datetime("us"))
    return None


def _written(values: pl.Series) -> pl.Series | None:
    text = values.str.strip_chars().str.replace_all(r"\s+", "T")
    there = len(values) - values.null_count()
    zoned = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
    if zoned.count() == there:
        return zoned.dt.replace_time_zone(None)
    for form in _FORMS:
        found = text.str.to_datetime(form, time_unit="us", strict=False)
        if found.count() == there:
            return found
    day = text.str.to_date("%Y-%m-%d", strict=False)
    return day.cast(pl.Datetime("us")) if day.count() == there else None


def steps(place: pl.Expr) -> pl.Expr:
    """A time a second after that of the place before: an order for those who have no clock."""
    return pl.lit(_STEPS_FROM).cast(pl.Datetime("us")) + pl.duration(seconds=place.cast(pl.Int64))
