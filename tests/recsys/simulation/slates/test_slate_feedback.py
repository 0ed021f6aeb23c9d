from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from features import DataError
from recsys.simulation.slates.feedback import SlateFeedback


def feedback() -> SlateFeedback:
    return SlateFeedback(
        np.array([[2, 0, 1], [1, -1, -1], [0, 2, -1]]),
        np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]),
        np.array([[0.5, 0.5, 1.0], [0.25, 1.0, 1.0], [0.5, 0.125, 1.0]]),
        3,
        unit=np.array([4, 4, 9]),
    )


def impressions() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "request_id": ["b", "a", "b", "c", "a"],
            "user_id": ["u", None, "u", "u", None],
            "item_id": ["x", "y", "z", "z", "x"],
            "position": [1, 2, 2, 1, 1],
            "propensity": [0.5, 0.25, 1.0, 0.5, 0.125],
            "reward": [0.0, 1.0, 2.0, 0.5, 0.0],
            "policy": ["p"] * 5,
        },
        schema_overrides={"position": pl.Int32, "propensity": pl.Float32},
    )


def test_the_impression_log_becomes_slates() -> None:
    slates = SlateFeedback.from_impressions(impressions())
    np.testing.assert_array_equal(slates.action, [[0, 1], [0, 2], [2, -1]])
    np.testing.assert_array_equal(slates.reward, [[0, 1], [0, 2], [0.5, 0]])
    np.testing.assert_array_equal(slates.propensity, [[0.125, 0.25], [0.5, 1], [0.5, 1]])
    assert slates.num_actions == 3
    assert slates.num_slots == 2
    assert len(slates) == 3
    assert slates.item_ids is not None
    assert slates.item_ids.tolist() == ["x", "y", "z"]
    assert slates.unit is not None
    # Requests b and c are of one user, a is of nobody.
    assert slates.unit[1] == slates.unit[2] != slates.unit[0]


def test_users_and_requests_of_one_name_are_two_units() -> None:
    rows = impressions().with_columns(user_id=pl.Series(["a", None, "a", "a", None]))
    unit = SlateFeedback.from_impressions(rows).unit
    assert unit is not None
    assert unit[0] != unit[1]


def test_a_frame_and_back() -> None:
    slates = SlateFeedback.from_impressions(impressions())
    frame = slates.to_frame()
    wanted = impressions().sort("request_id", "position").drop("policy")
    assert frame.columns == wanted.columns
    assert frame.rows() == wanted.rows()
    again = SlateFeedback.from_impressions(frame)
    np.testing.assert_array_equal(again.action, slates.action)
    np.testing.assert_array_equal(again.unit, slates.unit)


def test_numbers_stand_in_for_names() -> None:
    frame = feedback().to_frame()
    assert frame["request_id"].to_list() == ["0", "0", "0", "1", "2", "2"]
    assert frame["user_id"].to_list() == ["4", "4", "4", "4", "9", "9"]
    assert frame["item_id"].to_list() == ["2", "0", "1", "1", "0", "2"]
    assert frame["position"].to_list() == [1, 2, 3, 1, 1, 2]
    none = replace(feedback(), unit=None).to_frame()
    assert none["user_id"].null_count() == 6


def test_rounds_and_beginnings() -> None:
    part = feedback().take(np.array([2, 0]))
    np.testing.assert_array_equal(part.action, [[0, 2, -1], [2, 0, 1]])
    np.testing.assert_array_equal(part.unit, [9, 4])
    start = SlateFeedback.from_impressions(impressions()).take(np.array([False, True, True]))
    assert start.request_ids is not None
    assert start.request_ids.tolist() == ["b", "c"]
    assert feedback().beginning(2).action.tolist() == [[2, 0], [1, -1], [0, 2]]
    for slots in (0, 4):
        with pytest.raises(ValueError, match=rf"slots must be 1..3, got {slots}"):
            feedback().beginning(slots)


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        ("action", (0, 1), 3, r"action must be -1 or 0..2; broken in 1 of 3 .* 3 at place 2 of"),
        ("action", (0, 0), -1, "must fill the first place of every slate"),
        ("action", (0, 1), -1, "no place empty above a filled one; .* first: 1 at place 3 of ro"),
        ("propensity", (2, 1), 0.0, "propensity must be above 0 and at most 1; .* round 2"),
        ("propensity", (2, 1), 1.1, "propensity must be above 0 and at most 1; .*1.1 at place 2"),
        ("propensity", (2, 1), np.nan, "propensity must be above 0 and at most 1; .* nan"),
        ("propensity", (1, 2), 0.5, "propensity must be 1 where nothing was shown"),
        ("reward", (0, 1), np.inf, "reward must be finite"),
        ("reward", (1, 2), 1.0, "reward must be 0 where nothing was shown"),
    ],
)
def test_numbers_that_break_a_rule_are_named(
    name: str, at: tuple[int, int], value: float, message: str
) -> None:
    values = getattr(feedback(), name).copy()
    values[at] = value
    with pytest.raises(ValueError, match=message):
        replace(feedback(), **{name: values})


def test_shapes_and_kinds() -> None:
    good = feedback()
    with pytest.raises(ValueError, match=r"action must be \[n, L\] with n and L >= 1"):
        replace(good, action=np.zeros((0, 3), dtype=np.int64))
    with pytest.raises(ValueError, match=r"reward must have the shape of action, \(3, 3\)"):
        replace(good, reward=np.zeros((3, 2)))
    with pytest.raises(TypeError, match="propensity must be float64, got float32"):
        replace(good, propensity=good.propensity.astype(np.float32))
    with pytest.raises(TypeError, match="action must be int64, got int32"):
        replace(good, action=good.action.astype(np.int32))
    with pytest.raises(ValueError, match=r"unit must have shape \(3,\), got \(2,\)"):
        replace(good, unit=np.array([1, 2]))
    with pytest.raises(ValueError, match=r"item_ids must have shape \(3,\), got \(2,\)"):
        replace(good, item_ids=np.array(["a", "b"], dtype=object))


def test_rows_that_break_a_rule_are_named() -> None:
    rows = impressions()
    with pytest.raises(DataError, match="must have the column 'reward', got request_id"):
        SlateFeedback.from_impressions(rows.drop("reward"))
    null = rows.with_columns(reward=pl.Series([0.0, None, 0.0, 0.0, 0.0]))
    with pytest.raises(DataError, match=r"reward must not be null; .* row 1, request 'a', posi"):
        SlateFeedback.from_impressions(null)
    with pytest.raises(DataError, match="a place of a request must come once; broken in 1 of 6"):
        SlateFeedback.from_impressions(pl.concat([rows, rows[:1]]))
    two = rows.with_columns(user_id=pl.Series(["u", "v", "w", "u", "v"]))
    with pytest.raises(DataError, match="a request must have one user; broken in 2 of 5 rows"):
        SlateFeedback.from_impressions(two)
    low = rows.with_columns(propensity=pl.Series([0.5, 0.0, 1.0, 0.5, 0.5]))
    with pytest.raises(DataError, match=r"impressions, requests in the .* propensity must be abo"):
        SlateFeedback.from_impressions(low)


@pytest.mark.parametrize("kind", ["place lost", "first page lost", "propensity lost"])
def test_incomplete_requests_are_refused_or_left_out(kind: str) -> None:
    rows = impressions()
    if kind == "place lost":
        rows = rows.filter(~((pl.col("request_id") == "b") & (pl.col("position") == 1)))
    elif kind == "first page lost":
        rows = rows.with_columns(
            pl.when(pl.col("request_id") == "b").then(pl.col("position") + 5).otherwise("position")
        )
    else:
        rows = rows.with_columns(propensity=pl.Series([None, 0.25, 1.0, 0.5, 0.125]))
    with pytest.raises(DataError, match=r"must have every place from 1 on, and each its prop.*'b'"):
        SlateFeedback.from_impressions(rows)
    kept = SlateFeedback.from_impressions(rows, drop_incomplete=True)
    assert kept.request_ids is not None
    assert kept.request_ids.tolist() == ["a", "c"]
    only = rows.filter(pl.col("request_id") == "b")
    with pytest.raises(DataError, match="must hold at least one complete slate, got none"):
        SlateFeedback.from_impressions(only, drop_incomplete=True)
