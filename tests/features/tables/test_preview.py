from __future__ import annotations

import json
from datetime import datetime

import polars as pl

from features import EventColumns
from features.tables import Tables
from features.tables.preview import preview
from features.tables.rules import EventRules

START = 1_600_000_000
EVENTS = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "v", "v"],
        "item_id": ["a", "b", "a", "a", "c"],
        "timestamp": [START, START, START + 9, START, START],
        "event": ["view", "buy", "view", "view", "buy"],
        "weight": [1.0, 2.0, 1.0, 1.0, 2.0],
    }
)


def test_a_log_at_a_glance() -> None:
    found = preview(Tables(EVENTS, pl.DataFrame({"item_id": ["a", "b"]})))
    assert (found.rows, found.users, found.items) == (5, 2, 3)
    assert found.first == datetime(2020, 9, 13, 12, 26, 40)
    assert found.last == datetime(2020, 9, 13, 12, 26, 49)
    assert found.tied == 0.8
    assert found.kinds == {"view": 3, "buy": 2}
    assert found.ratings == {"1": 3, "2": 2}
    assert found.largest_user == ("u", 0.6)
    assert found.largest_item == ("a", 0.6)
    assert (found.described, found.repeats) == (0.8, 0.0)
    assert len(found.sample) == 5
    values = json.loads(json.dumps(found.as_dict()))
    assert values["first"] == "2020-09-13T12:26:40"
    assert values["sample"][-1]["timestamp"] == "2020-09-13 12:26:49"
    lines = list(found.lines())
    assert lines[0] == "5 rows of 2 users and 3 items"
    assert "kinds: view 3, buy 2" in lines
    assert lines[-1].split() == ["u", "a", "2020-09-13", "12:26:49", "view", "1"]


def test_what_rules_took_away_is_said() -> None:
    frame = pl.concat(
        [EVENTS, EVENTS[:1], EVENTS[:1].with_columns(user_id=pl.lit(None, pl.String))]
    )
    rules = EventRules(missing="drop", repeats="first", kinds={"view": 0.5, "buy": 1.0})
    found = preview(Tables(frame, rules=rules))
    assert (found.rows, found.repeats, found.described) == (7, 1 / 6, None)
    assert any("left out" in one for one in found.taken)
    assert [one in list(found.lines()) for one in found.taken] == [True] * len(found.taken)


def test_a_log_with_problems_is_shown_without_rows() -> None:
    frame = EVENTS.with_columns(weight=pl.lit("heavy"))
    found = preview(Tables(frame))
    assert (found.rows, found.sample, found.rating_range) == (5, (), None)
    found = preview(Tables(EVENTS.drop("item_id")))
    assert (found.items, found.largest_item, found.users) == (0, None, 2)


def test_many_weights_are_a_range_and_32_bits_are_noted() -> None:
    frame = EVENTS.with_columns(
        weight=pl.Series([0.5, 1, 1.5, 2, 99]), timestamp=pl.col("timestamp").cast(pl.Float32)
    )
    many = pl.concat([frame.with_columns(pl.col("weight") + n) for n in range(9)])
    found = preview(Tables(many))
    assert (found.ratings, found.rating_range) == ({}, (0.5, 107.0))
    assert found.notes == (
        "'timestamp' was stored in 32 bits: its times are off by up to a minute",
    )


def test_a_log_without_times() -> None:
    tables = Tables(EVENTS.drop("timestamp"), columns=EventColumns(unit="none"))
    found = preview(tables)
    assert (found.first, found.last, found.tied) == (None, None, 1.0)
    assert not any(line.startswith("times:") for line in found.lines())
