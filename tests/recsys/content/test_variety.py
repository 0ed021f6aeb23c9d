from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from features.tables import ItemTable
from recsys.content.variety import different_descriptions


@pytest.mark.parametrize(
    ("values", "different"),
    [
        ({}, 1),
        ({"title": ["a b", "a c", "a b", "d e"]}, 3),
        ({"title": ["", " ", None, ""]}, 1),
        ({"kind": ["p", "p", "", None]}, 2),
        ({"tags": [["x"], ["x", "y"], [], None]}, 3),
        ({"price": [1.0, float("nan"), None, float("inf")]}, 2),
        ({"kind": ["p", "p", "q", "q"], "price": [1, 2, 1, 2]}, 4),
        ({"vector": [[1.0], [2.0], [3.0], [4.0]]}, 1),  # without a role
    ],
)
def test_different_descriptions(values: dict[str, list[Any]], different: int) -> None:
    frame = pl.DataFrame({"item_id": list("abcd"), **values})
    assert different_descriptions(ItemTable.from_frame(frame)) == different


def test_no_items_have_no_description() -> None:
    frame = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    assert different_descriptions(ItemTable.from_frame(frame)) == 0
