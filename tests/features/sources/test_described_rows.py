from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import DataError, InMemorySource
from features.sources.described_rows import described_rows

DAY = timedelta(days=1)
START = datetime(2020, 1, 1)


def source(rows: list[tuple[Any, ...]], *columns: str, created: bool = False) -> InMemorySource:
    """A view ``v`` with the columns ``id`` and ``timestamp`` (in days), and others."""
    names = ["id", "timestamp", *(["created"] if created else []), *columns]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        (START + pl.col(name) * DAY).cast(pl.Datetime("us")).alias(name)
        for name in names[1 : 2 + created]
    )
    made = InMemorySource()
    made.declare("v", ["id"], created=created)
    made.write("v", frame)
    return made


def test_the_newest_row_at_the_cut_holds() -> None:
    rows = [("a", 1, "old", 1), ("a", 3, "new", 2), ("a", 9, "late", 3), ("b", 2, "b", 4)]
    found = described_rows(source(rows, "title", "n"), "v", "id", cut=START + 3 * DAY)
    assert found.frame.rows() == [("a", "new", 2), ("b", "b", 4)]
    assert found.changing == ("title", "n")
    assert described_rows(source(rows, "title", "n"), "v", "id").frame["title"][0] == "late"


def test_what_is_described_later_has_its_first_row_without_numbers() -> None:
    rows = [("a", 1, "a", 1), ("b", 6, "newer", 3), ("b", 5, "first", 2), ("c", 9, "c", 4)]
    stored = source(rows, "title", "n")
    found = described_rows(stored, "v", "id", cut=START + 3 * DAY, end=START + 7 * DAY)
    assert found.frame.rows() == [("a", "a", 1), ("b", "first", None)]
    assert found.changing == ()
    assert found.frame.schema["n"] == pl.Int64


def test_a_row_that_was_not_created_yet_does_not_hold() -> None:
    rows = [("a", 1, 1, "first"), ("a", 2, 5, "corrected"), ("a", 2, 4, "between")]
    stored = source(rows, "title", created=True)
    titles = [
        described_rows(stored, "v", "id", cut=START + day * DAY).frame["title"].item()
        for day in (3, 4, 5)
    ]
    assert titles == ["first", "between", "corrected"]


def test_a_null_is_no_change() -> None:
    rows = [("a", 1, None, "x", True), ("a", 2, 1, None, True), ("a", 3, 1, "x", False)]
    found = described_rows(source(rows, "n", "text", "flag"), "v", "id")
    assert found.changing == ("flag",)


def test_no_row_is_an_error() -> None:
    stored = source([("a", 5, 1)], "n")
    with pytest.raises(DataError, match="view 'v' must have rows until 2020-01-01 00:00, got none"):
        described_rows(stored, "v", "id", cut=START, end=START)


ROWS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(0, 3)), min_size=1
)


@given(ROWS, ROWS, st.integers(0, 9))
def test_rows_after_the_cut_change_nothing_that_was_known(
    rows: list[Any], later: list[Any], cut: int
) -> None:
    later = [(name, cut + 1 + day, value) for name, day, value in later]
    moment = START + cut * DAY
    known = {name for name, day, _ in rows if day <= cut}
    first = described_rows(source(rows, "n"), "v", "id", cut=moment)
    second = described_rows(source([*rows, *later], "n"), "v", "id", cut=moment)
    assert first.changing == second.changing
    of_known = pl.col("id").is_in(list(known))
    assert first.frame.filter(of_known).equals(second.frame.filter(of_known))
    best = {
        name: max((day, n) for n, (one, day, _) in enumerate(rows) if one == name and day <= cut)[1]
        for name in known
    }
    wanted = [(name, rows[best[name]][2]) for name in sorted(known)]
    assert first.frame.filter(of_known).rows() == wanted
