from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.moments import microseconds
from features.tables import Histories, Interactions, Vocabulary
from features.tables.repeats import NEVER_AGAIN, RepeatRule
from features.tables.schema import INTERACTION_SCHEMA

START = datetime(2024, 1, 1)
DAY_US = 86_400_000_000
FOREVER = int(np.iinfo(np.int64).max)
RULES = ["exclude", "allow", "after 2d", "after 36h", "after 1w"]


@pytest.mark.parametrize(
    ("rule", "hidden_us"),
    [
        ("exclude", FOREVER),
        ("allow", 0),
        ("after 90m", 90 * 60_000_000),
        ("after 1.5h", 5_400_000_000),
        ("after 7d", 7 * DAY_US),
        ("after 2 w", 14 * DAY_US),
    ],
)
def test_an_event_hides_its_item_for_so_long(rule: str, hidden_us: int) -> None:
    assert RepeatRule(rule).until_us(0) == hidden_us
    found = RepeatRule("after 1m", {"buy": rule}).hidden_until(
        np.zeros(2, dtype=np.int64), pl.Series(["view", "buy"])
    )
    assert found is not None
    assert found.tolist() == [60_000_000, hidden_us]


@pytest.mark.parametrize("rule", ["never", "after", "after 7", "after -1d", "after 0d", "7d", ""])
def test_other_rules_are_refused_with_what_there_is(rule: str) -> None:
    with pytest.raises(ValueError, match="repeats must be 'exclude', 'allow' or 'after'"):
        RepeatRule(rule)
    with pytest.raises(ValueError, match="repeats must be 'exclude', 'allow' or 'after'"):
        RepeatRule(kinds={"buy": rule})


def test_what_is_hidden_for_good_stays_so_however_late() -> None:
    late = np.full(1, FOREVER - 5, dtype=np.int64)
    found = RepeatRule("after 1w", {"buy": "exclude"}).hidden_until(late, pl.Series(["view"]))
    assert found is not None
    assert found[0] == FOREVER
    assert NEVER_AGAIN.hidden_until(late, pl.Series(["view"])) is None
    assert RepeatRule("after 1w").until_us(FOREVER - 5) == FOREVER


def log() -> Interactions:
    rows = [
        ("ann", "a", START, "view", 1.0),
        ("ann", "a", START + timedelta(days=3), "buy", 1.0),
        ("ann", "b", START + timedelta(days=4), "view", 1.0),
        ("bob", "c", START + timedelta(days=4), "buy", 1.0),
    ]
    return Interactions(pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row"))


def test_of_several_events_the_longest_rule_holds() -> None:
    items = Vocabulary.from_ids(["a", "b", "c"])
    rule = RepeatRule("after 1d", {"buy": "after 7d"})
    made = Histories.from_interactions(log(), ["ann", "bob", "eve"], items, repeats=rule)

    def hidden(day: float) -> list[list[int]]:
        moment = np.full(3, microseconds(START) + round(day * DAY_US))
        return [np.flatnonzero(row).tolist() for row in made.hidden_mask(3, moment)]

    assert hidden(4.5) == [[1, 2], [3], []]
    assert hidden(5.0) == [[1], [3], []]  # from that moment on
    assert hidden(10.5) == [[], [3], []]
    assert hidden(11.0) == [[], [], []]
    assert made.seen_mask(3).sum() == 3  # what was met is another question
    newest = made.hidden_mask(3)  # just after each row's newest event
    assert [np.flatnonzero(row).tolist() for row in newest] == [[1, 2], [3], []]


def test_dislikes_are_hidden_whatever_the_rule() -> None:
    items = Vocabulary.from_ids(["a", "b", "c"])
    disliked = log().frame.filter(pl.col("user_id") == "bob")
    told = Interactions(log().frame.filter(pl.col("user_id") == "ann"), disliked)
    made = Histories.from_interactions(told, ["ann", "bob"], items, repeats=RepeatRule("allow"))
    assert [np.flatnonzero(row).tolist() for row in made.hidden_mask(3)] == [[], [3]]


def test_until_when_events_hide_is_one_number_an_event() -> None:
    made = Histories.from_interactions(log(), ["ann"], Vocabulary.from_ids(["a", "b"]))
    assert made.hidden_until is None
    with pytest.raises(ValueError, match="hidden_until must be one int64 an event"):
        replace(made, hidden_until=np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="hidden_until must be one int64 an event"):
        replace(made, hidden_until=np.zeros(3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 20), st.sampled_from("ab")),
        max_size=30,
    ),
    st.sampled_from(RULES),
    st.sampled_from(RULES),
    st.integers(0, 30),
)
def test_the_mask_is_what_a_loop_over_events_says(
    events: list[tuple[int, int, int, str]], general: str, own: str, day: int
) -> None:
    rule = RepeatRule(general, {"b": own})
    events = sorted(events, key=lambda one: (one[0], one[2]))
    rows = np.array([one[0] for one in events], dtype=np.int64)
    made = Histories(
        np.searchsorted(rows, np.arange(5)).astype(np.int64),
        np.array([one[1] for one in events], dtype=np.int64),
        np.array([one[2] for one in events], dtype=np.int64) * DAY_US,
        np.ones(len(events), dtype=np.float32),
        hidden_until=rule.hidden_until(
            np.array([one[2] for one in events], dtype=np.int64) * DAY_US,
            pl.Series([one[3] for one in events], dtype=pl.String),
        ),
    )
    moment = day * DAY_US
    wanted = np.zeros((4, 6), dtype=bool)
    for row, item, happened, kind in events:
        wanted[row, item] |= rule.until_us(happened * DAY_US, kind) > moment
    assert (made.hidden_mask(5, np.full(4, moment)) == wanted).all()
    assert (made.take([2, 0]).hidden_mask(5, np.full(2, moment)) == wanted[[2, 0]]).all()
