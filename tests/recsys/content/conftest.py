from __future__ import annotations

import polars as pl
import pytest


@pytest.fixture
def catalogue() -> pl.DataFrame:
    kinds = [["Horror", "Thriller"], ["Comedy"], ["Comedy", "Romance"], ["Documentary"], None]
    words = ["ghost house murder", "funny wedding party", "love in paris", "arctic whales", ""]
    return pl.DataFrame(
        {
            "item_id": [str(i) for i in range(60)],
            "title": [f"{words[i % 5]} {['one', 'two', 'three'][i % 3]}" for i in range(60)],
            "genres": [kinds[i % 5] for i in range(60)],
            "studio": [["north", "south", None][i % 3] for i in range(60)],
            "year": [None if i % 7 == 0 else 1950 + i for i in range(60)],
        },
        schema_overrides={"genres": pl.List(pl.String), "year": pl.Int32},
    )
