from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest

from features import (
    DataError,
    EventColumns,
    Interactions,
    ItemTable,
    read_interactions,
)

RAW = pl.DataFrame(
    {
        "user": [2, 1, 1],
        "item": [20, 10, 20],
        "at": [1_000_000_002, 1_000_000_001, 1_000_000_003],
        "stars": [4.0, 5.0, 0.5],
    }
)
COLUMNS = EventColumns("user", "item", "at", weight="stars")


def test_raw_log_becomes_the_inside_form() -> None:
    log = Interactions.from_frame(RAW, columns=COLUMNS)
    assert log.frame.rows() == [
        ("1", "10", datetime(2001, 9, 9, 1, 46, 41), "interaction", 5.0),
        ("2", "20", datetime(2001, 9, 9, 1, 46, 42), "interaction", 4.0),
        ("1", "20", datetime(2001, 9, 9, 1, 46, 43), "interaction", 0.5),
    ]
    assert (len(log), log.num_users, log.num_items) == (3, 2, 2)


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("s", [1_000_000_000]),
        ("s", [1_000_000_000.0]),
        ("ms", [1_000_000_000_000]),
        ("us", [1_000_000_000_000_000]),
        ("iso", ["2001-09-09T01:46:40"]),
        ("iso", ["2001-09-09 01:46:40.000"]),
        ("iso", ["2001-09-09T03:46:40+02:00"]),
        ("iso", ["2001-09-09T01:46:40Z"]),
        ("s", [datetime(2001, 9, 9, 1, 46, 40)]),
        ("s", [datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)]),
        ("s", [datetime(2001, 9, 8, 23, 46, 40, tzinfo=timezone(timedelta(hours=-2)))]),
    ],
)
def test_every_way_to_write_a_time(unit: str, values: list[object]) -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": values})
    log = Interactions.from_frame(frame, columns=EventColumns(unit=unit))  # type: ignore[arg-type]
    assert log.frame["timestamp"].to_list() == [datetime(2001, 9, 9, 1, 46, 40)]


def test_dates_and_short_times() -> None:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [date(2001, 9, 9)]})
    assert Interactions.from_frame(frame).frame["timestamp"][0] == datetime(2001, 9, 9)
    text = frame.with_columns(pl.Series("timestamp", ["2001-09-09"]))
    iso = EventColumns(unit="iso")
    assert Interactions.from_frame(text, columns=iso).frame["timestamp"][0] == datetime(2001, 9, 9)
    text = frame.with_columns(pl.Series("timestamp", ["2001-09-09T01:46"]))
    log = Interactions.from_frame(text, columns=iso)
    assert log.frame["timestamp"][0] == datetime(2001, 9, 9, 1, 46)


def test_columns_named_event_and_weight_are_used_without_asking() -> None:
    frame = RAW.select(
        pl.col("user").alias("user_id"),
        pl.col("item").alias("item_id"),
        pl.col("at").alias("timestamp"),
        pl.lit("click").alias("event"),
        pl.lit(2).alias("weight"),
    )
    log = Interactions.from_frame(frame).frame
    assert log["event"].unique().to_list() == ["click"]
    assert log["weight"].unique().to_list() == [2.0]


def test_default_event_names_events_without_a_kind() -> None:
    columns = EventColumns("user", "item", "at", default_event="rate")
    log = Interactions.from_frame(RAW, columns=columns).frame
    assert log["event"].unique().to_list() == ["rate"]
    assert log["weight"].unique().to_list() == [1.0]


def test_broken_log_raises_all_problems_at_once() -> None:
    frame = RAW.with_columns(
        pl.Series("stars", [-1.0, 1.0, float("nan")]), pl.Series("item", [20, None, 20])
    )
    with pytest.raises(DataError, match="must be finite and >= 0") as caught:
        Interactions.from_frame(frame, columns=COLUMNS, source="log.csv")
    assert [problem.column for problem in caught.value.problems] == ["item", "stars"]
    assert all(problem.source == "log.csv" for problem in caught.value.problems)


def test_catalogue_is_checked_when_given() -> None:
    items = ItemTable.from_frame(pl.DataFrame({"item_id": ["10"]}))
    with pytest.raises(DataError, match="broken in 2 rows, first: 20 "):
        Interactions.from_frame(RAW, columns=COLUMNS, items=items)


def test_constructor_refuses_another_schema() -> None:
    with pytest.raises(DataError, match="frame must have exactly the columns user_id String"):
        Interactions(RAW)


def test_before_is_strict() -> None:
    log = Interactions.from_frame(RAW, columns=COLUMNS)
    assert len(log.before(datetime(2001, 9, 9, 1, 46, 42))) == 1
    assert len(log.before(datetime(2001, 9, 9, 1, 46, 42, 1))) == 2


def test_filter_users() -> None:
    log = Interactions.from_frame(RAW, columns=COLUMNS)
    assert len(log.filter_users(["1", "nobody"])) == 2
    assert len(log.filter_users([])) == 0


def test_fingerprint_is_of_the_content_not_of_the_order() -> None:
    log = Interactions.from_frame(RAW, columns=COLUMNS)
    assert log.fingerprint() == Interactions.from_frame(RAW[::-1], columns=COLUMNS).fingerprint()
    changed = RAW.with_columns(pl.Series("stars", [4.0, 5.0, 1.0]))
    assert log.fingerprint() != Interactions.from_frame(changed, columns=COLUMNS).fingerprint()
    assert log.fingerprint() != Interactions(log.frame.clear()).fingerprint()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_reading_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        RAW.write_parquet(path)
    else:
        RAW.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    log = read_interactions(path, columns=COLUMNS)
    assert log.fingerprint() == Interactions.from_frame(RAW, columns=COLUMNS).fingerprint()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file; check the path"):
        read_interactions(tmp_path / "none.csv")
    (tmp_path / "log.xls").write_bytes(b"PK\x03\x04...")
    with pytest.raises(DataError, match="must be text or Parquet, got an Excel or zip file; expo"):
        read_interactions(tmp_path / "log.xls")


def test_a_log_that_knows_when_its_events_arrived() -> None:
    times = [datetime(2024, 1, day) for day in (1, 1, 2, 5, 3)]
    arrivals = [datetime(2024, 1, day) for day in (4, 2, 2, 4)]
    raw = pl.DataFrame(
        {
            "user_id": ["u"] * 5,
            "item_id": ["a", "a", "b", "c", "d"],
            "timestamp": times,
            "weight": [1.0, 2.0, 3.0, 4.0, 5.0],
            "arrived": [*arrivals, None],
        }
    )
    log = Interactions.from_frame(raw, columns=EventColumns(created="arrived"))
    assert log.frame.columns[-1] == "created"
    # a: the first arrival; c: dated after its arrival; d: arrived when it happened
    assert log.frame["item_id"].to_list() == ["a", "b", "d", "c"]
    assert log.frame["weight"].to_list() == [2.0, 3.0, 5.0, 4.0]
    assert log.frame["timestamp"].dt.day().to_list() == [1, 2, 3, 4]
    assert log.frame["created"].dt.day().to_list() == [2, 2, 3, 4]
    assert log.before(datetime(2024, 1, 3)).frame["item_id"].to_list() == ["a", "b"]
    assert log.before(datetime(2024, 1, 2)).frame.height == 0
    renamed = Interactions.from_frame(raw.rename({"arrived": "created"}))
    assert renamed.fingerprint() == log.fingerprint()


def test_an_arrival_must_be_a_time() -> None:
    raw = pl.DataFrame(
        {"user_id": ["u"], "item_id": ["a"], "timestamp": [1_700_000_000], "created": ["now"]}
    )
    with pytest.raises(DataError, match="'created' must be a number"):
        Interactions.from_frame(raw)
