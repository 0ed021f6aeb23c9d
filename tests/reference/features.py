"""Every kind of definition as plain loops over one row, float64; slow and meant to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from features import (
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

NAN = math.nan


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    time: datetime
    kind: str
    weight: float


@dataclass(frozen=True)
class Row:
    request: int
    user: str
    item: str
    moment: datetime
    retrieval: Mapping[str, float]


@dataclass(frozen=True)
class World:
    """A log in its canonical order, and tables as {id: {column: value}}."""

    events: list[Event]
    items: Mapping[str, Mapping[str, object]]
    users: Mapping[str, Mapping[str, object]]
    vectors: Mapping[str, Mapping[str, np.ndarray]]


def feature(
    world: World,
    rows: list[Row],
    place: int,
    definition: Definition,
    others: Mapping[str, Definition],
) -> float:
    """One definition's value for ``rows[place]``."""
    row = rows[place]
    value = NAN
    if isinstance(definition, SlateRelative):
        competing = [p for p, other in enumerate(rows) if other.request == row.request]
        values = [feature(world, rows, p, others[definition.of], others) for p in competing]
        # relative features compare the float32 columns
        values = [float(np.float32(value)) for value in values]
        own = values[competing.index(place)]
        known = [value for value in values if not math.isnan(value)]
        if not math.isnan(own):
            if definition.how == "minus_mean":
                value = own - sum(known) / len(known)
            else:
                below = sum(other < own for other in known)
                equal = sum(other == own for other in known)
                value = (below + (equal + 1) / 2 - 0.5) / len(known)
    else:
        value = single(world, row, definition)
    if math.isnan(value) and definition.default is not None:
        return definition.default
    return value


def single(world: World, row: Row, definition: Definition) -> float:
    past = [event for event in world.events if event.time < row.moment]
    match definition:
        case Field():
            found = cell(world, row, definition.table, definition.column)
            return NAN if found is None else float(found)  # type: ignore[arg-type]
        case Category():
            found = cell(world, row, definition.table, definition.column)
            known = [*definition.values]
            return float(known.index(str(found)) + 1) if str(found) in known else 0.0
        case Count():
            value = mean_over_groups(
                world, row, past, definition, lambda events: total(events, definition.weighted)
            )
            return math.log1p(value) if definition.log and not math.isnan(value) else value
        case Rate() | MeanWeight():
            return smoothed(world, row, past, definition)
        case Recency():
            times = [e.time for group in groups(world, row, past, definition) for e in group]
            return since(row.moment, max(times), definition.unit) if times else NAN
        case Age():
            if definition.year_column is not None:
                year = cell(world, row, "item", definition.year_column)
                return NAN if year is None else row.moment.year - float(year)  # type: ignore[arg-type]
            times = [e.time for group in groups(world, row, past, definition) for e in group]
            return since(row.moment, min(times), definition.unit) if times else NAN
        case Trend():
            short, long = (
                mean_over_groups(world, row, within(past, row, days), definition, len)
                for days in (definition.short_days, definition.long_days)
            )
            return short / long if long > 0 else NAN
        case Affinity() | LastNOverlap() | Similarity():
            return history_feature(world, row, past, definition)
        case HourOfDay():
            midnight = row.moment.replace(hour=0, minute=0, second=0, microsecond=0)
            return (row.moment - midnight) / timedelta(hours=1)
        case DayOfWeek():
            return float(row.moment.weekday())
        case RetrievalScore():
            return row.retrieval[f"score__{definition.retriever}"]
        case RetrievalRank():
            return row.retrieval[f"rank__{definition.retriever}"]
        case _:
            raise TypeError(definition)


def cell(world: World, row: Row, table: str, column: str) -> object:
    if table == "item":
        return world.items.get(row.item, {}).get(column)
    return world.users.get(row.user, {}).get(column)


def values(world: World, item: str, column: str) -> list[str]:
    found = world.items.get(item, {}).get(column)
    if found is None:
        return []
    return list(found) if isinstance(found, list) else [str(found)]


def groups(world: World, row: Row, events: list[Event], definition) -> list[list[Event]]:  # type: ignore[no-untyped-def]
    """The events of the group, one list a value for attribute groups."""
    if definition.event is not None:
        events = [event for event in events if event.kind == definition.event]
    if definition.by in ("user", "user_item", "user_attribute"):
        events = [event for event in events if event.user == row.user]
    if definition.by in ("item", "user_item"):
        events = [event for event in events if event.item == row.item]
    if definition.column is None:
        return [events]
    return [
        [event for event in events if value in values(world, event.item, definition.column)]
        for value in values(world, row.item, definition.column)
    ]


def within(events: list[Event], row: Row, days: float | None) -> list[Event]:
    if days is None:
        return events
    return [event for event in events if event.time >= row.moment - timedelta(days=days)]


def total(events: list[Event], weighted: bool) -> float:
    return sum(event.weight if weighted else 1.0 for event in events)


def mean_over_groups(world, row, events, definition, statistic) -> float:  # type: ignore[no-untyped-def]
    events = within(events, row, getattr(definition, "window_days", None))
    found = [statistic(group) for group in groups(world, row, events, definition)]
    return sum(found) / len(found) if found else NAN


def smoothed(world: World, row: Row, past: list[Event], definition: Rate | MeanWeight) -> float:
    def amount(events: list[Event]) -> float:
        if isinstance(definition, Rate):
            return float(sum(event.weight >= definition.threshold for event in events))
        return sum(event.weight for event in events)

    top = mean_over_groups(world, row, past, definition, amount)
    count = mean_over_groups(world, row, past, definition, len)
    if definition.prior_count == 0:
        return top / count if count > 0 else NAN
    prior = definition.prior
    if prior is None:
        wider = within(past, row, definition.window_days)
        wider = [e for e in wider if definition.event in (None, e.kind)]
        if definition.by in ("user_item", "user_attribute"):
            wider = [event for event in wider if event.user == row.user]
        prior = amount(wider) / len(wider) if wider else NAN
    return (top + definition.prior_count * prior) / (count + definition.prior_count)


def since(moment: datetime, time: datetime, unit: str) -> float:
    seconds = (moment - time) / timedelta(seconds=1)
    return seconds if unit == "s" else math.log1p(seconds / 86_400)


def history_feature(
    world: World, row: Row, past: list[Event], definition: Affinity | LastNOverlap | Similarity
) -> float:
    events = [e for e in past if e.user == row.user and definition.event in (None, e.kind)]
    if definition.last is not None:
        events = events[-definition.last :]
    if isinstance(definition, Similarity):
        table = world.vectors[definition.vectors]
        known = [table[event.item] for event in events if event.item in table]
        if not known or row.item not in table:
            return NAN
        mean, own = sum(known), table[row.item]
        norm = float(np.linalg.norm(mean) * np.linalg.norm(own))
        return float(mean @ own) / norm if norm > 0 else NAN  # type: ignore[operator]
    own_values = set(values(world, row.item, definition.column))
    if not events or not own_values:
        return NAN
    each = []
    for event in events:
        theirs = set(values(world, event.item, definition.column))
        if isinstance(definition, LastNOverlap):
            each.append(len(own_values & theirs) / len(own_values | theirs))
        elif definition.how == "any":
            each.append(float(bool(own_values & theirs)))
        else:
            each.append(len(own_values & theirs) / len(own_values))
    return sum(each) / len(each)
