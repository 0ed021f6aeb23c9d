"""What a log holds, at a glance: sizes, times, ties, kinds, ratings, rows as a model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl

from features.tables.schema import EVENT, ITEM, TIMESTAMP, USER
from features.tables.tables import Tables
from features.tables.times import narrow

__all__ = ["Preview", "preview", "tied_share"]

_KINDS, _RATINGS, _ROWS = 20, 12, 5


@dataclass(frozen=True)
class Preview:
    """A log at a glance; shares are of its rows, rows without an id or a time aside.

    Attributes:
        rows: of the file.
        users: different ones.
        items: different ones.
        first: the earliest time; None: the log knows none.
        last: the latest.
        tied: share of the events at a time at which their user has another.
        kinds: kind -> rows, the most frequent first; at most 20.
        ratings: value of the weight column -> rows, in order; empty where there are more than 12.
        rating_range: the lowest and the highest; None: no weight column.
        largest_user: the user with the most events, and its share.
        largest_item: the item with the most events, and its share.
        described: share of the events whose item has a row; None: there is no table of items.
        repeats: share of the events that repeat user, item, time and kind of one before.
        taken: rows that rules took away or changed, as sentences.
        notes: what else is to be known, as sentences.
        sample: the first rows as the model sees them; empty while the log has problems.
    """

    rows: int
    users: int
    items: int
    first: datetime | None
    last: datetime | None
    tied: float
    kinds: dict[str, int]
    ratings: dict[str, int]
    rating_range: tuple[float, float] | None
    largest_user: tuple[str, float] | None
    largest_item: tuple[str, float] | None
    described: float | None
    repeats: float
    taken: tuple[str, ...]
    notes: tuple[str, ...]
    sample: tuple[dict[str, Any], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; times as ISO text."""
        values = asdict(self)
        for name in ("first", "last"):
            values[name] = values[name] and values[name].isoformat()
        values["sample"] = [
            {name: str(one) if isinstance(one, datetime) else one for name, one in row.items()}
            for row in self.sample
        ]
        return values

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        yield f"{self.rows:,} rows of {self.users:,} users and {self.items:,} items"
        if self.first is not None and self.last is not None:
            yield f"times: {self.first} to {self.last} UTC"
        yield f"at one time with another event of their user: {self.tied:.1%} of the events"
        if self.kinds:
            yield "kinds: " + ", ".join(f"{kind} {rows:,}" for kind, rows in self.kinds.items())
        if self.ratings:
            yield "weights: " + ", ".join(f"{one} {rows:,}" for one, rows in self.ratings.items())
        elif self.rating_range is not None:
            yield "weights: {:g} to {:g}".format(*self.rating_range)
        if self.largest_user is not None and self.largest_item is not None:
            (user, of_user), (item, of_item) = self.largest_user, self.largest_item
            yield f"largest user {user!r} {of_user:.1%}, largest item {item!r} {of_item:.1%}"
        if self.described is not None:
            yield f"events of described items: {self.described:.2%}"
        yield f"repeats: {self.repeats:.2%}"
        yield from self.taken
        yield from self.notes
        if self.sample:
            yield "the first rows as the model sees them:"
            names = list(self.sample[0])
            yield "  " + "  ".join(names)
            for row in self.sample:
                yield "  " + "  ".join(_cell(row[name]) for name in names)


def preview(tables: Tables) -> Preview:
    """Look at a log and its tables.

    Args:
        tables: that can be read; broken rules are no obstacle.

    Raises:
        DataError: a file cannot be read.
    """
    columns, frame = tables.columns, tables.frame("events")
    events = _plain(tables)
    clock = columns.has_clock and TIMESTAMP in events.columns
    kind, weight = (columns.optional(role, frame.columns) for role in ("event", "weight"))
    ratings, bounds = _ratings(frame, weight)
    notes = []
    if columns.timestamp in frame.columns and clock and narrow(frame[columns.timestamp]):
        notes.append(
            f"{columns.timestamp!r} was stored in 32 bits: its times are off by up to a minute"
        )
    if not columns.has_clock:
        notes.append("the log has no times: features of age and recency say nothing")
    users, items = _counted(events, USER), _counted(events, ITEM)
    sample: tuple[dict[str, Any], ...] = ()
    taken: tuple[str, ...] = ()
    if not tables.own_problems("events"):
        sample = tuple(tables.interactions.whole.head(_ROWS).to_dicts())
        taken = tuple(one.told for one in tables.counts)
    return Preview(
        rows=frame.height,
        users=0 if users is None else users.height,
        items=0 if items is None else items.height,
        first=_moment(events, "min") if clock else None,
        last=_moment(events, "max") if clock else None,
        tied=tied_share(events),
        kinds=_kinds(frame, kind),
        ratings=ratings,
        rating_range=bounds,
        largest_user=_largest(users, events.height),
        largest_item=_largest(items, events.height),
        described=_described(tables, items, events.height),
        repeats=_repeats(events),
        taken=taken,
        notes=(*tables.dropped, *notes),
        sample=sample,
    )


def _plain(tables: Tables) -> pl.DataFrame:
    """The log's ids, times and kinds, without rows that lack one; columns that are there."""
    columns, frame = tables.columns, tables.frame("events")
    wanted = [
        pl.col(of).cast(pl.String).alias(name)
        for name, of in ((USER, columns.user), (ITEM, columns.item))
        if of in frame.columns
    ]
    kind = columns.optional("event", frame.columns)
    if kind in frame.columns:
        wanted.append(pl.col(str(kind)).cast(pl.String).alias(EVENT))
    if columns.unit == "none" or columns.timestamp in frame.columns:
        dtype = frame.schema.get(columns.timestamp, pl.Null())
        if dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.String, pl.Null):
            wanted.append(columns.time(columns.timestamp, dtype).alias(TIMESTAMP))
    return frame.select(wanted).drop_nulls()


def _counted(events: pl.DataFrame, name: str) -> pl.DataFrame | None:
    return events[name].value_counts(name="rows") if name in events.columns else None


def _largest(counted: pl.DataFrame | None, rows: int) -> tuple[str, float] | None:
    if counted is None or counted.is_empty():
        return None
    name, many = counted.select(pl.all().sort_by("rows", descending=True).first()).row(0)
    return str(name), many / rows


def _moment(events: pl.DataFrame, end: str) -> datetime | None:
    found = getattr(events[TIMESTAMP], end)()
    return found if isinstance(found, datetime) else None


def tied_share(events: pl.DataFrame) -> float:
    """Share of the events at a time at which their user has another."""
    if events.is_empty() or not {USER, TIMESTAMP} <= set(events.columns):
        return 0.0
    moments = events.group_by(USER, TIMESTAMP).len()
    return int(moments.filter(pl.col("len") > 1)["len"].sum()) / events.height


def _repeats(events: pl.DataFrame) -> float:
    if events.is_empty() or not {USER, ITEM, TIMESTAMP} <= set(events.columns):
        return 0.0
    return (events.height - events.hash_rows().n_unique()) / events.height


def _kinds(frame: pl.DataFrame, kind: str | None) -> dict[str, int]:
    if kind is None or kind not in frame.columns:
        return {}
    counted = frame[kind].cast(pl.String).drop_nulls().value_counts(sort=True, name="rows")
    return dict(counted.head(_KINDS).rows())


def _ratings(
    frame: pl.DataFrame, weight: str | None
) -> tuple[dict[str, int], tuple[float, float] | None]:
    if weight is None or weight not in frame.columns or not frame.schema[weight].is_numeric():
        return {}, None
    counted = frame[weight].drop_nulls().value_counts(name="rows").sort(weight)
    if counted.is_empty():
        return {}, None
    bounds = float(counted[weight][0]), float(counted[weight][-1])
    if counted.height > _RATINGS:
        return {}, bounds
    return {f"{value:g}": rows for value, rows in counted.rows()}, bounds


def _described(tables: Tables, items: pl.DataFrame | None, rows: int) -> float | None:
    key = tables.item_options["id_column"]
    if tables.items is None or items is None or not rows:
        return None
    table = tables.frame("items")
    if key not in table.columns:
        return None
    known = table[key].cast(pl.String).drop_nulls().unique().implode()
    return int(items.filter(items[ITEM].is_in(known))["rows"].sum()) / rows


def _cell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
