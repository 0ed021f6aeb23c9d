"""Every kind of definition as plain loops over one row, float64; slow and meant to be read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from features import (
    Affinity,
    Age,
    BasketShare,
    Category,
    Count,
    DayOfWeek,
    Definition,
    Difference,
    Field,
    HourOfDay,
    Interval,
    LastNOverlap,
    ListContains,
    ListSize,
    MeanWeight,
    Position,
    Rate,
    Recency,
    RetrievalRank,
    RetrievalScore,
    Session,
    Similarity,
    SlateRelative,
    TextMatch,
    Trend,
    UniqueCount,
    VectorComponent,
)

NAN = math.nan


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    time: datetime
    kind: str
    weight: float
    created: datetime | None = None

    @property
    def seen(self) -> datetime:
        return self.created or self.time


@dataclass(frozen=True)
class Row:
    request: int
    user: str
    item: str
    moment: datetime
    retrieval: Mapping[str, float]
    query: str | None = None
    position: float = math.nan


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
    elif isinstance(definition, Difference):
        of, minus = (
            float(np.float32(feature(world, rows, place, others[name], others)))
            for name in (definition.of, definition.minus)
        )
        value = of - minus
    else:
        value = single(world, row, definition)
    if math.isnan(value) and definition.default is not None:
        return definition.default
    return value


def single(world: World, row: Row, definition: Definition) -> float:
    refresh_s = getattr(definition, "refresh_s", 0)
    if refresh_s and getattr(definition, "year_column", None) is None:
        start = datetime(1970, 1, 1)
        refreshes = (row.moment - start) // timedelta(seconds=refresh_s)
        row = replace(row, moment=start + refreshes * timedelta(seconds=refresh_s))
    past = [event for event in world.events if event.seen < row.moment]
    match definition:
        case Field():
            found = cell(world, row, definition.table, definition.column)
            return NAN if found is None else float(found)  # type: ignore[arg-type]
        case Category():
            found = cell(world, row, definition.table, definition.column)
            known = [*definition.values]
            return float(known.index(str(found)) + 1) if str(found) in known else 0.0
        case ListSize() | ListContains():
            found = cell(world, row, definition.table, definition.column)
            if found is None:
                return NAN
            if isinstance(definition, ListSize):
                return float(len(found))  # type: ignore[arg-type]
            return float(definition.value in found)  # type: ignore[operator]
        case VectorComponent():
            table = world.vectors[definition.vectors]
            return float(table[row.item][definition.component]) if row.item in table else NAN
        case Position():
            return row.position
        case TextMatch():
            return bm25(world, row, definition)
        case UniqueCount():
            value = mean_over_groups(
                world, row, past, definition, lambda events: different(world, events, definition.of)
            )
            return math.log1p(value) if definition.log and not math.isnan(value) else value
        case Session():
            return session(row, past, definition)
        case Count():
            value = mean_over_groups(
                world, row, past, definition, lambda events: total(events, definition.weighted)
            )
            return math.log1p(value) if definition.log and not math.isnan(value) else value
        case Interval():
            return math.log1p(smoothed(world, row, came_again(past, definition.event), definition))
        case BasketShare():
            events = [e for e in past if e.user == row.user and definition.event in (None, e.kind)]
            events = within(events, row, definition.window_days)
            held = {event.time for event in events if event.item == row.item}
            return len(held) / len({e.time for e in events}) if events else NAN
        case Rate() | MeanWeight():
            return smoothed(world, row, past, definition)
        case Recency():
            past = within(past, row, definition.ttl_days)
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
        case HourOfDay() | DayOfWeek():
            zone = definition.zone
            if definition.zone_column is not None:
                zone = str(cell(world, row, "user", definition.zone_column) or zone)
            local = row.moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
            if isinstance(definition, DayOfWeek):
                return float(local.weekday())
            midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
            return (local - midnight) / timedelta(hours=1)
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


def came_again(events: list[Event], kind: str | None) -> list[Event]:
    """All but the first of each user and item, by time, with the days since the one before."""
    found, last = [], {}
    for event in sorted(events, key=lambda event: event.time):
        if kind in (None, event.kind):
            pair = (event.user, event.item)
            if pair in last:
                days = (event.time - last[pair]) / timedelta(days=1)
                found.append(replace(event, weight=days))
            last[pair] = event.time
    return found


def smoothed(
    world: World, row: Row, past: list[Event], definition: Rate | MeanWeight | Interval
) -> float:
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
        wider = within(past, row, getattr(definition, "window_days", None))
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
    events = within(events, row, definition.ttl_days)
    if definition.last is not None:
        events = events[-definition.last :]
    if definition.session_minutes is not None:
        events = ongoing(events, row, definition.session_minutes)
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


def ongoing(events: list[Event], row: Row, minutes: float) -> list[Event]:
    """The newest events without a longer gap between them or to the moment."""
    kept: list[Event] = []
    following = row.moment
    for event in reversed(events):
        if following - event.time > timedelta(minutes=minutes):
            break
        kept.insert(0, event)
        following = event.time
    return kept


def session(row: Row, past: list[Event], definition: Session) -> float:
    events = [e for e in past if e.user == row.user and definition.event in (None, e.kind)]
    events = ongoing(events[-definition.last :], row, definition.session_minutes)
    match definition.what:
        case "events":
            return float(len(events))
        case "items":
            return float(len({event.item for event in events}))
        case "weight":
            return float(sum(event.weight for event in events))
        case _:
            return (row.moment - events[0].time) / timedelta(seconds=1) if events else NAN


def different(world: World, events: list[Event], of: str) -> float:
    if of == "user":
        return float(len({event.user for event in events}))
    if of == "item":
        return float(len({event.item for event in events}))
    if of == "basket":
        return float(len({(event.user, event.time) for event in events}))
    return float(len({value for event in events for value in values(world, event.item, of)}))


def words(text: object) -> list[str]:
    return re.findall(r"[^\W_]+", str(text or "").lower())


def bm25(world: World, row: Row, definition: TextMatch) -> float:
    if row.query is None or row.item not in world.items:
        return NAN
    texts = [words(item.get(definition.column)) for item in world.items.values()]
    own = words(world.items[row.item].get(definition.column))
    mean = sum(len(text) for text in texts) / len(texts)
    score = 0.0
    for word in words(row.query):
        times, having = own.count(word), sum(word in text for text in texts)
        if times:
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            long = definition.k1 * (1 - definition.b + definition.b * len(own) / mean)
            score += idf * times * (definition.k1 + 1) / (times + long)
    return score
