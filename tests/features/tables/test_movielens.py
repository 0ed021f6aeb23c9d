from __future__ import annotations

from pathlib import Path

import pytest

from features import (
    EventColumns,
    Histories,
    Interactions,
    ItemTable,
    Vocabulary,
    find_problems,
    read_interactions,
    read_items,
)

DATA = Path(__file__).parents[3] / "examples" / "data"
COLUMNS = EventColumns("userId", "movieId", weight="rating", unit="s")


@pytest.fixture(scope="module")
def items() -> ItemTable:
    return read_items(DATA / "movies.parquet", id_column="movieId")


@pytest.fixture(scope="module")
def log(items: ItemTable) -> Interactions:
    return read_interactions(DATA / "ratings.parquet", columns=COLUMNS, items=items)


def test_counts_are_those_of_the_original_readme(items: ItemTable, log: Interactions) -> None:
    assert (len(log), log.num_users, log.num_items, len(items)) == (100_004, 671, 9_066, 9_125)
    assert items.text_columns == ("title", "tags")
    assert items.list_columns == ("genres",)
    assert items.number_columns == ("year",)
    assert items.frame["year"].null_count() == 6


def test_the_bundled_data_are_clean() -> None:
    problems = find_problems(
        DATA / "ratings.parquet", DATA / "movies.parquet", columns=COLUMNS, item_column="movieId"
    )
    assert problems == []


def test_the_licence_is_there() -> None:
    licence = (DATA / "README_original.txt").read_text()
    assert "may redistribute the data set, including transformations" in licence


def test_histories_hold_every_rating(items: ItemTable, log: Interactions) -> None:
    users = log.frame["user_id"].unique(maintain_order=True).to_list()
    histories = Histories.from_interactions(log, users, Vocabulary.from_ids(items.ids))
    head, tail = histories.head_fraction(0.8)
    assert head.item_index.size + tail.item_index.size == 100_004
    assert histories.seen_mask(len(items)).sum() == 100_004
    assert histories.counts.min() == 20
