"""Columns that weigh events, count pieces, and join lines to orders."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from features.tables.roles.found import Found, cells, is_whole, shown
from features.tables.roles.names import (
    EVENT_IDS,
    ORDERS,
    QUANTITIES,
    SESSIONS,
    WEIGHTS,
    is_called_id,
    rank,
)

__all__ = ["Weight", "find_event_id", "find_order", "find_quantity", "find_weight"]

_PLAYS = ("play_count", "plays", "playcount", "listen_count", "cnt")
_SAME_USER = 0.99
_MOST_MISSING = 0.5


@dataclass(frozen=True)
class Weight:
    """How much events count.

    Attributes:
        found: the column; its `Found.column` is "" where others alone may be it.
        negative: rows below 0.
        zero: rows of 0.
        missing: rows without a value.
        high: from where on a rating is a good one, on a scale that is known; None: no scale.
        good: share of the rows with a value that are at or above it.
    """

    found: Found
    negative: int
    zero: int
    missing: int
    high: float | None
    good: float


def find_weight(frame: pl.DataFrame, taken: Collection[str]) -> Weight | None:
    """The rating, or what else says how much an event counts."""
    named = [
        (place, name)
        for name in frame.columns
        if name not in taken
        and (place := rank(name, WEIGHTS, whole=True)) is not None
        and _is_number(frame[name])
    ]
    found = [
        name
        for _, name in sorted(named)
        if _missing(frame[name]) <= _MOST_MISSING and rank(name, _PLAYS, whole=True) is None
    ]
    plays = [name for _, name in sorted(named) if rank(name, _PLAYS, whole=True) is not None]
    others = [(name, _range(frame[name])) for name in [*found[1:], *plays]]
    if not found:
        if not plays:
            return None
        return Weight(Found("", "no column rates the items", tuple(others)), 0, 0, 0, None, 0.0)
    values = frame[found[0]].cast(pl.Float64, strict=False)
    values = values.set(values.is_finite().fill_null(False).not_(), None)
    seen = values.drop_nulls()
    high = _high(seen)
    return Weight(
        Found(found[0], f"events weigh this: {_range(frame[found[0]])}", tuple(others)),
        int((seen < 0).sum()),
        int((seen == 0).sum()),
        values.null_count(),
        high,
        0.0 if high is None else int((seen >= high).sum()) / max(1, len(seen)),
    )


def find_quantity(frame: pl.DataFrame, taken: Collection[str]) -> Found | None:
    """How many pieces: whole numbers in a column called so."""
    for name in sorted(frame.columns, key=lambda one: rank(one, QUANTITIES) or 0):
        column = frame[name]
        called = rank(name, QUANTITIES) is not None and not is_called_id(name)
        if name in taken or not called or rank(name, ORDERS) is not None:
            continue
        if column.dtype.is_numeric() and column.null_count() == 0 and is_whole(column):
            below = int((column < 0).sum())
            return Found(name, f"says how many; {below:,} rows below 0 are returns")
    return None


def find_order(
    frame: pl.DataFrame, taken: Collection[str], user: str
) -> tuple[Found | None, tuple[tuple[str, str], ...]]:
    """The id of an order, whose lines are of one user; and columns of sessions, which are none."""
    sessions = tuple(
        (name, f"a session's id beside a user's, {frame[name].n_unique():,} different")
        for name in frame.columns
        if name not in taken and rank(name, SESSIONS) is not None and _is_id(frame[name])
    )
    for name in frame.columns:
        if name in taken or rank(name, ORDERS) is None or not _is_id(frame[name]):
            continue
        lines = frame.select(name, user).drop_nulls()
        orders, pairs = lines[name].n_unique(), lines.n_unique()
        if not orders or orders == lines.height or lines.height < frame.height / 2:
            continue
        if orders < _SAME_USER * pairs or orders == 1:
            continue
        reason = (
            f"{orders:,} orders of {lines.height / orders:.1f} lines each, all lines of one user: "
            "one moment"
        )
        return Found(name, reason), sessions
    return None, sessions


def find_event_id(frame: pl.DataFrame, taken: Collection[str]) -> Found | None:
    """An id of the event itself: (nearly) every row has another."""
    for name in frame.columns:
        if name in taken or rank(name, EVENT_IDS, whole=True) is None or not _is_id(frame[name]):
            continue
        different = frame[name].n_unique()
        if frame[name].null_count() == 0 and different >= 0.9 * frame.height:
            twice = frame.height - different
            return Found(name, f"tells events apart; {twice:,} rows are of one that came before")
    return None


def _is_id(column: pl.Series) -> bool:
    if column.dtype.is_float():
        return is_whole(column)
    return column.dtype == pl.String or column.dtype.is_integer()


def _is_number(column: pl.Series) -> bool:
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return True
    if column.dtype != pl.String:
        return False
    text = cells(column)
    return 0 < text.count() == text.cast(pl.Float64, strict=False).count()


def _missing(column: pl.Series) -> float:
    return column.cast(pl.Float64, strict=False).null_count() / max(1, len(column))


def _high(seen: pl.Series) -> float | None:
    """From where on a rating is good, on a scale to 5, 10 or 100."""
    top = seen.max()
    scale = {5.0: 4.0, 10.0: 8.0, 100.0: 80.0}
    if not isinstance(top, int | float) or seen.n_unique() < 3:
        return None
    return scale.get(float(top))


def _range(column: pl.Series) -> str:
    values = column.cast(pl.Float64, strict=False).drop_nulls()
    values = values.filter(values.is_finite())
    if values.is_empty():
        return "no numbers"
    return f"{shown(_plain(values.min()))} to {shown(_plain(values.max()))}"


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
