from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.tables import ItemTable, Vocabulary
from recsys.errors import ArtifactError
from recsys.retrieval.towers.item_fields import FieldVocabulary, item_fields


def catalogue(rows: int = 6) -> ItemTable:
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d", "e", "f"],
            "colour": ["red", "red", "blue", None, "", "blue"],
            "sold": [True, False, True, True, True, True],
            "one": ["same"] * 6,
            "genres": ["x|y", "y|x", None, "z", "x", "y"],
            "price": [1.0, 2.0, 2.0, None, float("nan"), 9.0],
        }
    )
    return ItemTable.from_frame(
        frame.head(rows), category_columns=["colour", "sold", "one"], list_columns=["genres"]
    )


def test_tokens_by_hand() -> None:
    found = item_fields(catalogue(), Vocabulary.from_ids(["c", "a", "nobody", "d", "e", "b"]))
    assert found.names == ("colour", "sold", "genres", "price")  # "one" says nothing
    # blue 1, red 2 (as frequent: by the alphabet) | true 3, false 4 | x 5, y 6, z 7 | 8 9 10
    assert found.tokens.tolist() == [
        [0, 0, 0, 0],
        [1, 3, 0, 9],
        [2, 3, 5, 8],
        [0, 0, 0, 0],
        [0, 3, 7, 0],
        [0, 3, 5, 0],
        [2, 4, 6, 9],
    ]
    assert found.num_tokens == 10


def test_new_items_get_the_old_tokens_and_new_values_none() -> None:
    vocabulary = FieldVocabulary.fit(catalogue())
    new = ItemTable.from_frame(
        pl.DataFrame(
            {
                "item_id": ["g", "h"],
                "price": [100, -3],
                "genres": [["y"], ["unseen", "x"]],
                "sold": [False, False],
                "colour": ["green", "red"],
            }
        ),
        text_columns=["colour"],
    )
    assert vocabulary.encode(new).tolist() == [[0, 4, 6, 10], [2, 4, 0, 8]]


def test_numbers_are_cut_into_bins_of_equal_size() -> None:
    price = np.random.default_rng(0).lognormal(size=1_000)
    items = ItemTable.from_frame(
        pl.DataFrame({"item_id": [str(n) for n in range(1_000)], "price": price})
    )
    tokens = FieldVocabulary.fit(items, num_bins=4).encode(items)[:, 0]
    assert np.bincount(tokens).tolist() == [0, 250, 250, 250, 250]
    order = np.argsort(price)
    assert (np.diff(tokens[order]) >= 0).all()


@pytest.mark.parametrize("piled", [0.0, 30.0])
def test_a_number_that_is_nearly_always_the_same_keeps_two_bins(piled: float) -> None:
    value = np.where(np.arange(1_000) % 50 == 0, np.arange(1_000) / 50 + 1, piled)
    items = ItemTable.from_frame(
        pl.DataFrame({"item_id": [str(n) for n in range(1_000)], "value": value})
    )
    tokens = FieldVocabulary.fit(items).encode(items)[:, 0]
    assert np.unique(tokens).size == 2
    assert np.bincount(tokens).max() == 980


def test_only_the_most_frequent_values_get_tokens() -> None:
    items = ItemTable.from_frame(
        pl.DataFrame({"item_id": list("abcdef"), "rows": ["p", "q", "q", "r", "r", "p"]}),
        category_columns=["rows"],
    )
    found = FieldVocabulary.fit(items, max_values=2)
    assert found.columns[0].values == ("p", "q")
    assert found.encode(items)[:, 0].tolist() == [1, 2, 2, 0, 0, 1]


def test_saved_fields_encode_the_same(tmp_path: Path) -> None:
    vocabulary = FieldVocabulary.fit(catalogue())
    vocabulary.save(tmp_path)
    loaded = FieldVocabulary.load(tmp_path)
    assert loaded == vocabulary
    np.testing.assert_array_equal(loaded.encode(catalogue(3)), vocabulary.encode(catalogue())[:3])
    with pytest.raises(ArtifactError, match="item_fields"):
        FieldVocabulary.load(tmp_path / "nowhere")


def test_a_catalogue_without_columns_has_no_fields() -> None:
    items = ItemTable.from_frame(pl.DataFrame({"item_id": ["a", "b"]}))
    found = item_fields(items, Vocabulary.from_ids(["a", "b"]))
    assert found.tokens.shape == (3, 0)
    assert found.num_tokens == 0


def test_columns_that_do_not_fit_are_named() -> None:
    vocabulary = FieldVocabulary.fit(catalogue())
    frame = catalogue().frame
    with pytest.raises(ValueError, match="must have the column 'price'"):
        vocabulary.encode(ItemTable(frame.drop("price")))
    with pytest.raises(ValueError, match="'price' must be a number column, got String"):
        vocabulary.encode(ItemTable(frame.with_columns(pl.col("price").cast(pl.String))))
    with pytest.raises(ValueError, match="'genres' must be a list column, got String"):
        vocabulary.encode(ItemTable(frame.with_columns(genres=pl.lit("x|y"))))
    with pytest.raises(ValueError, match="max_values must be >= 1"):
        FieldVocabulary.fit(catalogue(), max_values=0)
    with pytest.raises(ValueError, match="num_bins >= 2"):
        FieldVocabulary.fit(catalogue(), num_bins=1)
