"""Definitions that stand together: whether they fit, and the set a data set starts with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import polars as pl

from features.definitions.columns import (
    Category,
    DayOfWeek,
    Definition,
    Field,
    HourOfDay,
    RetrievalRank,
    RetrievalScore,
    SlateRelative,
)
from features.definitions.events import Age, Count, MeanWeight, Recency, Trend
from features.definitions.history import Affinity, LastNOverlap, Similarity
from features.errors import DataError
from features.tables.entities import ItemTable
from features.tables.schema import ITEM, USER

__all__ = [
    "REQUEST_COLUMNS",
    "RETRIEVAL_PREFIXES",
    "check_definitions",
    "default_definitions",
    "holds_years",
    "nearest",
]

REQUEST_COLUMNS = ("request_id", USER, ITEM, "moment")
"""The columns that every request has itself; no definition may be called so."""
RETRIEVAL_PREFIXES = ("score__", "rank__", "share__")
"""How columns begin in which requests say what retrievers found."""


def check_definitions(definitions: Sequence[Definition]) -> tuple[Definition, ...]:
    """The definitions as a tuple, if they fit together.

    Raises:
        DataError: a name is used twice, or a feature that is made of others names none, or one that
            is made of others itself.
    """
    by_name: dict[str, Definition] = {}
    for definition in definitions:
        if definition.name in by_name:
            raise DataError(f"name {definition.name!r} must be used once; rename one of the two")
        by_name[definition.name] = definition
    for definition in definitions:
        for argument, other in definition.made_of.items():
            label = f"definition {definition.name!r}: {argument}"
            if other not in by_name:
                raise DataError(
                    f"{label} must name another definition, got {other!r}; "
                    f"{nearest(other, by_name)}"
                )
            if by_name[other].made_of:
                raise DataError(
                    f"{label} must not be made of others itself, got {other!r}; name one that "
                    "is not"
                )
    return tuple(definitions)


def default_definitions(
    items: ItemTable,
    retrievers: Sequence[str] = (),
    *,
    vectors: Sequence[str] = (),
    short_days: float = 30.0,
    long_days: float = 365.0,
    refresh_s: float = 86_400.0,
    reserved: Collection[str] = (),
    disliked: Sequence[str] = (),
    repeats: bool = False,
) -> tuple[Definition, ...]:
    """A good first set for what columns the catalogue has.

    Item popularity, quality, freshness and trend; the user's activity; how often and how lately
    the user met the candidate's categories and list values; the hour and the day; each retriever's
    score and rank; similarity to the user's last items for each kind of vectors; for each kind of
    dislike how often the item met it, lately and ever, and how often it came from the user.

    Args:
        items: the catalogue; text columns are left to the content encoder.
        retrievers: names whose ``score__`` and ``rank__`` columns requests carry.
        vectors: names of item vectors to compare with the user's last items.
        short_days: the short window of counts and trends.
        long_days: the long window.
        refresh_s: how often the windows of items and attributes move on, in seconds; running state
            keeps a count for each refresh of the long window. 0: with every event.
        reserved: names that other definitions will have. A feature of a column that would take one
            of them, or that of another feature or of a column of requests, has its kind before its
            name: "field_moment", "count_item_count".
        disliked: kinds of events that are dislikes; see `features.tables.rules`.
        repeats: whether candidates may be what the user met before; adds when that was first and
            last, how often lately, and what is in demand this week.
    """
    fixed: list[Definition] = [
        Count(name="item_count", log=True),
        Count(name="item_count_short", window_days=short_days, log=True, refresh_s=refresh_s),
        Count(name="item_count_long", window_days=long_days, log=True, refresh_s=refresh_s),
        MeanWeight(name="item_mean_weight"),
        Recency(name="item_recency"),
        Age(name="item_age"),
        Trend(name="item_trend", short_days=short_days, long_days=long_days, refresh_s=refresh_s),
        Count(name="user_count", by="user", log=True),
        Count(name="user_count_day", by="user", window_days=1.0, log=True),
        MeanWeight(name="user_mean_weight", by="user", prior_count=0.0),
        Recency(name="user_recency", by="user"),
        Age(name="user_age", by="user"),
        Count(name="user_item_count", by="user_item"),
        SlateRelative(name="item_count_in_slate", of="item_count"),
        HourOfDay(name="hour_of_day"),
        DayOfWeek(name="day_of_week"),
    ]
    before_columns = len(fixed)
    for name in vectors:
        fixed.append(Similarity(name=f"{name}_similarity", vectors=name))
    for name in retrievers:
        fixed += [
            RetrievalScore(name=f"score__{name}", retriever=name),
            RetrievalRank(name=f"rank__{name}", retriever=name),
            SlateRelative(name=f"score__{name}_in_slate", of=f"score__{name}"),
        ]
    own = [*_of_columns(items, long_days, refresh_s), *_of_dislikes(disliked, long_days, refresh_s)]
    if repeats:
        own += _of_repeats(short_days, refresh_s)
    first, last = fixed[:before_columns], fixed[before_columns:]
    taken = {*REQUEST_COLUMNS, *reserved, *(definition.name for definition in fixed)}
    return check_definitions([*first, *_named_apart(own, taken), *last])


def _of_columns(items: ItemTable, long_days: float, refresh_s: float) -> list[Definition]:
    """What is asked of the columns of a catalogue, named after them."""
    found: list[Definition] = []
    for column in items.number_columns:
        found.append(Field(name=column, column=column))
        if holds_years(items.frame[column].drop_nulls()):
            found.append(Age(name=f"{column}_age", year_column=column))
    for column in items.category_columns:
        values = items.frame[column].drop_nulls().cast(str).unique().sort().to_list()
        found.append(Category(name=f"{column}_code", column=column, values=tuple(values)))
    for column in (*items.list_columns, *items.category_columns):
        found += [
            Count(
                name=f"{column}_count",
                by="attribute",
                column=column,
                window_days=long_days,
                log=True,
                refresh_s=refresh_s,
            ),
            Affinity(name=f"{column}_affinity", column=column),
            Affinity(name=f"{column}_affinity_last", column=column, last=20),
            LastNOverlap(name=f"{column}_overlap", column=column, last=10),
            MeanWeight(name=f"{column}_user_mean_weight", by="user_attribute", column=column),
            Recency(name=f"{column}_user_recency", by="user_attribute", column=column),
        ]
    return found


def _of_repeats(short_days: float, refresh_s: float) -> list[Definition]:
    """What tells when an item is wanted again, and what everybody wants just now."""
    return [
        Recency(name="user_item_recency", by="user_item"),
        Age(name="user_item_age", by="user_item"),
        Count(name="user_item_count_short", by="user_item", window_days=3 * short_days),
        Count(name="item_count_week", window_days=7.0, log=True, refresh_s=refresh_s),
        Trend(name="item_trend_week", short_days=7.0, long_days=short_days, refresh_s=refresh_s),
        Trend(
            name="item_trend_season",
            short_days=short_days,
            long_days=3 * short_days,
            refresh_s=refresh_s,
        ),
    ]


def _of_dislikes(kinds: Sequence[str], long_days: float, refresh_s: float) -> Iterator[Definition]:
    for kind in kinds:
        name = re.sub(r"\W+", "_", kind)
        yield Count(name=f"item_{name}_count", event=kind, log=True)
        yield Count(
            name=f"item_{name}_count_long",
            event=kind,
            window_days=long_days,
            log=True,
            refresh_s=refresh_s,
        )
        yield Count(name=f"user_{name}_count", by="user", event=kind, log=True)


def _named_apart(definitions: Sequence[Definition], taken: set[str]) -> list[Definition]:
    """The definitions under names of their own: the kind goes before a name that is taken."""
    taken, apart = set(taken), []
    for definition in definitions:
        name = definition.name
        while name in taken or name.startswith(RETRIEVAL_PREFIXES):
            name = f"{definition.kind}_{name}"
        taken.add(name)
        apart.append(definition if name == definition.name else replace(definition, name=name))
    return apart


def holds_years(values: pl.Series) -> bool:
    """Whether ``values`` (of a column, nulls dropped) are whole numbers, all in 1800..2200."""
    if len(values) == 0 or not values.dtype.is_integer():
        return False
    return bool(values.is_between(1800, 2200).all())


def nearest(name: str, known: Mapping[str, object]) -> str:
    """What to say of an unknown name: the nearest known one, and all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"known: {', '.join(sorted(known)) or 'none'}{hint}"
