from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features import Count, DataError, Field, HourOfDay, Interactions, ItemTable
from features.suggest.signal import HeldOut, hold_out, measure

START = datetime(2024, 1, 1)
ITEMS = ItemTable.from_frame(
    pl.DataFrame({"item_id": list("abcd"), "price": [1.0, 2.0, 3.0, None], "one": [5] * 4})
)


def log(rows: list[tuple[str, str]]) -> Interactions:
    """(user, item), a day apart."""
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _ in rows],
            "item_id": [item for _, item in rows],
            "timestamp": [START + timedelta(days=at) for at in range(len(rows))],
        }
    )
    return Interactions.from_frame(frame, now=datetime(2030, 1, 1))


def test_requests_hold_a_later_event_and_items_never_met() -> None:
    events = log([("u", "a"), ("v", "b")] * 5 + [("u", "c"), ("v", "a"), ("u", "a")])
    held_out = hold_out(
        events, ITEMS, events=50, negatives=6, rng=np.random.default_rng(0), share=0.3
    )
    assert held_out.since == START + timedelta(days=9)
    assert held_out.users == 2
    rows = held_out.requests.with_columns(met=pl.Series(held_out.met))
    met = rows.filter("met")
    assert met["item_id"].to_list() == ["b", "c", "a", "a"]
    assert met["request_id"].to_list() == [0, 1, 2, 3]
    seen = {"u": {"a", "c"}, "v": {"a", "b"}}
    others = rows.filter(~pl.col("met"))
    assert others.height >= 4
    for row in others.iter_rows(named=True):
        assert row["item_id"] not in seen[row["user_id"]]
    moments = rows.group_by("request_id").agg(pl.col("moment").n_unique(), pl.col("met").first())
    assert moments["moment"].to_list() == [1] * 4
    assert moments["met"].all()


def test_signal_by_hand() -> None:
    events = log([("u", "a"), ("v", "a"), ("v", "c"), ("u", "b")])
    requests = pl.DataFrame(
        {
            "request_id": [0, 0, 0, 1, 1, 1],
            "user_id": ["u", "u", "u", "v", "v", "v"],
            "item_id": ["b", "a", "d", "c", "a", "b"],
            "moment": [START + timedelta(days=3)] * 3 + [START + timedelta(days=2)] * 3,
        },
        schema_overrides={"moment": pl.Datetime("us")},
    )
    met = np.array([True, False, False, True, False, False])
    found = measure(
        [
            Field(name="price", column="price"),
            Count(name="count"),
            Field(name="one", column="one"),
            HourOfDay(name="hour"),
            Count(name="user_count", by="user"),
        ],
        HeldOut(requests, met, START, 2),
        events,
        ITEMS,
    )
    # u: 2 against 1, the missing one takes no part; v: 3 against 1 and 2
    assert found["price"] == (pytest.approx(5 / 6), False, 1.0, 2)
    # u: b has 0 of before, a 2, d 0; v: c has 0, a 2, b 0
    assert found["count"] == (1.0, False, 0.25, 2)
    assert found["one"][:3] == (1.0, True, None)
    assert found["hour"][1:] == (True, None, 0)
    # the user's count does not differ within a request
    assert found["user_count"].auc is None


def test_arguments_are_checked() -> None:
    events, rng = log([("u", "a"), ("u", "b")]), np.random.default_rng(0)
    with pytest.raises(DataError, match="events must be >= 1, got 0"):
        hold_out(events, ITEMS, events=0, negatives=1, rng=rng)
    with pytest.raises(DataError, match="negatives must be >= 1, got 0"):
        hold_out(events, ITEMS, events=1, negatives=0, rng=rng)
    with pytest.raises(DataError, match=r"share must be in 0..1, got 1"):
        hold_out(events, ITEMS, events=1, negatives=1, rng=rng, share=1.0)
    with pytest.raises(DataError, match="at least 2 events and the catalogue items, got 1 events"):
        hold_out(log([("u", "a")]), ITEMS, events=1, negatives=1, rng=rng)
