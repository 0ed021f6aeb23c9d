from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from features import DataError, FeatureSource, ParquetDirectory

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


def test_is_a_feature_source(source: ParquetDirectory) -> None:
    assert isinstance(source, FeatureSource)


def test_describe(source: ParquetDirectory, tmp_path: Path) -> None:
    (description,) = source.describe()
    assert description == ("prices", "item_id", {"price": pl.Float64()}, 3)
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
    assert source.latest("prices", ["b", "x", "a"])["price"].to_list() == [20.0, None, 11.0]
    past = source.latest("prices", ["a", "b"], START + DAY)
    assert past["price"].to_list() == [10.0, None]


def test_a_later_write_wins_at_the_same_time(source: ParquetDirectory) -> None:
    source.write("prices", rows(("a", 3, 99.0)))
    assert source.latest("prices", ["a"])["price"].to_list() == [99.0]
    keys = rows(("a", 3, 0.0)).drop("price")
    assert source.as_of("prices", keys)["price"].to_list() == [99.0]


def test_scan_gives_every_write(source: ParquetDirectory) -> None:
    assert [part.height for part in source.scan("prices")] == [2, 1]


def test_half_a_write_is_not_read(source: ParquetDirectory, tmp_path: Path) -> None:
    (tmp_path / "store" / "prices" / "part-000002.tmp").write_bytes(b"half")
    assert source.describe()[0].rows == 3


def test_integer_ids_become_text(tmp_path: Path) -> None:
    source = ParquetDirectory(tmp_path)
    source.write("ages", pl.DataFrame({"user_id": [7], "timestamp": [START], "age": [3]}))
    assert source.latest("ages", ["7"])["age"].to_list() == [3]


def test_unknown_view(source: ParquetDirectory) -> None:
    for name in ("price", "../prices"):
        with pytest.raises(DataError, match=r"view '.*' must exist in .*; known: prices"):
            list(source.scan(name))


def test_keys_need_the_id_and_the_time(source: ParquetDirectory) -> None:
    with pytest.raises(DataError, match="keys must have the column 'item_id' for view 'prices'"):
        source.as_of("prices", pl.DataFrame({"timestamp": [START]}))


@pytest.mark.parametrize(
    ("view", "frame", "message"),
    [
        ("../x", rows(("a", 1, 1.0)), r"view must be letters, digits, .* got '\.\./x'"),
        ("v", rows(("a", 1, 1.0)).drop("timestamp"), "must have an id column, then 'timestamp'"),
        ("v", pl.DataFrame({"id": ["a"], "timestamp": [1]}), "must be a Datetime, got Int64"),
        ("v", rows(("a", 1, 1.0)).with_columns(item_id=None), "item_id must not be null: 1 of 1"),
        ("prices", rows(("a", 1, 1.0)).with_columns(vat=1), "the columns of earlier writes"),
    ],
)
def test_broken_writes(
    source: ParquetDirectory, view: str, frame: pl.DataFrame, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        source.write(view, frame)
