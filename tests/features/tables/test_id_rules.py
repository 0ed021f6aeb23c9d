from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from features import find_problems
from features.tables.id_rules import ID_PATTERN, MAX_ID_LENGTH, has_control, is_too_long
from serving.http.bodies import SimilarBody

CONTROL = "must hold no control character, such as a tab or a line break"
TOO_LONG = f"must have at most {MAX_ID_LENGTH:,} characters"


def log(user: str = "u", item: str = "i") -> pl.DataFrame:
    return pl.DataFrame(
        {"user_id": ["a", user], "item_id": ["b", item], "timestamp": [1_500_000_000] * 2}
    )


@pytest.mark.parametrize("odd", ["tab\tinside", "two\nlines", "end\r", "\x00", "c1\x85"])
def test_an_id_with_a_control_character_is_told_with_its_row(odd: str) -> None:
    for frame, column in ((log(user=odd), "user_id"), (log(item=odd), "item_id")):
        (problem,) = find_problems(frame)
        assert (problem.column, problem.rule, problem.rows) == (column, CONTROL, 1)
        assert problem.first == f"{odd!r} (row 1)"
        assert "every table" in problem.remedy


def test_an_id_that_is_too_long_is_told_in_short() -> None:
    (problem,) = find_problems(log(item="x" * (MAX_ID_LENGTH + 1)))
    assert (problem.column, problem.rule) == ("item_id", TOO_LONG)
    assert problem.first == f"'{'x' * 60}'... of 1,025 characters (row 1)"


def test_ids_of_items_and_users_are_held_to_the_same() -> None:
    items = pl.DataFrame({"item_id": ["b", "i", "odd\x1f"]})
    users = pl.DataFrame({"user_id": ["a", "y" * 2000]}).cast(pl.Categorical)
    first, second = find_problems(log(), items, users)
    assert (first.source, first.rule, first.first) == ("items", CONTROL, "'odd\\x1f' (row 2)")
    assert (second.source, second.rule, second.rows) == ("users", TOO_LONG, 1)


@pytest.mark.parametrize(
    "fine", ["x" * MAX_ID_LENGTH, "https://shop.example/a?b=c d", "日本", "a\u2028b"]
)
def test_what_requests_can_carry_is_no_problem(fine: str) -> None:
    assert find_problems(log(user=fine, item=fine)) == []


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4).map(lambda text: text * 300))
def test_tables_refuse_what_requests_refuse(text: str) -> None:
    frame = pl.DataFrame({"id": [text]})
    bad = has_control(pl.col("id")) | is_too_long(pl.col("id"))
    try:
        SimilarBody.model_validate({"item_id": text})
        taken = True
    except ValidationError:
        taken = False
    assert taken != frame.select(bad).item()
    assert bool(re.fullmatch(ID_PATTERN, text)) != frame.select(has_control(pl.col("id"))).item()
