from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from features.errors import DataError
from recsys.simulation.experiment import read_units

DAY = timedelta(days=1)
START = datetime(2026, 5, 1)


def impressions(*rows: tuple[str | None, datetime, str, str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [(user, at, request, arms, False) for user, at, request, arms in rows],
        schema={
            "user_id": pl.String,
            "timestamp": pl.Datetime("us"),
            "request_id": pl.String,
            "arms": pl.String,
            "degraded": pl.Boolean,
        },
        orient="row",
    )


def feedback(*rows: tuple[str | None, datetime, str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        rows,
        schema={
            "user_id": pl.String,
            "timestamp": pl.Datetime("us"),
            "event": pl.String,
            "weight": pl.Float64,
        },
        orient="row",
    )


SHOWN = impressions(
    ("ann", START - 2 * DAY, "r0", None),
    ("ann", START, "r1", "other=x;order=new"),
    ("ann", START, "r1", "other=x;order=new"),
    ("ann", START + DAY, "r2", "order=new"),
    ("bob", START + DAY, "r3", "order=old;other=y"),
    ("cat", START + DAY, "r4", "other=y"),
    ("dan", START, "r5", "order=old"),
    ("dan", START + DAY, "r6", "order=new"),
    (None, START, "r7", "order=new"),
)
DONE = feedback(
    ("ann", START - DAY, "click", None),
    ("ann", START, "click", 2.0),
    ("ann", START + DAY, "click", None),
    ("ann", START + DAY, "buy", 10.0),
    ("bob", START, "click", None),
    ("cat", START + DAY, "click", None),
    (None, START + DAY, "click", None),
)


def rows(**values: Any) -> dict[str, dict[str, Any]]:
    found = read_units(SHOWN, DONE, "order", events=["click", "buy"], **values)
    return {row["user_id"]: row for row in found.rows.to_dicts()}


def test_one_row_for_each_user_of_the_experiment() -> None:
    found = read_units(SHOWN.lazy(), DONE.lazy(), "order", events=["click", "buy"])
    assert (found.num_in_two_arms, found.num_without_user) == (1, 1)
    assert found.rows.to_dicts() == [
        {
            "user_id": "ann",
            "arm": "new",
            "exposed_at": START,
            "requests": 2.0,
            "impressions": 3.0,
            "degraded": 0.0,
            "impressions_before": 1.0,
            "click": 2.0,
            "click_weight": 3.0,
            "click_before": 1.0,
            "buy": 1.0,
            "buy_weight": 10.0,
            "buy_before": 0.0,
            "measured_until": START - timedelta(microseconds=1),
        },
        {
            "user_id": "bob",
            "arm": "old",
            "exposed_at": START + DAY,
            "requests": 1.0,
            "impressions": 1.0,
            "degraded": 0.0,
            "impressions_before": 0.0,
            "click": 0.0,
            "click_weight": 0.0,
            "click_before": 1.0,
            "buy": 0.0,
            "buy_weight": 0.0,
            "buy_before": 0.0,
            "measured_until": START + DAY - timedelta(microseconds=1),
        },
    ]


def test_the_past_ends_where_it_is_told() -> None:
    assert rows(history_s=3600.0)["ann"]["click_before"] == 0
    assert rows(history_s=86_400.0)["ann"]["click_before"] == 1


def test_a_window_counts_whole_users_alike() -> None:
    half = rows(window_s=43_200.0)
    assert half["ann"]["click"] == 1
    assert "bob" not in half  # the log ends before the window
    both = rows(window_s=43_200.0, until=START + 2 * DAY)
    assert both["bob"]["impressions"] == 1


def test_since_and_until() -> None:
    assert set(rows(since=START + DAY)) == {"ann", "bob", "dan"}
    assert rows(since=START + DAY)["ann"]["exposed_at"] == START + DAY
    early = rows(until=(START + DAY).replace(tzinfo=UTC))
    assert set(early) == {"ann", "dan"}
    assert early["ann"]["click"] == 1


def test_a_log_without_the_column_degraded() -> None:
    found = read_units(SHOWN.drop("degraded"), DONE, "order", events=[])
    assert found.rows["degraded"].to_list() == [0.0, 0.0]


def test_units_refuse() -> None:
    with pytest.raises(DataError, match="got none of 'price' among 9 impressions"):
        read_units(SHOWN, DONE, "price", events=["click"])
    with pytest.raises(ValueError, match="window_s and history_s must be > 0 seconds"):
        rows(window_s=0.0)
    with pytest.raises(ValueError, match="window_s and history_s must be > 0 seconds"):
        rows(history_s=0.0)
