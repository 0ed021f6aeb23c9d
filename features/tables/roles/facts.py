"""What the rows of a log show once its columns are known: what is missing, repeats, ties, cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from features.tables.reading.leftovers import MARKS
from features.tables.roles.log import LogRoles
from features.tables.schema import EVENT, ITEM, TIMESTAMP, USER
from features.tables.times import time_in_microseconds

__all__ = ["LogFacts", "log_facts", "met_again"]

_FRACTION = 0.8
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class LogFacts:
    """Counts of a log that decide which rules it needs.

    Attributes:
        rows: all of them.
        marks: texts that mean no value, met in columns with a role, and in how many rows.
        missing: column -> rows without a value in it, among the columns with a role.
        repeats: rows of a user, item, time and kind that came before.
        undescribed: rows of items that the table of items does not have.
        unknown_items: so many different items.
        one_moment: share of the users with several events whose events are all at one time.
        tied: share of the events at a time at which their user has another.
        cut: share of the users after a cut in time that were there before it; None: no clock.
        again: kind -> share of its last fifth that users of the first four fifths had met a day
            earlier or more; "" stands for all kinds. Empty: nobody came back.
        kinds: kind -> rows.
    """

    rows: int
    marks: dict[str, int]
    missing: dict[str, int]
    repeats: int
    undescribed: int
    unknown_items: int
    one_moment: float
    tied: float
    cut: float | None
    again: dict[str, float]
    kinds: dict[str, int]


def log_facts(frame: pl.DataFrame, roles: LogRoles, item_ids: pl.Series | None = None) -> LogFacts:
    """Count what decides the rules.

    Args:
        frame: the log.
        roles: of its columns.
        item_ids: of the table of items; None: there is no table.
    """
    when, time = roles.when, roles.when.found.column if roles.when.found else ""
    weight = roles.weight.found.column if roles.weight else ""
    kind = roles.kinds.column if roles.kinds else ""
    named = [one for one in (roles.user.column, roles.item.column, time, kind, weight) if one]
    known = (
        set() if item_ids is None else set(item_ids.filter(item_ids.is_in(list(MARKS))).to_list())
    )
    marks: dict[str, int] = {}
    missing: dict[str, int] = {}
    for name in named:
        column = frame[name]
        gone = column.null_count()
        if column.dtype == pl.String:
            wanted = [one for one in MARKS if not (name == roles.item.column and one in known)]
            met = column.filter(column.is_in(pl.Series(wanted).implode()))
            gone += len(met)
            for mark, rows in met.value_counts().iter_rows():
                if mark:
                    marks[mark] = marks.get(mark, 0) + rows
        if column.dtype.is_float():
            gone += int(column.is_nan().sum())
        if gone:
            missing[name] = gone
    read = time_in_microseconds(
        time, frame.schema[time] if time else pl.Null(), when.unit or "s", when.format
    )
    events = frame.select(
        _text(frame, roles.user.column, marks).alias(USER),
        _text(frame, roles.item.column, marks).alias(ITEM),
        read.alias(TIMESTAMP),
        (_text(frame, kind, marks) if kind else pl.lit("", pl.String)).alias(EVENT),
    ).drop_nulls()
    undescribed, unknown = _undescribed(events, item_ids)
    one_moment, tied = _ties(events)
    clock = when.unit not in ("order", "none")
    return LogFacts(
        rows=frame.height,
        marks=marks,
        missing=missing,
        repeats=events.height - events.hash_rows().n_unique(),
        undescribed=undescribed,
        unknown_items=unknown,
        one_moment=one_moment,
        tied=tied,
        cut=_cut(events) if clock else None,
        again=met_again(events, _DAY_US if clock else 1),
        kinds=_counted(events[EVENT]) if kind else {},
    )


def _text(frame: pl.DataFrame, name: str, marks: dict[str, int]) -> pl.Expr:
    cell = pl.col(name).cast(pl.String)
    if frame.schema[name] != pl.String:
        return cell
    return pl.when(cell.is_in(pl.Series(["", *marks]).implode()).not_()).then(cell)


def _undescribed(events: pl.DataFrame, item_ids: pl.Series | None) -> tuple[int, int]:
    if item_ids is None:
        return 0, 0
    counted = events[ITEM].value_counts(name="rows")
    known = item_ids.cast(pl.String).drop_nulls().unique().implode()
    unknown = counted.filter(counted[ITEM].is_in(known).not_())
    return int(unknown["rows"].sum()), unknown.height


def _ties(events: pl.DataFrame) -> tuple[float, float]:
    """Shares of users of one moment, and of events that are not alone at their user's time."""
    moments = events.group_by(USER, TIMESTAMP).agg(pl.len().alias("rows"))
    if moments.is_empty():
        return 0.0, 0.0
    users = moments.group_by(USER).agg(pl.len().alias("moments"), pl.col("rows").sum())
    several = users.filter(pl.col("rows") > 1)
    one = several.filter(pl.col("moments") == 1).height / max(1, several.height)
    tied = moments.filter(pl.col("rows") > 1)["rows"].sum() / events.height
    return one, float(tied)


def met_again(events: pl.DataFrame, gap_us: int = _DAY_US) -> dict[str, float]:
    """Share of late events whose user had met the item, by kind and ("") in all; empty: none late.

    Args:
        events: user_id, item_id, timestamp and event.
        gap_us: so long before it or longer.
    """
    if events.is_empty():
        return {}
    moment = _late(events)
    first = pl.col(TIMESTAMP).min()
    late = events.with_columns(
        first.over(USER).alias("came"), first.over(USER, ITEM).alias("met")
    ).filter((pl.col(TIMESTAMP) >= moment) & (pl.col("came") < moment))
    if late.is_empty():
        return {}
    gap = pl.duration(microseconds=gap_us)
    again = late.select(EVENT, again=pl.col(TIMESTAMP) - pl.col("met") >= gap)
    found = again.group_by(EVENT).agg(pl.col("again").mean()).rows()
    return {"": float(again["again"].mean()), **dict(found)}  # type: ignore[arg-type]


def _late(events: pl.DataFrame) -> datetime:
    """The time of the event after four fifths of them."""
    times = events[TIMESTAMP].sort()
    moment: datetime = times[min(int(_FRACTION * len(times)), len(times) - 1)]
    return moment


def _cut(events: pl.DataFrame) -> float:
    """Share of the users after a global cut that have events before it; 0: a part is empty."""
    if events.is_empty():
        return 0.0
    moment = _late(events)
    before = events.filter(pl.col(TIMESTAMP) < moment)[USER].unique()
    after = events.filter(pl.col(TIMESTAMP) >= moment)[USER].unique()
    if before.is_empty() or after.is_empty():
        return 0.0
    return int(after.is_in(before.implode()).sum()) / len(after)


def _counted(kinds: pl.Series) -> dict[str, int]:
    counted = kinds.value_counts(sort=True, name="rows")
    found: Sequence[tuple[str, int]] = counted.rows()
    return dict(found)
