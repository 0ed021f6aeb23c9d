from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features import Interactions, ItemTable, UserTable
from features.suggest.profile import profile_columns, profile_events

START = datetime(2024, 1, 1, 12)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def log(rows: list[tuple[str, str, timedelta, str, float]]) -> Interactions:
    """(user, item, time since START, kind, weight)."""
    columns = {
        "user_id": [row[0] for row in rows],
        "item_id": [row[1] for row in rows],
        "timestamp": [START + row[2] for row in rows],
        "event": [row[3] for row in rows],
        "weight": [row[4] for row in rows],
    }
    return Interactions.from_frame(pl.DataFrame(columns), now=datetime(2030, 1, 1))


def test_columns() -> None:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "year": [1999, 1999, 2001, None],
            "price": [1.0, float("nan"), 2.0, 9.0],
            "colour": ["red", "red", None, "blue"],
            "genres": [["x", "y"], ["x"], [], ["x", "y", "z"]],
            "note": ["one", "two", "three", "four"],
        }
    )
    items = ItemTable.from_frame(frame, category_columns=["colour"], text_columns=["note"])
    found = {one.column: one for one in profile_columns(items)}
    assert list(found) == ["year", "price", "colour", "genres", "note"]
    year = found["year"]
    assert (year.role, year.rows, year.missing, year.distinct) == ("number", 4, 0.25, 2)
    assert (year.years, year.whole, year.top_share) == (True, True, pytest.approx(2 / 3))
    price = found["price"]
    assert (price.missing, price.distinct, price.years, price.whole) == (0.25, 3, False, False)
    # of 1, 2, 9: mean 4, deviations -3, -2, 5
    assert price.skew == pytest.approx((-27 - 8 + 125) / 3 / (38 / 3) ** 1.5)
    colour = found["colour"]
    assert (colour.role, colour.missing, colour.distinct) == ("category", 0.25, 2)
    genres = found["genres"]
    assert (genres.missing, genres.distinct, genres.mean_size) == (0.25, 3, 2.0)
    assert genres.top_share == 1.0
    assert found["note"].role == "text"
    users = UserTable.from_frame(pl.DataFrame({"user_id": ["u"], "age": [7]}))
    assert [(one.table, one.column) for one in profile_columns(users)] == [("user", "age")]


def test_an_empty_table() -> None:
    frame = pl.DataFrame({"item_id": [], "n": []}, schema={"item_id": pl.String, "n": pl.Int64})
    (found,) = profile_columns(ItemTable.from_frame(frame))
    assert (found.rows, found.missing, found.distinct, found.top_share) == (0, 1.0, 0, 0.0)


def test_events() -> None:
    found = profile_events(
        log(
            [
                ("u", "a", 0 * DAY, "view", 1.0),
                ("u", "b", 10 * MINUTE, "view", 2.0),
                ("u", "a", 4 * DAY + 10 * MINUTE, "buy", 3.0),
                ("v", "a", 6 * DAY + 10 * MINUTE, "view", 4.0),
            ]
        )
    )
    assert (found.events, found.users, found.items) == (4, 2, 2)
    assert (found.first, found.last) == (START, START + 6 * DAY + 10 * MINUTE)
    assert found.span_days == pytest.approx(6 + 10 / 1440)
    assert found.kinds == {"view": 3, "buy": 1}
    assert found.top_tenth == 0.75
    assert found.repeats == 0.25
    assert found.in_session == 0.25
    assert found.user_gap_days[0] == 4.0
    assert found.item_gap_days == (pytest.approx(4 + 10 / 1440),) * 2
    assert not found.whole_days
    weights = found.weights
    assert (weights.levels, weights.low, weights.high, weights.mean) == (4, 1.0, 4.0, 2.5)
    assert (weights.is_rating, weights.like, weights.like_share) == (True, 3.0, 0.5)


def test_events_of_one_weight_on_whole_days() -> None:
    frame = log([("u", "a", one * DAY - timedelta(hours=12), "x", 1.0) for one in range(3)])
    found = profile_events(frame)
    assert found.whole_days
    assert found.weights == (1, 1.0, 1.0, 1.0, False, 1.0, 1.0, None, None)


def test_prior_counts_find_the_variances_they_were_drawn_with() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 60, 800)
    means = rng.normal(3.0, 0.5, 800)  # between items: variance 0.25
    item = np.repeat(np.arange(800), sizes)
    weight = means[item] + rng.normal(0, 1.0, item.size)  # within: 1, so the prior is worth 4
    frame = pl.DataFrame(
        {
            "user_id": pl.Series(np.arange(item.size)).cast(pl.String),
            "item_id": pl.Series(item).cast(pl.String),
            "timestamp": pl.Series([START] * item.size, dtype=pl.Datetime("us")),
            "weight": pl.Series(weight - weight.min()),
        }
    )
    found = profile_events(Interactions.from_frame(frame, now=datetime(2030, 1, 1))).weights
    assert found.prior_count == pytest.approx(4.0, rel=0.1)
    assert not found.is_rating
