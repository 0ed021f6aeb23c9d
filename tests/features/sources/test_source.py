from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features import DataError, InMemorySource, ParquetDirectory, ViewDescription

START = datetime(2020, 1, 1)
DAY = timedelta(days=1)


def rows(*values: tuple[str, int, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [item for item, _, _ in values],
            "timestamp": [START + day * DAY for _, day, _ in values],
            "price": [price for _, _, price in values],
        }
    )


@pytest.fixture
def source(tmp_path: Path) -> ParquetDirectory:
    source = ParquetDirectory(tmp_path / "store")
    source.write("prices", rows(("a", 1, 10.0), ("b", 2, 20.0)))
    source.write("prices", rows(("a", 3, 11.0)))
    return source


def test_describe(source: ParquetDirectory, tmp_path: Path) -> None:
    (description,) = source.describe()
    assert description == ViewDescription("prices", ("item_id",), {"price": pl.Float64()}, 3)
    assert ParquetDirectory(tmp_path / "nothing").describe() == []


def test_as_of_keeps_rows_and_order_and_takes_the_moment_itself(source: ParquetDirectory) -> None:
    keys = pl.DataFrame(
        {
            "note": [1, 2, 3, 4, 5, 6],
            "item_id": ["a", "b", "a", "c", "a", "a"],
            "timestamp": [START + day * DAY for day in (3, 1, 0, 9, 2, 3)],
        }
    )
    result = source.as_of("prices", keys)
    assert result.drop("price").equals(keys)
    assert result["price"].to_list() == [11.0, None, None, None, 10.0, 11.0]


def test_latest(source: ParquetDirectory) -> None:
    block = source.latest("prices", ["b", "x", "a"], START + 4 * DAY)
    np.testing.assert_array_equal(block.values["price"], [20.0, np.nan, 11.0])
    assert block.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(block.age_s, [2 * 86_400.0, np.nan, 86_400.0])
    past = source.latest("prices", ["a", "b"], START + DAY)
    np.testing.assert_array_equal(past.values["price"], [10.0, np.nan])


def test_a_later_write_wins_at_the_same_time(source: ParquetDirectory) -> None:
    source.write("prices", rows(("a", 3, 99.0)))
    assert source.latest("prices", ["a"]).values["price"].tolist() == [99.0]
    keys = rows(("a", 3, 0.0)).drop("price")
    assert source.as_of("prices", keys)["price"].to_list() == [99.0]


def test_scan_gives_every_write(source: ParquetDirectory) -> None:
    assert [part.height for part in source.scan("prices")] == [2, 1]
    assert [part.height for part in source.scan("prices", batch_rows=1)] == [1, 1, 1]


def test_half_a_write_is_not_read(source: ParquetDirectory, tmp_path: Path) -> None:
    (tmp_path / "store" / "prices" / "part-000002.tmp").write_bytes(b"half")
    assert source.describe()[0].rows == 3


def test_integer_ids_become_text(tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    source.write("ages", pl.DataFrame({"user_id": [7], "timestamp": [START], "age": [3]}))
    assert source.latest("ages", ["7"]).values["age"].tolist() == [3.0]
    assert source.latest("ages", [7]).values["age"].tolist() == [3.0]


def test_a_view_says_beside_its_parts_what_it_is(tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    source.declare("pairs", ("user_id", "item_id"), ttl=7 * DAY, created=True)
    record = json.loads((tmp_path / "pairs" / "view.json").read_text())
    assert record == {
        "format": 1,
        "keys": ["user_id", "item_id"],
        "ttl_s": 604_800.0,
        "created": True,
    }
    assert source.describe() == []  # no rows yet
    (tmp_path / "pairs" / "view.json").write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(DataError, match="settings of a view must be of format 1, got 2"):
        source.write("pairs", rows(("a", 1, 1.0)))


def test_a_ttl_may_change_and_the_columns_may_not(source: ParquetDirectory) -> None:
    source.declare("prices", ["item_id"], ttl=DAY)
    assert source.latest("prices", ["b"], START + 4 * DAY).present.tolist() == [False]
    with pytest.raises(DataError, match="rows must have the column 'created'"):
        source.declare("prices", ["item_id"], created=True)
    with pytest.raises(DataError, match="the columns of earlier writes"):
        source.declare("prices", ["price"])


def test_memory_views_are_declared_before_their_rows() -> None:
    source = InMemorySource()
    source.write("prices", rows(("a", 1, 1.0)))
    with pytest.raises(DataError, match="view 'prices' must have no rows yet"):
        source.declare("prices", ["item_id"])


def test_unknown_view(source: ParquetDirectory) -> None:
    for name in ("price", "../prices"):
        with pytest.raises(DataError, match=r"view '.*' must exist in .*; did you mean 'prices'"):
            source.scan(name)
    with pytest.raises(DataError, match=r"view 'x' must exist in memory; known: none"):
        InMemorySource().latest("x", ["a"])


@pytest.mark.parametrize(
    ("view", "frame", "message"),
    [
        ("../x", rows(("a", 1, 1.0)), r"view must be letters, digits, .* got '\.\./x'"),
        ("v", rows(("a", 1, 1.0)).drop("timestamp"), "must have an id column, then 'timestamp'"),
        ("v", pl.DataFrame({"id": ["a"], "timestamp": [1]}), "must be a Datetime, got Int64"),
        ("v", rows(("a", 1, 1.0)).with_columns(item_id=None), "item_id must not be null: 1 of 1"),
        ("prices", rows(("a", 1, 1.0)).with_columns(vat=1), "the columns of earlier writes"),
        ("prices", rows(("a", 1, 1.0)).drop("item_id"), "rows must have the column 'item_id'"),
    ],
)
def test_broken_writes(
    source: ParquetDirectory, view: str, frame: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        source.write(view, frame)


@pytest.mark.parametrize(
    ("keys", "ttl", "message"),
    [
        ((), None, "keys must name at least one id column"),
        (("a", "a"), None, "keys must be different id columns, got 'a'"),
        (("timestamp",), None, "keys must be different id columns, got 'timestamp'"),
        (("a",), timedelta(0), "ttl must be > 0, got 0:00:00"),
    ],
)
def test_broken_declarations(
    source: ParquetDirectory, keys: tuple[str, ...], ttl: timedelta | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        source.declare("new", keys, ttl=ttl)
