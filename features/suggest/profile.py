"""What tables and a log look like: the numbers that `features.suggest.suggestions` reasons with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

import polars as pl

from features.definitions.sets import holds_years
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT

__all__ = ["ColumnProfile", "EventProfile", "WeightProfile", "profile_columns", "profile_events"]

Role = Literal["number", "category", "list", "text"]
_US_PER_DAY = 86_400_000_000
_SESSION_US = 30 * 60 * 1_000_000
_MOST_LEVELS = 30


class ColumnProfile(NamedTuple):
    """One column of an item or user table.

    Attributes:
        table: "item" or "user".
        column: its name.
        role: what `ItemTable` takes it for.
        rows: rows of the table.
        missing: share of rows without a value, 0..1; an empty list is missing.
        distinct: number of different values (of a list: over all lists).
        top_share: share of the non-missing rows that have the most frequent value.
        whole: a number column of integers.
        years: whole numbers that are all years, 1800..2200.
        skew: Fisher's, of a number column; 0 for others.
        mean_size: values in a non-empty list; 1 for others.
    """

    table: Literal["item", "user"]
    column: str
    role: Role
    rows: int
    missing: float
    distinct: int
    top_share: float
    whole: bool = False
    years: bool = False
    skew: float = 0.0
    mean_size: float = 1.0


class WeightProfile(NamedTuple):
    """The weights of the events.

    Attributes:
        levels: number of different weights.
        low: the smallest.
        high: the largest.
        mean: over all events.
        is_rating: 3 to 30 levels, none of them with over 95% of the events.
        like: the smallest level above the mean, what "liked it" means for a rating.
        like_share: share of events that reach it.
        prior_count: events the mean of all events is worth beside an item's own: the variance of
            weights within items over that between items (credibility); None where
            items cannot be told apart.
        like_prior_count: the same for reaching ``like``.
    """

    levels: int
    low: float
    high: float
    mean: float
    is_rating: bool
    like: float
    like_share: float
    prior_count: float | None
    like_prior_count: float | None


@dataclass(frozen=True)
class EventProfile:
    """A log.

    Attributes:
        events: rows.
        users: different users.
        items: different items.
        first: time of the first event, UTC.
        last: time of the last one.
        kinds: events of each kind, most first.
        weights: see `WeightProfile`.
        top_tenth: share of the events that the most popular tenth of the items has.
        user_events: quantiles 0.1, 0.5, 0.9 of events a user.
        repeats: share of events whose user met the item before.
        in_session: share of events within 30 minutes of the user's event before.
        item_gap_days: quantiles 0.5 and 0.9 of the days since the item's event before.
        user_gap_days: the same for users, between sessions (gaps over 30 minutes).
        whole_days: every time is midnight, so hours mean nothing.
    """

    events: int
    users: int
    items: int
    first: datetime
    last: datetime
    weights: WeightProfile
    top_tenth: float
    user_events: tuple[float, float, float]
    repeats: float
    in_session: float
    item_gap_days: tuple[float, float]
    user_gap_days: tuple[float, float]
    whole_days: bool
    kinds: dict[str, int] = field(default_factory=dict)

    @property
    def span_days(self) -> float:
        """Days from the first event to the last."""
        return (self.last - self.first).total_seconds() / 86_400


def profile_columns(table: ItemTable | UserTable) -> list[ColumnProfile]:
    """Every column of the table that has a role, in the table's order."""
    name: Literal["item", "user"] = "item" if isinstance(table, ItemTable) else "user"
    roles: dict[str, Role] = {}
    roles |= dict.fromkeys(table.number_columns, "number")
    roles |= dict.fromkeys(table.category_columns, "category")
    roles |= dict.fromkeys(table.list_columns, "list")
    roles |= dict.fromkeys(table.text_columns, "text")
    return [
        _profile(table.frame[column], name, roles[column])
        for column in table.frame.columns
        if column in roles
    ]


def profile_events(interactions: Interactions) -> EventProfile:
    """The log's numbers; it must have an event."""
    frame = interactions.frame
    kinds = frame[EVENT].value_counts(sort=True)
    per_item = frame[ITEM].value_counts(sort=True)["count"]
    per_user = frame[USER].value_counts()["count"]
    repeats = frame.height - frame.select(USER, ITEM).n_unique()
    user_gap, item_gap = _gaps(frame, USER), _gaps(frame, ITEM)
    pauses = user_gap.filter(user_gap > _SESSION_US)
    times = frame[TIMESTAMP].to_physical()
    first, last = frame[TIMESTAMP][0], frame[TIMESTAMP][-1]
    return EventProfile(
        events=frame.height,
        users=len(per_user),
        items=len(per_item),
        first=first,
        last=last,
        weights=_weights(frame),
        top_tenth=int(per_item.head(max(1, len(per_item) // 10)).sum()) / frame.height,
        user_events=(_quantile(per_user, 0.1), _quantile(per_user, 0.5), _quantile(per_user, 0.9)),
        repeats=repeats / frame.height,
        in_session=(len(user_gap) - len(pauses)) / frame.height,
        item_gap_days=(_days(item_gap, 0.5), _days(item_gap, 0.9)),
        user_gap_days=(_days(pauses, 0.5), _days(pauses, 0.9)),
        whole_days=bool((times % _US_PER_DAY == 0).all()),
        kinds=dict(zip(kinds[EVENT].to_list(), kinds["count"].to_list(), strict=True)),
    )


def _profile(series: pl.Series, table: Literal["item", "user"], role: Role) -> ColumnProfile:
    rows = len(series)
    if role == "list":
        sizes = series.list.len()
        values = series.filter(sizes > 0)
        single = values.list.explode()
        mean_size = len(single) / len(values) if len(values) else 0.0
    else:
        values = single = series.drop_nulls()
        if role == "number" and values.dtype.is_float():
            values = single = values.filter(values.is_finite())
        mean_size = 1.0
    counts = single.value_counts()["count"]
    return ColumnProfile(
        table,
        series.name,
        role,
        rows,
        missing=1.0 - len(values) / rows if rows else 1.0,
        distinct=len(counts),
        top_share=_number(counts.max()) / len(values) if len(values) else 0.0,
        whole=role == "number" and series.dtype.is_integer(),
        years=role == "number" and holds_years(values),
        skew=_number(values.cast(pl.Float64).skew()) if role == "number" else 0.0,
        mean_size=mean_size,
    )


def _gaps(frame: pl.DataFrame, key: str) -> pl.Series:
    """Microseconds to the event before of the same key, for events that have one."""
    return frame.select(pl.col(TIMESTAMP).to_physical().diff().over(key))[TIMESTAMP].drop_nulls()


def _weights(frame: pl.DataFrame) -> WeightProfile:
    weight = frame[WEIGHT].cast(pl.Float64)
    counts = weight.value_counts()
    mean = _number(weight.mean())
    above = counts[WEIGHT].filter(counts[WEIGHT] > mean)
    like = _number(above.min()) if len(above) else _number(weight.max())
    liked = (weight >= like).cast(pl.Float64)
    return WeightProfile(
        levels=counts.height,
        low=_number(weight.min()),
        high=_number(weight.max()),
        mean=mean,
        is_rating=3 <= counts.height <= _MOST_LEVELS
        and _number(counts["count"].max()) <= 0.95 * frame.height,
        like=like,
        like_share=_number(liked.mean()),
        prior_count=_credibility(frame[ITEM], weight),
        like_prior_count=_credibility(frame[ITEM], liked),
    )


def _credibility(group: pl.Series, value: pl.Series) -> float | None:
    """Variance within groups over variance between them, by the moments of unequal groups.

    Source: Bühlmann, Straub, "Glaubwürdigkeit für Schadensätze", 1970.
    """
    groups = (
        pl.DataFrame({"group": group, "value": value})
        .group_by("group")
        .agg(pl.len().alias("n"), pl.col("value").mean().alias("mean"), pl.col("value").var())
        .filter(pl.col("n") > 1)
    )
    n, total = groups["n"].cast(pl.Float64), _number(groups["n"].sum())
    if groups.height < 2:
        return None
    within = _number(((n - 1) * groups["value"]).sum()) / (total - groups.height)
    grand = _number((n * groups["mean"]).sum()) / total
    spread = _number((n * (groups["mean"] - grand) ** 2).sum())
    effective = total - _number((n * n).sum()) / total
    between = (spread - (groups.height - 1) * within) / effective
    return within / between if within > 0 and between > 1e-9 else None


def _days(gaps: pl.Series, share: float) -> float:
    return _quantile(gaps, share) / _US_PER_DAY


def _quantile(values: pl.Series, share: float) -> float:
    return _number(values.quantile(share, "nearest"))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
