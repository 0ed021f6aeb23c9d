from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from features.errors import DataError
from features.tables import Tables

LOG = pl.DataFrame(
    {
        "user_id": [f"u{k}" for k in range(7)],
        "item_id": ["b", "a", "a", "b", "a", "c", "b"],
        "timestamp": [datetime(2024, 1, 1 + k) for k in range(7)],
        "name": ["bell", "APPLE", "apple", "ball", "apple", None, "ball"],
        "colour": ["red", "green", "red", "red", "green", "blue", None],
        "tags": ["x|y", None, "z", "x|y", "z", "y", "x"],
    }
)


def test_an_item_is_what_most_of_its_rows_say() -> None:
    tables = Tables(
        LOG,
        item_options={
            "id_column": "item_id",
            "text_columns": ["name"],
            "category_columns": ["colour"],
            "list_columns": ["tags"],
        },
    )
    items = tables.item_table
    assert items.frame.rows() == [
        ("b", "ball", "red", ["x", "y"]),
        ("a", "apple", "green", ["z"]),
        ("c", None, "blue", ["y"]),
    ]
    assert (items.text_columns, items.category_columns) == (("name",), ("colour",))


def test_without_named_columns_items_have_ids_alone() -> None:
    assert Tables(LOG).item_table.frame.columns == ["item_id"]


def test_a_column_that_the_log_lacks_is_told() -> None:
    options = {"id_column": "item_id", "text_columns": ["nmae"]}
    with pytest.raises(DataError, match=r"nmae.*must exist.*Correct the name in text_columns"):
        _ = Tables(LOG, item_options=options).item_table
