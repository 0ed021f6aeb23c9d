from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from features import EventColumns, Problem, find_problems

NOW = datetime(2020, 1, 1)
T = 1_500_000_000


def log(**columns: list[Any]) -> pl.DataFrame:
    base: dict[str, list[Any]] = {
        "user_id": [1, 2, 3],
        "item_id": [10, 20, 30],
        "timestamp": [T, T + 1, T + 2],
        "event": ["view", "view", "view"],
        "weight": [1.0, 0.0, 2.0],
    }
    return pl.DataFrame(base | columns, strict=False)


def one(frame: pl.DataFrame, columns: EventColumns | None = None, **tables: Any) -> Problem:
    problems = find_problems(frame, columns=columns, now=NOW, **tables)
    assert len(problems) == 1, problems
    return problems[0]


def test_clean_data_have_no_problems() -> None:
    items = pl.DataFrame({"item_id": ["10", "20", "30"]})
    assert find_problems(log(), items, pl.DataFrame({"user_id": [1]}), now=NOW) == []


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
def test_missing_column(column: str) -> None:
    problem = one(log().drop(column))
    assert (problem.column, problem.rule, problem.rows) == (column, "must exist", 0)


def test_named_optional_column_must_exist() -> None:
    assert one(log(), EventColumns(weight="stars")).column == "stars"
    assert one(log(), EventColumns(event="kind")).column == "kind"


@pytest.mark.parametrize(
    ("columns", "rule"),
    [
        ({"user_id": [1.5, 2.0, 3.0]}, "must be an integer or a string"),
        ({"timestamp": ["a", "b", "c"]}, "must be a number (unit 's')"),
        ({"timestamp": [True, False, True]}, "must be a time"),
        ({"event": [1.5, 2.5, 3.5]}, "must be a string or a whole number"),
        ({"weight": ["a", "b", "c"]}, "must be a number"),
    ],
)
def test_wrong_types(columns: dict[str, list[Any]], rule: str) -> None:
    problem = one(log(**columns))
    assert (problem.rule, problem.rows) == (rule, 0)
    assert problem.first.startswith("it is ")


def test_numbers_are_no_iso_text() -> None:
    problem = one(log(), EventColumns(unit="iso"))
    assert problem.rule == "must be text (unit 'iso')"


@pytest.mark.parametrize(
    ("columns", "column", "rule", "rows", "first"),
    [
        ({"user_id": [1, None, None]}, "user_id", "must not be null or empty", 2, "None (row 1)"),
        ({"item_id": ["a", "b", " "]}, "item_id", "must not be null or empty", 1, "' ' (row 2)"),
        (
            {"timestamp": [T, None, T]},
            "timestamp",
            "must hold a time that can be read",
            1,
            "None (row 1)",
        ),
        (
            {"timestamp": [T, T, float("nan")]},
            "timestamp",
            "must hold a time that can be read",
            1,
            "nan (row 2)",
        ),
        ({"event": ["a", None, "b"]}, "event", "must not be null", 1, "None (row 1)"),
        ({"weight": [1.0, -2.0, 1.0]}, "weight", "must be finite and >= 0", 1, "-2.0 (row 1)"),
        (
            {"weight": [None, 1.0, float("inf")]},
            "weight",
            "must be finite and >= 0",
            2,
            "None (row 0)",
        ),
    ],
)
def test_broken_values(
    columns: dict[str, list[Any]], column: str, rule: str, rows: int, first: str
) -> None:
    problem = one(log(**columns))
    assert (problem.column, problem.rule) == (column, rule)
    assert (problem.rows, problem.first) == (rows, first)


def test_text_that_is_no_time() -> None:
    frame = log(timestamp=["2019-01-01", "yesterday", "2019-01-01 10:00:00"])
    problem = one(frame, EventColumns(unit="iso"))
    assert (problem.rows, problem.first) == (1, "'yesterday' (row 1)")


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("truth", ["s", "ms", "us"])
def test_time_in_another_unit_is_told_which(unit: str, truth: str) -> None:
    scale = {"s": 1, "ms": 1_000, "us": 1_000_000}[truth]
    frame = log(timestamp=[(T + row) * scale for row in range(3)])
    columns = EventColumns(unit=unit)  # type: ignore[arg-type]
    if unit == truth:
        assert find_problems(frame, columns=columns, now=NOW) == []
        return
    problem = one(frame, columns)
    assert problem.rule == f"must lie between 1971 and 2020-12-31 when read as {unit!r}"
    assert problem.rows == 3
    assert problem.remedy.startswith(f"Declare the unit {truth!r}")


def test_time_that_no_unit_explains() -> None:
    assert "No unit makes" in one(log(timestamp=[T, T, 12])).remedy


def test_datetimes_that_were_parsed_in_the_wrong_unit() -> None:
    problem = one(log(timestamp=[datetime(1970, 1, 18)] * 3))
    assert "another unit; parse it again" in problem.remedy


def test_the_clock_is_the_default_now() -> None:
    future = int(datetime(2200, 1, 1).timestamp())
    assert len(find_problems(log(timestamp=[T, T, future]))) == 1


def test_duplicate_events() -> None:
    frame = pl.concat([log(), log()[1:2]])
    problem = one(frame)
    assert problem.rows == 1
    assert problem.first == "user_id=2, item_id=20, timestamp=1500000001, event=view (row 3)"
    other_kind = log()[1:2].with_columns(pl.lit("buy").alias("event"))
    assert find_problems(pl.concat([log(), other_kind]), now=NOW) == []


def test_items_without_a_row_in_the_catalogue() -> None:
    problem = one(log(), items=pl.DataFrame({"item_id": [10, 30]}))
    assert problem.rule == "must be described by a row of the item table"
    assert (problem.rows, problem.first) == (1, "20 (row 1)")


def test_tables_need_one_row_per_id() -> None:
    items = pl.DataFrame({"movieId": [10, 20, 30, 30, None]})
    problems = find_problems(log(), items, now=NOW, item_column="movieId")
    assert [(problem.source, problem.rule, problem.rows) for problem in problems] == [
        ("items", "must not be null or empty", 1),
        ("items", "must not repeat (movieId)", 1),
    ]
    problem = one(log(), users=pl.DataFrame({"id": [1]}))
    assert (problem.source, problem.column, problem.rule) == ("users", "user_id", "must exist")
    users = pl.DataFrame({"name": [1, 1]})
    assert one(log(), users=users, user_column="name").rule == "must not repeat (name)"


def test_everything_is_reported_at_once_and_nothing_is_changed(tmp_path: Path) -> None:
    frame = log(user_id=[None, 2, 2], item_id=[10, 99, 99], timestamp=[5, T, T], weight=[-1, 1, 1])
    path = tmp_path / "log.parquet"
    frame.write_parquet(path)
    content = path.read_bytes()
    items = tmp_path / "items.csv"
    pl.DataFrame({"item_id": [10, 10]}).write_csv(items)
    problems = find_problems(path, items, str(tmp_path / "users.csv"), now=NOW)
    assert [problem.source for problem in problems] == [
        str(tmp_path / "users.csv"),
        *[str(path)] * 5,
        str(items),
    ]
    assert {problem.column for problem in problems[1:6]} == {
        "user_id",
        "timestamp",
        "weight",
        "user_id, item_id, timestamp, event",
        "item_id",
    }
    assert "no such file" in problems[0].first
    assert path.read_bytes() == content


def test_a_problem_reads_as_a_sentence() -> None:
    text = str(Problem("a.csv", "w", "must be >= 0", 2, "-1 (row 3)", "Drop them."))
    assert text == "a.csv: column 'w' must be >= 0; broken in 2 rows, first: -1 (row 3). Drop them."
