"""How each kind of definition is computed from what `features.computation` offers.

Each function returns float64 values for the level of its definition's scope (one for every
request row if the scope is "user_item" or "request"), NaN where there is no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from features.computation import Computation
from features.definitions import (
    Affinity,
    Age,
    Category,
    Count,
    DayOfWeek,
    Definition,
    Field,
    HourOfDay,
    LastNOverlap,
    MeanWeight,
    Rate,
    Recency,
    RetrievalRank,
    RetrievalScore,
    Similarity,
    SlateRelative,
    Trend,
)
from features.errors import DataError
from features.grouped import COUNT, FIRST, LAST, WEIGHT
from features.vocabulary import Vocabulary

__all__ = ["COMPUTE", "slate_relative"]

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


def _field(computation: Computation, definition: Field) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _category(computation: Computation, definition: Category) -> np.ndarray:
    column = _table_column(computation, definition.table, definition.column)
    codes = Vocabulary.from_ids(definition.values)
    return codes.index(column).astype(np.float64)


def _count(computation: Computation, definition: Count) -> np.ndarray:
    value = computation.statistic(
        definition.by,
        definition.column,
        definition.event,
        WEIGHT if definition.weighted else COUNT,
        _microseconds(definition.window_days),
    )
    return np.log1p(np.maximum(value, 0.0)) if definition.log else value


def _rate(computation: Computation, definition: Rate) -> np.ndarray:
    return _smoothed(computation, definition, ("hits", definition.threshold))


def _mean_weight(computation: Computation, definition: MeanWeight) -> np.ndarray:
    return _smoothed(computation, definition, WEIGHT)


def _smoothed(
    computation: Computation, definition: Rate | MeanWeight, statistic: tuple[str, float]
) -> np.ndarray:
    by, column, event = definition.by, definition.column, definition.event
    window = _microseconds(definition.window_days)
    total = computation.statistic(by, column, event, statistic, window)
    count = computation.statistic(by, column, event, COUNT, window)
    if definition.prior_count == 0:
        return _divided(total, count)
    if definition.prior is not None:
        prior: np.ndarray | float = definition.prior
    else:
        wider = "user" if by in ("user_item", "user_attribute") else "global"
        prior = _divided(
            computation.statistic(wider, None, event, statistic, window),
            computation.statistic(wider, None, event, COUNT, window),
        )
        if wider == "user":
            prior = prior[computation.level("user").of_row]
        else:
            prior = prior[computation.level(definition.scope).moment]
    return (total + definition.prior_count * prior) / (count + definition.prior_count)


def _recency(computation: Computation, definition: Recency) -> np.ndarray:
    last = computation.statistic(definition.by, definition.column, definition.event, LAST)
    return _since(computation, definition, last)


def _age(computation: Computation, definition: Age) -> np.ndarray:
    if definition.year_column is not None:
        year = _table_column(computation, "item", definition.year_column)
        moments = pl.Series(computation.moments).cast(pl.Datetime("us"))
        now = moments.dt.year().to_numpy().astype(np.float64)
        born = year.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        years: np.ndarray = now[computation.level("item").moment] - born
        return years
    first = computation.statistic(definition.by, definition.column, definition.event, FIRST)
    return _since(computation, definition, first)


def _since(computation: Computation, definition: Recency | Age, time_us: np.ndarray) -> np.ndarray:
    moment = computation.moments[computation.level(definition.scope).moment]
    seconds: np.ndarray = (moment - time_us) / 1e6
    if definition.unit == "log_days":
        seconds = np.log1p(seconds / 86_400.0)
    return seconds


def _trend(computation: Computation, definition: Trend) -> np.ndarray:
    short, long = (
        computation.statistic(
            definition.by, definition.column, definition.event, COUNT, _microseconds(days)
        )
        for days in (definition.short_days, definition.long_days)
    )
    return _divided(short, long)


def _affinity(computation: Computation, definition: Affinity) -> np.ndarray:
    column, event = definition.column, definition.event
    if definition.last is not None:
        return computation.overlaps(column, event, definition.last, definition.how)
    with_value = computation.statistic("user_attribute", column, event, COUNT)
    events = computation.statistic("user", None, event, COUNT)
    return _divided(with_value, events[computation.level("user").of_row])


def _last_n_overlap(computation: Computation, definition: LastNOverlap) -> np.ndarray:
    return computation.overlaps(definition.column, definition.event, definition.last, "jaccard")


def _similarity(computation: Computation, definition: Similarity) -> np.ndarray:
    return computation.cosine(definition.vectors, definition.event, definition.last)


def _hour_of_day(computation: Computation, definition: HourOfDay) -> np.ndarray:
    hours: np.ndarray = (computation.moments % _DAY_US) / _HOUR_US
    spread: np.ndarray = hours[computation.rows.moment]
    return spread


def _day_of_week(computation: Computation, definition: DayOfWeek) -> np.ndarray:
    # 1970-01-01 was a Thursday
    days = ((computation.moments // _DAY_US + 3) % 7).astype(np.float64)
    spread: np.ndarray = days[computation.rows.moment]
    return spread


def _retrieval(computation: Computation, definition: RetrievalScore | RetrievalRank) -> np.ndarray:
    column = computation.requests[definition.columns()[0].partition(".")[2]]
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def slate_relative(
    request_id: pl.Series, values: np.ndarray, definition: SlateRelative
) -> np.ndarray:
    """[R] float64: each value compared with the others of its request, NaN where it is NaN."""
    frame = pl.DataFrame({"request": request_id, "value": pl.Series(values).fill_nan(None)})
    value = pl.col("value").cast(pl.Float64)
    if definition.how == "minus_mean":
        relative = value - value.mean().over("request")
    else:
        rank = value.rank("average").over("request")
        relative = (rank - 0.5) / value.count().over("request")
    return frame.select(relative.fill_null(float("nan")).alias("value"))["value"].to_numpy()


COMPUTE: Mapping[type[Definition], Callable[[Computation, Any], np.ndarray]] = {
    Affinity: _affinity,
    Age: _age,
    Category: _category,
    Count: _count,
    DayOfWeek: _day_of_week,
    Field: _field,
    HourOfDay: _hour_of_day,
    LastNOverlap: _last_n_overlap,
    MeanWeight: _mean_weight,
    Rate: _rate,
    Recency: _recency,
    RetrievalRank: _retrieval,
    RetrievalScore: _retrieval,
    Similarity: _similarity,
    Trend: _trend,
}


def _table_column(computation: Computation, table: str, column: str) -> pl.Series:
    """The column's value for each combination of the level ``table``, null where there is none."""
    if table == "item":
        rows = computation.level("item").item - 1
        frame = computation.item_frame
        rows = np.where(rows < frame.height, rows, -1)
    elif computation.users is not None:
        known, frame = computation.users
        row_of = known.index(computation.user_ids.to_series()) - 1
        rows = row_of[computation.level("user").user - 1]
    else:
        raise DataError(f"user.{column} must exist; no user table was given")
    place = pl.Series(np.maximum(rows, 0))
    if frame.height == 0:
        return pl.Series(column, [None] * rows.size, dtype=frame.schema[column])
    return pl.select(pl.when(pl.Series(rows >= 0)).then(frame[column].gather(place))).to_series()


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), np.nan)


def _microseconds(days: float | None) -> int | None:
    return None if days is None else round(days * _DAY_US)
