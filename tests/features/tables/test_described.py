from __future__ import annotations

import polars as pl
import pytest

from features.tables import Tables
from features.tables.described import described_note


def note(table: list[str] | list[int], log: list[str] | list[int]) -> str | None:
    return described_note(
        pl.Series("a", table), pl.Series("b", log), source="t.csv", log_source="l.csv", noun="user"
    )


USERS = [f"u{number}" for number in range(40)]


def test_a_table_that_describes_its_log_is_not_told() -> None:
    assert note(USERS, USERS * 2) is None
    assert note([*USERS, "guest"], USERS) is None
    assert note(USERS[:20], USERS) is None  # half of them
    assert note(list(range(7)), ["0", "3", "6"]) is None
    assert note(USERS, []) is None


def test_a_table_that_describes_nobody_is_told_with_ids_of_both() -> None:
    assert note(list(range(40)), USERS) == (
        "t.csv describes none of the 40 users of l.csv: ids are '0', '1', '10', ... there and "
        "'u0', 'u1', 'u10', ... in the log; they differ in what stands before the number, write "
        "them in one way"
    )
    told = note(["x", "y"], ["a"])
    assert (
        told == "t.csv describes none of the 1 users of l.csv: ids are 'x', 'y' there and 'a' "
        "in the log"
    )


@pytest.mark.parametrize(
    ("table", "log", "difference"),
    [
        (["007", "010"], ["7", "10"], "leading zeros"),
        (["A", "B"], ["a", "b"], "capital letters"),
        ([" a", "b "], ["a", "b"], "white space around them"),
        (["7.0", "8.0"], ["7", "8"], "the end '.0'"),
        (["u7@shop", "u8@shop"], ["7", "8"], "what stands around the number"),
        ([7, 8], ["user-7", "user-8"], "what stands before the number"),
    ],
)
def test_what_ids_differ_in_is_named(table: list[str], log: list[str], difference: str) -> None:
    assert f"they differ in {difference}, write them" in str(note(table, log))
    assert f"they differ in {difference}, write them" in str(note(log, table))


def test_few_of_either_side_are_counted() -> None:
    few = note(USERS[:19], USERS)
    assert few is not None
    assert few.startswith("t.csv describes 19 of the 40 users of l.csv; not described are 'u")
    many = [f"m{number}" for number in range(100)]
    assert note([*USERS[:9], *many], USERS[:9]) == (
        "t.csv describes 109 users, of whom 9 have events in l.csv; none have 'm0', 'm1', 'm10', "
        "..."
    )


def test_tables_hold_their_notes() -> None:
    events = pl.DataFrame(
        {"user_id": ["u1", "u2"], "item_id": [1, 2], "timestamp": [1_500_000_000] * 2}
    )
    users = pl.DataFrame({"user_id": [1, 2]})
    tables = Tables(events, pl.DataFrame({"item_id": ["1", "2"]}), users)
    assert tables.problems == []
    (told,) = tables.notes
    assert told.startswith("users describes none of the 2 users of events: ids are '1', '2' there")
    assert Tables(events).notes == []
    assert Tables(events, users=pl.DataFrame({"user_id": [1.5]})).notes == []
    assert Tables(events, users="none.csv").notes == []
