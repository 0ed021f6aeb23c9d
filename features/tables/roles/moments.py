"""Which column says when an event happened, and which when it arrived."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from features.tables.roles.found import Found, cells, is_whole, percent, shown
from features.tables.roles.names import (
    ARRIVALS,
    ITEMS,
    OTHER_TIMES,
    PLACES,
    TIMES,
    USERS,
    is_called_id,
    rank,
    words,
)
from features.tables.times import (
    ORDER_LIMIT,
    TimeForm,
    TimeUnit,
    detect,
    in_microseconds,
    narrow,
)

__all__ = ["When", "find_arrival", "find_when", "times_of"]

_NEARLY = 0.95
_MOST_MISSING, _SOME_MISSING = 0.5, 0.2


@dataclass(frozen=True)
class When:
    """How a log says when its events happened.

    Attributes:
        found: the column; None: nothing does.
        unit: what its values are; None: its type says it.
        format: of strftime, where the unit does not say it.
        other_format: with day and month the other way round, where both fit all values.
        unit_reason: what makes the unit likely.
    """

    found: Found | None
    unit: TimeUnit | None
    format: str | None = None
    other_format: str | None = None
    unit_reason: str = ""


def times_of(frame: pl.DataFrame, now: datetime | None = None) -> dict[str, TimeForm]:
    """The columns whose values are times, nearly all of them, and their forms."""
    found = {}
    for name in frame.columns:
        column = frame[name]
        if column.dtype == pl.String:
            column = cells(column)
        numeric = column.dtype.is_numeric()
        if numeric and is_called_id(name) and not _called_time(name):
            continue
        form = detect(column, now)
        if form is not None and form.share >= _NEARLY:
            found[name] = form
    return found


def find_when(frame: pl.DataFrame, times: dict[str, TimeForm], now: datetime | None = None) -> When:
    """The likeliest time of the events among the columns that are times, or what replaces it."""
    likely = sorted(times, key=lambda name: _likely(frame, name, times[name]))
    place = _place(frame, times)
    if likely and place is not None and _missing(frame[likely[0]]) > _SOME_MISSING:
        likely = []
    if likely:
        best, *rest = likely
        form = times[best]
        others = tuple((name, f"times from {_span(times[name])}") for name in rest)
        reason = f"{_all(form)} are times, from {_span(form)}"
        if narrow(frame[best]):
            reason += (
                "; they were stored in 32 bits and are off by up to a minute, so write them in 64"
            )
        told = ""
        if form.unit in ("s", "ms", "us", "ns"):
            value = frame[best].drop_nulls()[0]
            told = f"{shown(value)} is a likely time in it"
        if form.other is not None:
            told = (
                "day and month may be the other way round: both fit every value, so check which "
                "one the file means"
            )
        return When(Found(best, reason, others), form.unit, form.format, form.other, told)
    if place is not None:
        reason = "no column holds times; its numbers say what came first"
        return When(Found(place, reason), "order")
    called = [
        name for name in frame.columns if _called_time(name) and frame[name].dtype == pl.String
    ]
    others = tuple(
        (
            name,
            f"called like a time, but {_first(frame[name])} has no known form; say it in "
            "timestamp_format",
        )
        for name in called
    )
    return When(Found("", "no column holds times or an order", others), "none")


def find_arrival(
    frame: pl.DataFrame, times: dict[str, TimeForm], when: When
) -> tuple[Found | None, tuple[tuple[str, str], ...]]:
    """The time at which events arrived, and columns that may be one."""
    if when.found is None or when.found.column not in times:
        return None, ()
    own = when.found.column
    if len(times) == 1:
        return None, ()
    happened = _read(frame[own], times[own])
    found, others = None, []
    for name, form in times.items():
        if name == own:
            continue
        arrived = _read(frame[name], form)
        late = arrived >= happened
        if not late.all() or not (arrived > happened).any():
            continue
        same = form.unit == times[own].unit and form.format == times[own].format
        readable = (
            same or frame[name].dtype.is_temporal() or (form.unit == "iso" and form.format is None)
        )
        reason = f"never before {own!r}, {percent(_share(arrived > happened))} after it"
        if found is None and rank(name, ARRIVALS) is not None and readable:
            found = Found(name, f"says when an event arrived: {reason}")
        elif readable and rank(name, OTHER_TIMES) is None:
            others.append((name, reason))
    return found, tuple(others)


def _read(column: pl.Series, form: TimeForm) -> pl.Series:
    if form.unit is None:
        zoned = isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else column
        return column.cast(pl.Datetime("us"))
    return in_microseconds(column, form.unit, form.format)


def _share(truth: pl.Series) -> float:
    return int(truth.sum()) / max(1, len(truth))


def _likely(frame: pl.DataFrame, name: str, form: TimeForm) -> tuple[object, ...]:
    """Sorts times of events first."""
    place = rank(name, TIMES)
    return (
        _missing(frame[name]) > _MOST_MISSING,
        rank(name, OTHER_TIMES) is not None,
        rank(name, ("timestamp",)) is None and "created" in words(name),
        form.share < 1,
        place is None and not _ends_like_time(name),
        len(TIMES) if place is None else place,
        frame.columns.index(name),
    )


def _missing(column: pl.Series) -> float:
    return (
        cells(column).null_count() / max(1, len(column))
        if column.dtype == pl.String
        else (column.null_count() / max(1, len(column)))
    )


def _ends_like_time(name: str) -> bool:
    return name.lower().endswith(("date", "time", "stamp", "_at", "_ts", "datum", "zeit"))


def _called_time(name: str) -> bool:
    return rank(name, TIMES) is not None or _ends_like_time(name)


def _place(frame: pl.DataFrame, times: dict[str, TimeForm]) -> str | None:
    """A column of whole numbers that is called like an order or a time."""
    for wanted in (PLACES, TIMES):
        for name in frame.columns:
            column = frame[name]
            if name in times or is_called_id(name) or not is_whole(column):
                continue
            if rank(name, (*USERS, *ITEMS)) is not None or rank(name, wanted) is None:
                continue
            low, high = column.min(), column.max()
            numbers = isinstance(low, int | float) and isinstance(high, int | float)
            if numbers and 0 <= low < high <= ORDER_LIMIT:  # type: ignore[operator]
                return name
    return None


def _first(column: pl.Series) -> str:
    values = column.drop_nulls()
    return "nothing" if values.is_empty() else shown(values[0])


def _all(form: TimeForm) -> str:
    return "all values" if form.share == 1 else f"{percent(form.share)} of the values"


def _span(form: TimeForm) -> str:
    return f"{form.first:%Y-%m-%d} to {form.last:%Y-%m-%d}"
