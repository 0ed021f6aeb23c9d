"""The rules behind the suggestions: from a profile to definitions, or to why there is none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.suggest.association import hour_association, lift
from features.suggest.profile import ColumnProfile, EventProfile
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.schema import ITEM, USER, WEIGHT

__all__ = ["Proposal", "propose_columns", "propose_events"]

_WINDOWS_DAYS = (1.0, 7.0, 30.0, 90.0, 180.0, 365.0)
_TOTAL_NAME = re.compile(
    r"(^|_)(n|num|count|counts|total|totals|popularity|votes|views|clicks|sales|ratings?|avg|mean"
    r"|score)(_|$)"
)
_SURE_TOTAL, _NAMED_TOTAL = 0.8, 0.5
_LEAST_ITEMS = 20
_MOST_KINDS = 5
_LEAST_LIFT = 1.05
_LEAST_ASSOCIATION = 0.02


class Proposal(NamedTuple):
    """A definition as `load_definitions` takes it, or a name that gets none.

    Attributes:
        name: of the feature, or of a column that is left out.
        record: the definition; None: left out.
        reason: why.
    """

    name: str
    record: dict[str, Any] | None
    reason: str


def propose_events(events: EventProfile) -> Iterator[Proposal]:
    """Popularity, quality, freshness and activity, from the log alone."""
    yield _new(
        "item_count",
        "count",
        f"the most popular tenth of the items has {events.top_tenth:.0%} of the events",
        log=True,
    )
    gap = (
        f"half of the events find the item's event before within {events.item_gap_days[0]:.3g} "
        f"days, nine of ten within {events.item_gap_days[1]:.3g}"
    )
    windows = _windows(events.item_gap_days, events.span_days)
    for name, days in zip(("short", "long"), windows, strict=False):
        yield _new(f"item_count_{name}", "count", gap, window_days=days, log=True)
    if len(windows) == 2:
        yield _new("item_trend", "trend", gap, short_days=windows[0], long_days=windows[1])
    else:
        yield _out("item_trend", f"two windows do not fit into {events.span_days:.3g} days: {gap}")
    yield _new("item_recency", "recency", gap)
    yield _new(
        "item_age", "age", f"{events.items:,} items turned up over {events.span_days:,.0f} days"
    )
    yield from _weights(events)
    low, middle, high = events.user_events
    spread = f"a tenth of the users has at most {low:.0f} events, half {middle:.0f}, a tenth from "
    spread += f"{high:.0f} on"
    if high > low:
        yield _new("user_count", "count", spread, by="user", log=True)
    else:
        yield _out("user_count", f"users do not differ: {spread}")
    pause = (
        f"half of the pauses between visits (over 30 minutes) last {events.user_gap_days[0]:.3g} "
        "days or more"
    )
    if events.user_gap_days[0] > 0:
        yield _new("user_recency", "recency", pause, by="user")
        for days in _windows(events.user_gap_days, events.span_days)[:1]:
            yield _new("user_count_window", "count", pause, by="user", window_days=days, log=True)
    yield from _sessions(events)
    yield from _repeats(events)
    for kind, count in list(events.kinds.items())[:_MOST_KINDS] if len(events.kinds) > 1 else []:
        share = f"{count / events.events:.1%} of the events are {kind!r}"
        if count < 0.01 * events.events:
            yield _out(f"item_count_{_plain(kind)}", f"only {share}")
            continue
        yield _new(f"item_count_{_plain(kind)}", "count", share, event=kind, log=True)
        yield _new(f"user_count_{_plain(kind)}", "count", share, by="user", event=kind, log=True)
    weeks = f"the log covers {events.span_days / 7:,.1f} weeks"
    if events.span_days < 14:
        yield _out("day_of_week", f"only {weeks}")
    else:
        yield _new("day_of_week", "day_of_week", weeks)


def propose_columns(
    columns: Sequence[ColumnProfile],
    events: EventProfile,
    interactions: Interactions,
    items: ItemTable,
    users: UserTable | None,
    *,
    whole: Interactions,
    max_categories: int,
    rng: np.random.Generator,
) -> Iterator[Proposal]:
    """What the tables' columns are good for.

    Args:
        columns: their profiles.
        events: profile of ``interactions``.
        interactions: the part of the log that definitions are shaped by.
        items: the catalogue.
        users: the user table, if there is one.
        whole: the whole log; only to find columns that know it.
        max_categories: a category of more values is not turned into codes.
        rng: decides which pairs of events are compared.
    """
    tables: dict[str, pl.DataFrame] = {"item": items.frame}
    if users is not None:
        tables["user"] = users.frame
    hours: list[tuple[float, str]] = []
    for profile in columns:
        name, frame = f"{profile.table}.{profile.column}", tables[profile.table]
        reason = _useless(profile)
        if reason is None and profile.role == "number":
            reason = _total(profile, frame, whole)
        if reason is not None:
            yield _out(name, reason)
        elif profile.role == "number":
            yield from _number(profile)
        else:
            yield from _category(profile, frame, max_categories)
        if reason is None and profile.table == "item" and profile.role in ("category", "list"):
            yield from _attribute(profile, events, interactions, items, rng)
            if not events.whole_days:
                association = hour_association(profile.column, interactions, items)
                hours.append((association, profile.column))
    yield _hour(events, hours)


def _weights(events: EventProfile) -> Iterator[Proposal]:
    weights = events.weights
    if weights.levels < 2:
        yield _out("item_mean_weight", f"all weights are {weights.mean:g}")
        return
    what = f"{weights.levels} weights from {weights.low:g} to {weights.high:g}"
    if weights.prior_count is None:
        yield _out("item_mean_weight", f"{what}, but items do not differ in their mean")
    else:
        prior = _rounded(weights.prior_count)
        reason = (
            f"{what}; their variance within items is {weights.prior_count:.3g} times that between "
            f"items, so the common mean counts as {prior:g} events"
        )
        yield _new("item_mean_weight", "mean_weight", reason, prior_count=prior)
        yield _new(
            "user_mean_weight",
            "mean_weight",
            f"{what}; users use the scale differently, and a few events say little beside the "
            f"mean {weights.mean:.3g}",
            by="user",
            prior=round(weights.mean, 3),
            prior_count=prior,
        )
    if weights.is_rating and weights.like_prior_count is not None:
        yield _new(
            "item_like_rate",
            "rate",
            f"the weights look like ratings, and {weights.like_share:.0%} reach {weights.like:g}, "
            f"the first level above their mean {weights.mean:.3g}",
            threshold=weights.like,
            prior_count=_rounded(weights.like_prior_count),
        )
    elif not weights.is_rating:
        yield _out("item_like_rate", f"the weights are no ratings: {what}")


def _sessions(events: EventProfile) -> Iterator[Proposal]:
    reason = f"{events.in_session:.0%} of the events follow the user's last within 30 minutes"
    if events.in_session < 0.1:
        yield _out("session_events", f"visits are single events: only {reason}")
        return
    yield _new("session_events", "session", reason, what="events")
    if events.span_days > 2:
        yield _new("user_count_day", "count", reason, by="user", window_days=1.0, log=True)


def _repeats(events: EventProfile) -> Iterator[Proposal]:
    reason = f"{events.repeats:.1%} of the events meet an item the user had met before"
    if events.repeats < 0.01:
        yield _out("user_item_count", f"only {reason}")
        return
    yield _new("user_item_count", "count", reason, by="user_item", log=True)
    yield _new("user_item_recency", "recency", reason, by="user_item")
    yield _new("item_users", "unique_count", reason, of="user", log=True)


def _useless(profile: ColumnProfile) -> str | None:
    if profile.distinct == 0:
        return "it has no value at all"
    if profile.distinct == 1:
        return "it is constant: one value in all rows that have any"
    if profile.missing > 0.99:
        return f"{profile.missing:.1%} of the rows have no value"
    if profile.role == "text":
        return "it is free text, which the content encoder reads"
    filled = profile.rows * (1 - profile.missing)
    if profile.role == "category" and profile.distinct > 0.5 * filled:
        return f"it has {profile.distinct:,} values in {filled:,.0f} rows, nearly one each"
    return None


def _total(profile: ColumnProfile, frame: pl.DataFrame, interactions: Interactions) -> str | None:
    """Why the column may hold what only the whole log knows, or None."""
    key = ITEM if profile.table == "item" else USER
    totals = interactions.frame.group_by(key).agg(
        pl.len().alias("events"), pl.col(WEIGHT).mean().alias("mean_weight")
    )
    joined = frame.select(key, pl.col(profile.column).cast(pl.Float64)).join(totals, on=key)
    limit = _NAMED_TOTAL if _TOTAL_NAME.search(profile.column.lower()) else _SURE_TOTAL
    for total, label, least in (("events", "number of events", 1), ("mean_weight", "weights", 5)):
        part = joined.filter(pl.col("events") >= least).drop_nulls()
        if part.height < _LEAST_ITEMS or part[total].n_unique() < 2:
            continue
        found = part.select(pl.corr(profile.column, total, method="spearman")).item()
        if found is not None and np.isfinite(found) and abs(found) >= limit:
            return (
                f"its rank correlation with the {profile.table}'s {label} in the whole log is "
                f"{found:.2f}: it may be a total that knows the future; count with a definition"
            )
    return None


def _number(profile: ColumnProfile) -> Iterator[Proposal]:
    name = profile.column if profile.table == "item" else f"user_{profile.column}"
    filled = profile.rows * (1 - profile.missing)
    if profile.table == "item" and profile.years:
        reason = f"it holds {profile.distinct} years, {profile.missing:.1%} missing"
        yield _new(f"{name}_age", "age", reason, year_column=profile.column)
        yield _out(f"item.{profile.column}", "its age says the same and does not drift with time")
        return
    if filled >= 100 and profile.distinct > 0.99 * filled and profile.whole:
        text = f"it has {profile.distinct:,} whole numbers in {filled:,.0f} rows: an id"
        yield _out(f"{profile.table}.{profile.column}", text)
        return
    reason = (
        f"a number with {profile.distinct:,} values, {profile.missing:.1%} missing, skew "
        f"{profile.skew:.1f}"
    )
    yield _new(name, "field", reason, table=profile.table, column=profile.column)


def _category(profile: ColumnProfile, frame: pl.DataFrame, most: int) -> Iterator[Proposal]:
    if profile.role == "list":
        reason = f"rows have {profile.mean_size:.2f} values each where they have any"
        if profile.table == "item" and profile.mean_size > 1.0:
            yield _new(f"{profile.column}_size", "list_size", reason, column=profile.column)
        return
    name = f"{profile.column if profile.table == 'item' else f'user_{profile.column}'}_code"
    if profile.distinct > most:
        yield _out(name, f"{profile.distinct:,} categories are too many for codes (over {most})")
        return
    reason = f"{profile.distinct} categories; the most frequent has {profile.top_share:.0%} of them"
    values = frame[profile.column].drop_nulls().cast(pl.String).unique().sort().to_list()
    yield _new(name, "category", reason, table=profile.table, column=profile.column, values=values)


def _attribute(
    profile: ColumnProfile,
    events: EventProfile,
    interactions: Interactions,
    items: ItemTable,
    rng: np.random.Generator,
) -> Iterator[Proposal]:
    column = profile.column
    times, share = lift(column, interactions, items, rng)
    reason = (
        f"{share:.0%} of a user's neighbouring events share a value of {column}, {times:.2f} times "
        "as many as events of different users"
    )
    if times < _LEAST_LIFT:
        yield _out(f"{column}_affinity", f"taste does not show: only {reason}")
    else:
        yield _new(f"{column}_affinity", "affinity", reason, column=column)
        yield _new(f"{column}_affinity_last", "affinity", reason, column=column, last=20)
        yield _new(f"{column}_overlap", "last_n_overlap", reason, column=column)
        yield _new(f"{column}_user_recency", "recency", reason, by="user_attribute", column=column)
        if events.weights.prior_count is not None and events.weights.levels > 1:
            yield _new(
                f"{column}_user_mean_weight",
                "mean_weight",
                reason,
                by="user_attribute",
                column=column,
                prior_count=_rounded(events.weights.prior_count),
            )
    per_value = events.events * profile.mean_size / profile.distinct
    long = _windows(events.item_gap_days, events.span_days)[-1:]
    size = f"{profile.distinct} values have {per_value:,.0f} events each on average"
    window = {"window_days": long[0]} if long else {}
    yield _new(f"{column}_count", "count", size, by="attribute", column=column, log=True, **window)


def _hour(events: EventProfile, associations: list[tuple[float, str]]) -> Proposal:
    if events.whole_days:
        return _out("hour_of_day", "the times are whole days")
    if not associations:
        return _out(
            "hour_of_day", "no category or list column to see a difference between hours in"
        )
    strength, column = max(associations)
    reason = f"Cramér's V between the hour and {column} is {strength:.3f}, one event a user and day"
    if strength < _LEAST_ASSOCIATION:
        return _out("hour_of_day", f"what is met hardly depends on it: {reason}")
    return _new("hour_of_day", "hour_of_day", reason)


def _windows(gaps_days: tuple[float, float], span_days: float) -> tuple[float, ...]:
    """A window that half of the gaps fit into, and one for nine of ten, as far as the log goes."""
    short = [days for days in _WINDOWS_DAYS if gaps_days[0] <= days <= span_days / 2]
    if not short:
        return ()
    longer = [days for days in _WINDOWS_DAYS if short[0] < days <= span_days]
    enough = [days for days in longer if days >= gaps_days[1]] or longer[-1:]
    return (short[0], *enough[:1])


def _new(name: str, kind: str, reason: str, **arguments: Any) -> Proposal:
    return Proposal(name, {"kind": kind, "name": name, **arguments}, reason)


def _out(name: str, reason: str) -> Proposal:
    return Proposal(name, None, reason)


def _rounded(count: float) -> float:
    """To two digits: a prior is no more exact than that."""
    return float(f"{count:.2g}")


def _plain(kind: str) -> str:
    return re.sub(r"\W+", "_", kind)
