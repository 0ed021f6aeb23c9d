"""How each kind of definition is computed from what `features.computation.base` offers.

Each function returns float64 values for the level of its definition's scope (one for every
request row if the scope is "user_item" or "request"), NaN where there is no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.computation.base import Computation
from features.computation.grouped import COUNT, FIRST, LAST, WEIGHT
from features.computation.made_of_others import difference, slate_relative
from features.computation.questions import Group
from features.definitions.columns import (
    Category,
    DayOfWeek,
    Definition,
    Difference,
    Field,
    HourOfDay,
    ListContains,
    ListSize,
    Position,
    RetrievalRank,
    RetrievalScore,
    SlateRelative,
    TextMatch,
    VectorComponent,
)
from features.definitions.events import (
    Age,
    Count,
    Interval,
    MeanWeight,
    Rate,
    Recency,
    Trend,
    UniqueCount,
)
from features.definitions.history import Affinity, BasketShare, LastNOverlap, Session, Similarity
from features.errors import DataError
from features.tables.vocabulary import Vocabulary

__all__ = ["KINDS", "Kind", "combine", "compute"]

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


def _field(computation: Computation, definition: Field) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _category(computation: Computation, definition: Category) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    codes = Vocabulary.from_ids(definition.values)
    return codes.index(column).astype(np.float64)


def _list_size(computation: Computation, definition: ListSize) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    return column.list.len().cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _list_contains(computation: Computation, definition: ListContains) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    found = column.list.contains(definition.value)
    return found.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _vector_component(computation: Computation, definition: VectorComponent) -> np.ndarray:
    _, vectors = computation.tables.vectors[definition.vectors]
    rows = computation.vector_rows(definition.vectors, computation.level("item").item)
    component = vectors[:, definition.component].astype(np.float64)
    return np.where(rows > 0, component[rows], np.nan)


def _group(definition: Any) -> Group:
    refresh_us = round(definition.refresh_s * 1e6)
    again = isinstance(definition, Interval)
    return Group(definition.by, definition.column, definition.event, refresh_us, again)


def _count(computation: Computation, definition: Count) -> np.ndarray:
    statistic = WEIGHT if definition.weighted else COUNT
    window = _microseconds(definition.window_days)
    value = computation.statistic(_group(definition), statistic, window)
    return np.log1p(np.maximum(value, 0.0)) if definition.log else value


def _unique_count(computation: Computation, definition: UniqueCount) -> np.ndarray:
    window = _microseconds(definition.window_days)
    value = computation.distinct(_group(definition), definition.of, window)
    return np.log1p(value) if definition.log else value


def _rate(computation: Computation, definition: Rate) -> np.ndarray:
    return _smoothed(computation, definition, ("hits", definition.threshold))


def _mean_weight(computation: Computation, definition: MeanWeight) -> np.ndarray:
    return _smoothed(computation, definition, WEIGHT)


def _interval(computation: Computation, definition: Interval) -> np.ndarray:
    days: np.ndarray = np.log1p(_smoothed(computation, definition, WEIGHT))
    return days


def _smoothed(
    computation: Computation, definition: Rate | MeanWeight | Interval, statistic: tuple[str, float]
) -> np.ndarray:
    group, window = _group(definition), _microseconds(getattr(definition, "window_days", None))
    total = computation.statistic(group, statistic, window)
    count = computation.statistic(group, COUNT, window)
    if definition.prior_count == 0:
        return _divided(total, count)
    if definition.prior is not None:
        prior: np.ndarray | float = definition.prior
    else:
        wider = group._replace(
            by="user" if group.by in ("user_item", "user_attribute") else "global", column=None
        )
        prior = _divided(
            computation.statistic(wider, statistic, window),
            computation.statistic(wider, COUNT, window),
        )
        if wider.by == "user":
            prior = prior[computation.level("user").of_row]
        else:
            prior = prior[computation.level(definition.scope).moment]
    return (total + definition.prior_count * prior) / (count + definition.prior_count)


def _recency(computation: Computation, definition: Recency) -> np.ndarray:
    group = _group(definition)
    last = computation.statistic(group, LAST)
    if definition.ttl_days is not None:
        moment = computation.moments_of(group)[computation.level(definition.scope).moment]
        last = np.where(moment - last <= definition.ttl_days * _DAY_US, last, np.nan)
    return _since(computation, definition, last)


def _age(computation: Computation, definition: Age) -> np.ndarray:
    if definition.year_column is not None:
        year = _table_column(computation, "item", definition.year_column)
        moments = pl.Series(computation.moments).cast(pl.Datetime("us"))
        now = moments.dt.year().to_numpy().astype(np.float64)
        born = year.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        years: np.ndarray = now[computation.level("item").moment] - born
        return years
    return _since(computation, definition, computation.statistic(_group(definition), FIRST))


def _since(computation: Computation, definition: Recency | Age, time_us: np.ndarray) -> np.ndarray:
    moments = computation.moments_of(_group(definition))
    seconds: np.ndarray = (moments[computation.level(definition.scope).moment] - time_us) / 1e6
    if definition.unit == "log_days":
        seconds = np.log1p(seconds / 86_400.0)
    return seconds


def _trend(computation: Computation, definition: Trend) -> np.ndarray:
    short, long = (
        computation.statistic(_group(definition), COUNT, _microseconds(days))
        for days in (definition.short_days, definition.long_days)
    )
    return _divided(short, long)


def _affinity(computation: Computation, definition: Affinity) -> np.ndarray:
    column, event = definition.column, definition.event
    if definition.last is not None:
        history = _history(computation, definition, definition.last)
        return computation.overlaps(column, history, definition.how)
    window = _microseconds(definition.ttl_days)
    with_value = computation.statistic(Group("user_attribute", column, event), COUNT, window)
    events = computation.statistic(Group("user", None, event), COUNT, window)
    return _divided(with_value, events[computation.level("user").of_row])


def _basket_share(computation: Computation, definition: BasketShare) -> np.ndarray:
    window = _microseconds(definition.window_days)
    held, all_of_user = (
        computation.distinct(Group(by, None, definition.event), "basket", window)
        for by in ("user_item", "user")
    )
    return _divided(held, all_of_user[computation.level("user").of_row])


def _last_n_overlap(computation: Computation, definition: LastNOverlap) -> np.ndarray:
    history = _history(computation, definition, definition.last)
    return computation.overlaps(definition.column, history, "jaccard")


def _similarity(computation: Computation, definition: Similarity) -> np.ndarray:
    return computation.cosine(
        definition.vectors, _history(computation, definition, definition.last)
    )


def _history(
    computation: Computation, definition: Affinity | LastNOverlap | Similarity, last: int
) -> np.ndarray:
    """[n, last] int64 items of the user's newest events."""
    ttl = _microseconds(definition.ttl_days)
    session = _session_us(definition.session_minutes)
    return computation.past(definition.event, last, ttl, session).item


def _session(computation: Computation, definition: Session) -> np.ndarray:
    session = _session_us(definition.session_minutes)
    past = computation.past(definition.event, definition.last, session_us=session)
    real = past.item > 0
    events: np.ndarray = real.sum(axis=1).astype(np.float64)
    if definition.what == "events":
        return events
    if definition.what == "weight":
        total: np.ndarray = past.weight.sum(axis=1)
        return total
    if definition.what == "items":
        item = np.sort(past.item, axis=1)
        fresh = (item > 0) & (np.diff(item, axis=1, prepend=0) > 0)
        items: np.ndarray = fresh.sum(axis=1).astype(np.float64)
        return items
    moment = computation.moments[computation.level("user").moment]
    far = np.iinfo(np.int64).max
    first = np.where(real, past.happened, far).min(axis=1, initial=far)
    return np.where(events > 0, (moment - np.where(events > 0, first, 0)) / 1e6, np.nan)


def _hour_of_day(computation: Computation, definition: HourOfDay) -> np.ndarray:
    hours: np.ndarray = (_local_us(computation, definition) % _DAY_US) / _HOUR_US
    return hours


def _day_of_week(computation: Computation, definition: DayOfWeek) -> np.ndarray:
    # 1970-01-01 was a Thursday
    days: np.ndarray = (_local_us(computation, definition) // _DAY_US + 3) % 7
    return days.astype(np.float64)


def _local_us(computation: Computation, definition: HourOfDay | DayOfWeek) -> np.ndarray:
    """[R] int64 microseconds since 1970-01-01 00:00 of the clock in each row's zone."""
    rows = computation.rows
    if definition.zone_column is None:
        spread: np.ndarray = _in_zone(computation.moments, definition.zone)[rows.moment]
        return spread
    level = computation.level("user")
    zones = _table_column(computation, "user", definition.zone_column).cast(pl.String)
    zones = zones.fill_null(definition.zone)
    local = np.empty(level.moment.size, dtype=np.int64)
    for zone in zones.unique():
        there = (zones == zone).to_numpy()
        local[there] = _in_zone(computation.moments[level.moment[there]], zone)
    spread = local[level.of_row]
    return spread


def _in_zone(moment_us: np.ndarray, zone: str) -> np.ndarray:
    if zone == "UTC":
        return moment_us
    moments = pl.Series(moment_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    try:
        local = moments.dt.convert_time_zone(zone)
    except pl.exceptions.ComputeError as error:
        raise DataError(
            f"a time zone must be a name such as 'Europe/Berlin', got {zone!r} in the user table; "
            "repair it or make it null"
        ) from error
    return local.dt.replace_time_zone(None).to_physical().to_numpy().astype(np.int64)


def _position(computation: Computation, definition: Position) -> np.ndarray:
    return computation.numbers("position")


def _text_match(computation: Computation, definition: TextMatch) -> np.ndarray:
    matcher = computation.tables.matcher(definition.column)
    query = computation.texts(definition.query)
    return matcher.scores(computation.rows.item, query, k1=definition.k1, b=definition.b)


def _retrieval(computation: Computation, definition: RetrievalScore | RetrievalRank) -> np.ndarray:
    return computation.numbers(definition.columns()[0].partition(".")[2])


class Kind(NamedTuple):
    """A kind of definition, and how its values are found.

    Attributes:
        definition: what can be declared of it.
        compute: values for the level of a definition's scope. None: it is made of others' values.
        combine: of a definition that is made of others (`Definition.made_of`): [R] values from the
            rows' request_id, the [R] values of each of these, and the definition.
    """

    definition: type[Definition]
    compute: Callable[[Computation, Any], np.ndarray] | None
    combine: Callable[..., np.ndarray] | None = None


KINDS: dict[str, Kind] = {
    kind.definition.kind: kind
    for kind in (
        Kind(Affinity, _affinity),
        Kind(Age, _age),
        Kind(BasketShare, _basket_share),
        Kind(Category, _category),
        Kind(Count, _count),
        Kind(DayOfWeek, _day_of_week),
        Kind(Difference, None, difference),
        Kind(Field, _field),
        Kind(HourOfDay, _hour_of_day),
        Kind(Interval, _interval),
        Kind(LastNOverlap, _last_n_overlap),
        Kind(ListContains, _list_contains),
        Kind(ListSize, _list_size),
        Kind(MeanWeight, _mean_weight),
        Kind(Position, _position),
        Kind(Rate, _rate),
        Kind(Recency, _recency),
        Kind(RetrievalRank, _retrieval),
        Kind(RetrievalScore, _retrieval),
        Kind(Session, _session),
        Kind(Similarity, _similarity),
        Kind(SlateRelative, None, slate_relative),
        Kind(TextMatch, _text_match),
        Kind(Trend, _trend),
        Kind(UniqueCount, _unique_count),
        Kind(VectorComponent, _vector_component),
    )
}
"""What a declaration calls it -> the kind. One more entry is one more kind."""


def compute(computation: Computation, definition: Definition) -> np.ndarray:
    """float64 values of a definition for the level of its scope."""
    function = KINDS[definition.kind].compute
    if function is None:
        raise TypeError(f"{definition.kind} is made of other definitions' values")
    return function(computation, definition)


def combine(
    request_id: np.ndarray, columns: Mapping[str, np.ndarray], definition: Definition
) -> np.ndarray:
    """[R] float64 values of a definition that is made of others.

    Args:
        request_id: [R] integer.
        columns: by definition, [R].
        definition: what is made.
    """
    function = KINDS[definition.kind].combine
    if function is None:
        raise TypeError(f"{definition.kind} is made of no other definition's values")
    values = [columns[name] for name in definition.made_of.values()]
    return function(request_id, *values, definition)


def _table_column(computation: Computation, table: str, column: str) -> pl.Series:
    """The column's value for each combination of the level ``table``, null where there is none."""
    if table == "item":
        rows = computation.level("item").item - 1
        frame = computation.tables.item_frame
        rows = np.where(rows < frame.height, rows, -1)
    elif computation.tables.users is not None:
        rows, (_, frame) = computation.user_rows(), computation.tables.users
    else:
        raise DataError(f"user.{column} must exist; no user table was given")
    if frame.height == 0:
        return pl.Series(column, [None] * rows.size, dtype=frame.schema[column])
    place = pl.Series(np.maximum(rows, 0))
    if bool((rows >= 0).all()):
        return frame[column].gather(place)
    return pl.select(pl.when(pl.Series(rows >= 0)).then(frame[column].gather(place))).to_series()


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)


def _microseconds(days: float | None) -> int | None:
    return None if days is None else round(days * _DAY_US)


def _session_us(minutes: float | None) -> int | None:
    return None if minutes is None else round(minutes * 60_000_000)
