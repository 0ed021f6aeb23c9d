"""A small world for features: items, users, one definition of every kind, random logs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

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
    Interactions,
    Interval,
    ItemTable,
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
    UserTable,
    VectorComponent,
    Vocabulary,
)

START = datetime(2020, 1, 1)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

ITEMS = ItemTable.from_frame(
    pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "genres": [["x", "y"], ["y"], [], ["x", "y", "z"]],
            "maker": ["m", "n", None, "m"],
            "year": [2000, None, 2010, 2021],
            "title": ["Red fox", "the red, red house", None, "House 7"],
        }
    ),
    category_columns=["maker"],
    text_columns=["title"],
)
USERS = UserTable.from_frame(
    pl.DataFrame(
        {
            "user_id": ["u", "v", "silent"],
            "age": [30, 40, 50],
            "land": ["p", "q", "p"],
            "zone": ["Europe/Berlin", None, "Asia/Kolkata"],
        }
    ),
    category_columns=["land", "zone"],
)
IDS = Vocabulary.from_ids(["b", "a", "d"])  # no vector for c
VECTORS = {
    "content": (IDS, np.array([[9, 9], [1, 0], [0, 2], [0, 0]], dtype=np.float32)),
}

_EVENT_KINDS: list[Definition] = [
    definition
    for by in ("global", "item", "user", "user_item")
    for definition in (
        Count(name=f"count_{by}", by=by),
        Count(name=f"count_{by}_w", by=by, window_days=1.5, weighted=True, log=True),
        Count(name=f"count_{by}_buy", by=by, event="buy"),
        Rate(name=f"rate_{by}", by=by, threshold=3.0, prior=0.5, prior_count=2),
        Rate(name=f"rate_{by}_0", by=by, threshold=2.0, prior_count=0, window_days=2, event="view"),
        MeanWeight(name=f"mean_{by}", by=by, prior=1.0, window_days=3),
        Recency(name=f"recency_{by}", by=by),
        Recency(name=f"recency_{by}_s", by=by, unit="s", event="buy"),
        Age(name=f"age_{by}", by=by),
        Age(name=f"age_{by}_s", by=by, unit="s", event="buy"),
        Trend(name=f"trend_{by}", by=by, short_days=1, long_days=4),
        Count(name=f"count_{by}_r", by=by, refresh_s=12 * 3600),
        Count(name=f"count_{by}_wr", by=by, window_days=1.5, refresh_s=12 * 3600, event="buy"),
        MeanWeight(name=f"mean_{by}_wr", by=by, prior=1.0, window_days=2, refresh_s=24 * 3600),
        Recency(name=f"recency_{by}_r", by=by, refresh_s=12 * 3600, ttl_days=2),
        Age(name=f"age_{by}_r", by=by, refresh_s=12 * 3600, unit="s"),
        UniqueCount(name=f"users_{by}", by=by, of="user"),
        UniqueCount(name=f"items_{by}_w", by=by, of="item", window_days=1.5, log=True),
        UniqueCount(name=f"genres_{by}_w", by=by, of="genres", window_days=2, event="buy"),
        UniqueCount(name=f"items_{by}_r", by=by, of="item", window_days=2, refresh_s=12 * 3600),
        UniqueCount(name=f"baskets_{by}_w", by=by, of="basket", window_days=2),
        Interval(name=f"interval_{by}", by=by, prior_count=0),
        Interval(name=f"interval_{by}_r", by=by, prior=1.0, refresh_s=12 * 3600),
        Interval(name=f"interval_{by}_buy", by=by, prior=0.5, event="buy"),
    )
]
_ATTRIBUTE_KINDS: list[Definition] = [
    definition
    for by in ("attribute", "user_attribute")
    for column in ("genres", "maker")
    for definition in (
        Count(name=f"count_{by}_{column}", by=by, column=column, window_days=2),
        Rate(name=f"rate_{by}_{column}", by=by, column=column, threshold=3.0, prior_count=1),
        MeanWeight(name=f"mean_{by}_{column}", by=by, column=column, event="buy"),
        Recency(name=f"recency_{by}_{column}", by=by, column=column),
        Age(name=f"age_{by}_{column}", by=by, column=column, unit="s"),
        Trend(name=f"trend_{by}_{column}", by=by, column=column, short_days=1, long_days=3),
        UniqueCount(name=f"u_{by}_{column}", by=by, column=column, of="user", window_days=2),
        UniqueCount(name=f"m_{by}_{column}", by=by, column=column, of="maker", log=True),
        Rate(
            name=f"rate_{by}_{column}_r",
            by=by,
            column=column,
            threshold=2.0,
            window_days=2,
            refresh_s=6 * 3600,
        ),
        Interval(name=f"interval_{by}_{column}", by=by, column=column),
    )
]
EVERYTHING: tuple[Definition, ...] = (
    *_EVENT_KINDS,
    *_ATTRIBUTE_KINDS,
    MeanWeight(name="mean_item_prior", by="item"),
    MeanWeight(name="mean_user_item_prior", by="user_item", prior_count=3),
    Interval(name="interval_item_prior"),
    Interval(name="interval_user_item_prior", by="user_item", prior_count=2),
    BasketShare(name="basket_share"),
    BasketShare(name="basket_share_buy", event="buy", window_days=2),
    Field(name="year", column="year"),
    Field(name="age", table="user", column="age", default=-1.0),
    Category(name="maker_code", column="maker", values=("n", "m")),
    Category(name="land_code", table="user", column="land", values=("p",)),
    Age(name="item_years", year_column="year"),
    Affinity(name="affinity", column="genres"),
    Affinity(name="affinity_maker_buy", column="maker", event="buy"),
    Affinity(name="affinity_2", column="genres", last=2),
    Affinity(name="affinity_any", column="genres", how="any", last=3, default=0.0),
    LastNOverlap(name="overlap", column="genres", last=2),
    LastNOverlap(name="overlap_maker", column="maker", event="view"),
    Similarity(name="similar", vectors="content", last=2),
    Similarity(name="similar_buy", vectors="content", event="buy"),
    Affinity(name="affinity_ttl", column="genres", ttl_days=2),
    Affinity(name="affinity_ttl_2", column="genres", last=2, ttl_days=1.5),
    LastNOverlap(name="overlap_session", column="genres", last=4, session_minutes=400),
    Similarity(name="similar_ttl", vectors="content", last=3, ttl_days=1),
    Session(name="session"),
    Session(name="session_events", session_minutes=400),
    Session(name="session_items", what="items", session_minutes=800, last=3),
    Session(name="session_weight", what="weight", session_minutes=800, event="view"),
    Session(name="session_seconds", what="seconds", session_minutes=800),
    ListSize(name="genres_size", column="genres"),
    ListContains(name="genres_y", column="genres", value="y"),
    VectorComponent(name="content_1", vectors="content", component=1),
    TextMatch(name="match", column="title"),
    TextMatch(name="match_long", column="title", k1=2.0, b=0.1, default=0.0),
    Position(name="position_shown", online=3.0),
    HourOfDay(name="hour"),
    HourOfDay(name="hour_there", zone="America/New_York", zone_column="zone"),
    DayOfWeek(name="day"),
    DayOfWeek(name="day_in_auckland", zone="Pacific/Auckland"),
    RetrievalScore(name="score", retriever="ann"),
    RetrievalRank(name="rank", retriever="ann", default=99.0),
    SlateRelative(name="count_rank", of="count_item"),
    SlateRelative(name="score_rank", of="score"),
    Difference(name="due", of="recency_user_item", minus="interval_item_prior"),
    SlateRelative(name="overlap_minus", of="overlap", how="minus_mean"),
)


def raw_events(events: list[Any]) -> pl.DataFrame:
    """(user, item, time, kind, weight), and perhaps the time of arrival."""
    names = ["user_id", "item_id", "timestamp", "event", "weight"]
    types = [pl.String, pl.String, pl.Datetime("us"), pl.String, pl.Float32]
    if events and len(events[0]) == 6:
        names, types = [*names, "created"], [*types, pl.Datetime("us")]
    return pl.DataFrame(events, schema=list(zip(names, types, strict=True)), orient="row")


def interactions(events: list[Any]) -> Interactions:
    return Interactions.from_frame(raw_events(events))


QUERIES = ["red HOUSE", None, "7 unheard", ""]


def requests_of(rows: list[tuple[int, str, str, datetime]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        rows,
        schema={
            "request_id": pl.Int64,
            "user_id": pl.String,
            "item_id": pl.String,
            "moment": pl.Datetime("us"),
        },
        orient="row",
    )
    place = np.arange(frame.height)
    score = pl.Series((place % 3).astype(np.float64))
    return frame.with_columns(
        pl.when(pl.Series(place % 4 != 3)).then(score).alias("score__ann"),
        pl.Series("rank__ann", place + 1),
        pl.Series("position", place % 5),
        pl.Series("query", [QUERIES[row % 4] for row in place], dtype=pl.String),
    )


# times on a coarse grid so that ties with each other and with the moments are common
STEP = st.integers(0, 20).map(lambda step: START + step * 6 * HOUR)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from("abcdz"),
        STEP,
        st.sampled_from(["view", "buy"]),
        st.sampled_from([0.0, 0.1, 0.7, 1.3, 2.0, 3.0, 4.9]),
    ),
    max_size=25,
    unique_by=lambda event: event[:4],
)
# an arrival may precede the event (a wrong clock), and an event may arrive twice
LATE_EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from("abcdz"),
        STEP,
        st.sampled_from(["view", "buy"]),
        st.sampled_from([0.0, 0.1, 0.7, 1.3, 2.0, 3.0, 4.9]),
        STEP,
    ),
    max_size=25,
)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["u", "v", "silent", "nobody"]),
        st.sampled_from(["a", "b", "c", "d", "z", "unknown"]),
        STEP,
    ),
    min_size=1,
    max_size=12,
)
