"""Every type that a file can have passes; what has no role stays without one."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from features.tables import ItemTable


def table_of(column: pl.Series) -> ItemTable:
    ids = [f"i{row}" for row in range(len(column))]
    return ItemTable.from_frame(pl.DataFrame({"item_id": ids, "x": column}))


@pytest.mark.parametrize(
    "column",
    [
        pl.Series(np.ones((3, 4), np.float32), dtype=pl.Array(pl.Float32, 4)),
        pl.Series([b"\xff\x00", None, b""]),
        pl.Series([dt.timedelta(minutes=5), None, dt.timedelta(0)]),
        pl.Series([dt.time(1, 2), None, dt.time(3)]),
        pl.Series([[["a"]], [["b"], None], None]),
        pl.Series([[1.0, 2.0], None, []]),
        pl.Series([{"a": 1, "b": ["x"]}] * 3),
        pl.Series([dt.date(2020, 1, 2), None, None]),
        pl.Series([None, None, None]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_a_type_without_a_role_is_kept_as_it_is(column: pl.Series) -> None:
    items = table_of(column)
    roles = (*items.text_columns, *items.category_columns, *items.list_columns)
    assert (*roles, *items.number_columns) == ()
    assert items.frame["x"].equals(column.alias("x"), null_equal=True)


def test_decimals_are_numbers_and_infinite_ones_are_missing() -> None:
    price = table_of(pl.Series([Decimal("1.25"), None, Decimal("2.50")]))
    assert price.number_columns == ("x",)
    assert price.frame["x"].to_list() == [1.25, None, 2.5]
    ratio = table_of(pl.Series([float("inf"), 1.0, float("-inf")]))
    assert ratio.number_columns == ("x",)
    assert ratio.frame["x"].to_list() == [None, 1.0, None]


def test_integers_beyond_64_bits_are_names_and_no_quantities() -> None:
    items = table_of(pl.Series([62218882000425900001, 62218882000425900002, None], dtype=pl.Int128))
    assert items.number_columns == ()
    assert items.frame["x"].to_list() == ["62218882000425900001", "62218882000425900002", None]


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["a", "", " "])])
def test_a_blank_category_is_missing(dtype: pl.DataType) -> None:
    column = pl.Series(["a", "a", "", " ", None, "a"], dtype=dtype)
    items = table_of(column)
    assert items.category_columns == ("x",)
    assert items.frame["x"].to_list() == ["a", "a", None, None, None, "a"]


def test_a_column_of_blanks_alone_is_text() -> None:
    assert table_of(pl.Series(["", " ", "", ""])).text_columns == ("x",)
