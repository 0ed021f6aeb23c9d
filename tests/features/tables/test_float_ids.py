from __future__ import annotations

import math
from datetime import datetime

import polars as pl
import pytest

from features.errors import DataError
from features.tables import Interactions, ItemTable, Tables
from features.tables.rules import EventRules

TIMES = [datetime(2024, 1, 1 + k) for k in range(4)]


def log(users: list[float | None], dtype: type[pl.DataType] = pl.Float64) -> pl.DataFrame:
    names = {"user_id": pl.Series(users, dtype=dtype), "item_id": [1.0, 2.0, 1.0, 3.0]}
    return pl.DataFrame({**names, "timestamp": TIMES})


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_whole_numbers_are_ids(dtype: type[pl.DataType]) -> None:
    raw = log([12.0, math.nan, None, 7.0], dtype)
    items = pl.DataFrame({"item_id": [1.0, 2.0, 3.0], "price": [0.5, 1.0, 2.0]})
    tables = Tables(raw, items, rules=EventRules(missing="drop"))
    assert tables.problems == []
    assert tables.interactions.frame.rows() == [
        ("12", "1", TIMES[0], "interaction", 1.0),
        ("7", "3", TIMES[3], "interaction", 1.0),
    ]
    assert tables.item_table.ids == ["1", "2", "3"]
    assert tables.item_table.frame["price"].to_list() == [0.5, 1.0, 2.0]


def test_without_a_rule_a_missing_id_is_a_problem() -> None:
    with pytest.raises(DataError, match=r"user_id.*must not be null or empty"):
        Interactions.from_frame(log([12.0, math.nan, 1.0, 7.0]))


@pytest.mark.parametrize("value", [1.5, 2.0**53 + 2, math.inf])
def test_what_may_have_lost_digits_is_refused(value: float) -> None:
    with pytest.raises(DataError, match="an id that went through floating point may have lost"):
        Interactions.from_frame(log([value, 2.0, 3.0, 4.0]))
    with pytest.raises(DataError, match="an id that went through floating point may have lost"):
        ItemTable.from_frame(pl.DataFrame({"item_id": [value, 2.0]}))
