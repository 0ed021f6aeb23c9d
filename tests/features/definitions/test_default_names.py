"""Columns may be called what they like: the defaults for them find names of their own."""

from __future__ import annotations

import polars as pl
import pytest

from features.definitions import default_definitions
from features.errors import DataError
from features.tables import ItemTable


def names_for(values: dict[str, list[object]], **options: tuple[str, ...]) -> dict[str, str]:
    """Name -> kind of the defaults for a catalogue of four items."""
    items = ItemTable.from_frame(pl.DataFrame({"item_id": ["a", "b", "c", "d"], **values}))
    return {one.name: one.kind for one in default_definitions(items, **options)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "column", ["user_id", "moment", "request_id", "item_count", "hour_of_day", "item_age"]
)
def test_a_number_column_may_be_called_like_another_feature(column: str) -> None:
    plain = names_for({})
    named = names_for({column: [1, 2, 3, 4]})
    assert set(named) - set(plain) == {f"field_{column}"}
    assert {name: named[name] for name in plain} == plain


def test_a_category_called_item_does_not_meet_the_item_s_own_count() -> None:
    named = names_for({"item": ["p", "p", "q", "q"]})
    assert named["item_count"] == "count"
    assert named["count_item_count"] == "count"
    assert named["item_code"] == "category"


def test_columns_do_not_meet_each_other() -> None:
    named = names_for({"genres": [["x"], ["y"], ["x"], []], "genres_count": [1, 1, 1, 0]})
    assert named["genres_count"] == "field"
    assert named["count_genres_count"] == "count"


def test_names_that_are_kept_for_others_are_not_taken() -> None:
    values: dict[str, list[object]] = {"likeness": [1, 2, 3, 4], "score__x": [1, 2, 3, 4]}
    named = names_for(values, reserved=("likeness",))
    assert named["field_likeness"] == named["field_score__x"] == "field"
    assert not {"likeness", "score__x"} & set(named)
    assert names_for(values)["likeness"] == "field"


def test_the_id_column_alone_is_no_collision() -> None:
    with pytest.raises(DataError, match="must be the id if it exists"):
        ItemTable.from_frame(pl.DataFrame({"sku": ["a"], "item_id": ["b"]}), id_column="sku")
