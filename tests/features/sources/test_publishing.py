from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import DataError, ParquetDirectory
from features.sources.publishing import (
    IMPRESSION_SCHEMA,
    append_impressions,
    candidate_rows,
    publish_view,
    semantic_id_rows,
    vector_rows,
)

MADE = datetime(2024, 5, 1, 3)
IDS = [f"i{number}" for number in range(7)]
VECTORS = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> ParquetDirectory:
    return ParquetDirectory(tmp_path / "store")


def vectors(part: slice, generation: str = "g1", moment: datetime = MADE) -> pl.DataFrame:
    return vector_rows("item_id", IDS[part], VECTORS[part], moment=moment, generation=generation)


def test_vectors_read_back_as_they_were(source: ParquetDirectory) -> None:
    made = publish_view(
        source, "v", "item_id", IDS, vectors, moment=MADE, generation="g1", batch_rows=3
    )
    assert made == ("v", 7, True)
    assert [batch.height for batch in source.scan("v")] in ([3, 3, 1], [7])
    block = source.latest("v", ["i6", "nobody", "i0"], MADE)
    assert block.present.tolist() == [True, False, True]
    assert block.values["vector"].dtype == np.float32
    np.testing.assert_array_equal(block.values["vector"][[0, 2]], VECTORS[[6, 0]])
    assert block.values["generation"].tolist() == ["g1", None, "g1"]
    before = source.latest("v", ["i0"], MADE - timedelta(seconds=1))
    assert not before.present[0]


def test_a_second_call_writes_nothing(source: ParquetDirectory) -> None:
    def publish(generation: str, moment: datetime) -> tuple[bool, int]:
        made = publish_view(
            source,
            "v",
            "item_id",
            IDS,
            lambda part: vectors(part, generation, moment),
            moment=moment,
            generation=generation,
        )
        return made.written, sum(batch.height for batch in source.scan("v"))

    assert publish("g1", MADE) == (True, 7)
    assert publish("g1", MADE) == (False, 7)
    later = MADE + timedelta(days=1)
    assert publish("g2", later) == (True, 14)
    assert publish("g1", MADE) == (False, 14)
    assert source.latest("v", ["i3"], later).values["generation"].tolist() == ["g2"]
    assert source.latest("v", ["i3"], MADE).values["generation"].tolist() == ["g1"]


def test_an_interrupted_call_is_made_good(source: ParquetDirectory) -> None:
    source.write("v", vectors(slice(0, 3)))
    made = publish_view(
        source, "v", "item_id", IDS, vectors, moment=MADE, generation="g1", batch_rows=3
    )
    assert made.written
    np.testing.assert_array_equal(source.latest("v", IDS, MADE).values["vector"], VECTORS)
    again = publish_view(source, "v", "item_id", IDS, vectors, moment=MADE, generation="g1")
    assert not again.written


def test_nothing_to_publish(source: ParquetDirectory) -> None:
    made = publish_view(source, "v", "item_id", [], vectors, moment=MADE, generation="g1")
    assert made == ("v", 0, False)
    assert source.describe() == []


def test_semantic_ids_as_codes_and_text() -> None:
    rows = semantic_id_rows(
        ["a", "b"], np.array([[3, 0, 17], [0, 255, 1]]), moment=MADE, generation="g"
    )
    assert rows.columns == [
        "item_id",
        "timestamp",
        "code_0",
        "code_1",
        "code_2",
        "semantic_id",
        "generation",
    ]
    assert rows["semantic_id"].to_list() == ["3-0-17", "0-255-1"]
    assert rows["code_1"].to_list() == [0, 255]
    assert rows["timestamp"].to_list() == [MADE, MADE]


def candidates(**change: object) -> pl.DataFrame:
    arguments: dict[str, object] = {
        "user_ids": ["u", "v", "w"],
        "item_index": np.array([[2, 1, -1], [-1, -1, -1], [3, -1, -1]]),
        "score": np.array([[0.5, 0.25, -np.inf], [-np.inf] * 3, [1.0, -np.inf, -np.inf]]),
        "source": np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=np.uint8),
        "item_ids": ["a", "b", "c"],
        "source_names": ["tower", "popular"],
        "moment": MADE,
        "generation": "g",
        **change,
    }
    return candidate_rows(**arguments)  # type: ignore[arg-type]


def test_candidates_are_lists_without_padding(source: ParquetDirectory) -> None:
    rows = candidates()
    assert rows["user_id"].to_list() == ["u", "v", "w"]
    assert rows["item_ids"].to_list() == [["b", "a"], [], ["c"]]
    assert rows["scores"].to_list() == [[0.5, 0.25], [], [1.0]]
    assert rows["sources"].to_list() == [["tower", "popular"], [], ["popular"]]
    source.write("c", rows)
    read = source.as_of("c", rows.select("user_id", "timestamp"))
    assert read["item_ids"].to_list() == rows["item_ids"].to_list()
    empty = candidates(
        user_ids=[],
        **{name: np.empty((0, 3), dtype=int) for name in ("item_index", "score", "source")},
    )
    assert empty.schema == rows.schema


def test_lists_become_json_where_the_view_has_text(source: ParquetDirectory) -> None:
    first = candidates(user_ids=["a", "b", "c"], moment=MADE - timedelta(days=1))
    source.write("c", first.with_columns(item_ids=pl.lit("[]"), sources=pl.lit("[]")))
    rows = candidates()
    users = rows["user_id"].to_list()
    publish_view(
        source, "c", "user_id", users, lambda part: rows[part], moment=MADE, generation="g"
    )
    read = source.as_of("c", rows.select("user_id", "timestamp"))
    assert read["item_ids"].to_list() == ['["b", "a"]', "[]", '["c"]']
    assert read["scores"].to_list() == rows["scores"].to_list()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": np.zeros((3, 2))}, r"score must be \[Q, K\] = \[3, 3\], got \[3, 2\]"),
        ({"user_ids": ["u"]}, r"item_index must be \[Q, K\] = \[1, 3\], got \[3, 3\]"),
        ({"item_ids": ["a", "b"]}, "item_index must be within the 2 known ones, got 2"),
        ({"source_names": ["tower"]}, "source must be within the 1 known ones, got 1"),
    ],
)
def test_candidates_that_do_not_fit(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        candidates(**change)


def test_shapes_are_checked() -> None:
    with pytest.raises(
        DataError, match=r"vectors must be \[2, D\], one row per id: got shape \(3,"
    ):
        vector_rows("item_id", ["a", "b"], np.zeros((3, 2)), moment=MADE, generation="g")
    with pytest.raises(
        DataError, match=r"codes must be \[1, L\], one row per id: got shape \(1,\)"
    ):
        semantic_id_rows(["a"], np.zeros(1, dtype=int), moment=MADE, generation="g")


SHOWN = pl.DataFrame(
    {
        "request_id": ["r1", "r1", "r2"],
        "user_id": ["u", "u", "v"],
        "item_id": ["a", "b", "a"],
        "timestamp": [MADE, MADE, MADE + timedelta(minutes=1)],
        "position": [1, 2, 1],
        "policy": ["served"] * 3,
        "propensity": [0.5, 1.0, None],
        "generation": ["g1"] * 3,
        "other": [1, 2, 3],
    }
)


def test_impressions_are_appended(source: ParquetDirectory) -> None:
    receipt = append_impressions(source, SHOWN)
    assert (receipt.view, receipt.rows) == ("impressions", 3)
    append_impressions(source, SHOWN.head(1))
    rows = pl.concat(source.scan("impressions"))
    assert rows.height == 4
    assert dict(rows.schema) == IMPRESSION_SCHEMA
    assert rows["position"].to_list() == [1, 2, 1, 1]
    assert rows["propensity"].to_list() == [0.5, 1.0, None, 0.5]
    (view,) = source.describe()
    assert view.keys == ("user_id", "item_id")
    later = pl.DataFrame(
        {"user_id": ["u"], "item_id": ["b"], "timestamp": [MADE + timedelta(days=1)]}
    )
    assert source.as_of("impressions", later)["position"].to_list() == [2]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (SHOWN.drop("policy"), "impressions must have the column 'policy', got request_id"),
        (SHOWN.with_columns(position=pl.lit("first")), "must have the types of the view"),
        (SHOWN.with_columns(generation=None), "generation must not be null: 3 of 3 are"),
        (SHOWN.with_columns(position=0), "position must be >= 1, got 0 in 3 of 3 rows"),
        (SHOWN.with_columns(propensity=0.0), r"propensity must be in \(0, 1\], got 0.0 in 3"),
        (SHOWN.with_columns(propensity=1.5), r"propensity must be in \(0, 1\], got 1.5"),
        (SHOWN.with_columns(propensity=float("nan")), r"propensity must be in \(0, 1\], got nan"),
    ],
)
def test_impressions_that_break_a_rule(
    source: ParquetDirectory, rows: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        append_impressions(source, rows)
    assert source.describe() == []
