from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.tables import Interactions
from recsys.evaluation import Split, leave_last_out, split_at, split_per_user

START = datetime(2020, 1, 1)


def log(rows: list[tuple[str, str, int]]) -> Interactions:
    """Rows (user, item, day)."""
    frame = pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "timestamp": [START + timedelta(days=day) for _, _, day in rows],
        },
        schema={"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us")},
    )
    return Interactions.from_frame(frame)


def rows(part: Interactions) -> list[tuple[str, str, int]]:
    return [
        (row["user_id"], row["item_id"], (row["timestamp"] - START).days)
        for row in part.frame.iter_rows(named=True)
    ]


@st.composite
def logs(draw: st.DrawFn) -> Interactions:
    events = st.tuples(st.sampled_from("abcd"), st.sampled_from("vwxyz"), st.integers(0, 6))
    return log(draw(st.lists(events, unique=True, max_size=40)))


class TestPerUser:
    def test_cut_is_the_floor(self) -> None:
        made = log([("a", f"i{day}", day) for day in range(7)] + [("b", "x", 9), ("b", "y", 3)])
        split = split_per_user(made, fraction=0.8)
        # floor(5.6) = 5 and floor(1.6) = 1
        # The log's order is time, then user.
        assert rows(split.train) == [
            ("a", "i0", 0),
            ("a", "i1", 1),
            ("a", "i2", 2),
            ("a", "i3", 3),
            ("b", "y", 3),
            ("a", "i4", 4),
        ]
        assert rows(split.test) == [("a", "i5", 5), ("a", "i6", 6), ("b", "x", 9)]

    def test_no_moment_is_divided(self) -> None:
        basket = [("a", item, 2) for item in ("w", "z", "v")]
        made = log([("a", "x", 1), *basket, ("a", "y", 3)])
        split = split_per_user(made, fraction=0.6)  # the third event of five is in the basket
        assert rows(split.train) == [("a", "x", 1)]
        assert sorted(rows(split.test)) == sorted([*basket, ("a", "y", 3)])
        split = split_per_user(log([*basket, ("a", "y", 3)]), fraction=0.5)
        assert sorted(rows(split.train)) == sorted(basket)  # nothing would be left before it
        assert rows(split.test) == [("a", "y", 3)]

    def test_where_nobody_has_two_moments_users_are_held_out(self) -> None:
        made = log([(f"u{user}", item, 1) for user in range(200) for item in "vwx"])
        split = split_per_user(made)
        held_out = set(split.test.frame["user_id"])
        assert 20 <= len(held_out) <= 60
        assert not held_out & set(split.train.frame["user_id"])
        assert len(split.train) + len(split.test) == 600
        assert split_per_user(made).test.frame.equals(split.test.frame)

    def test_one_user_of_one_moment_is_not_held_out(self) -> None:
        split = split_per_user(log([("a", item, 1) for item in "vwx"]))
        assert (len(split.train), len(split.test)) == (3, 0)

    @pytest.mark.parametrize(
        ("min_events", "tested"), [(1, {"a", "b", "c"}), (2, {"b", "c"}), (3, {"c"}), (4, set())]
    )
    def test_min_events(self, min_events: int, tested: set[str]) -> None:
        made = log([(u, f"i{d}", d) for u, n in (("a", 1), ("b", 2), ("c", 3)) for d in range(n)])
        split = split_per_user(made, min_events=min_events)
        assert set(split.test.frame["user_id"]) == tested
        assert len(split.train) + len(split.test) == 6

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
    def test_fraction_out_of_range(self, fraction: float) -> None:
        with pytest.raises(ValueError, match="fraction must be above 0 and below 1, got"):
            split_per_user(log([]), fraction=fraction)

    @given(logs(), st.floats(0.01, 0.99), st.integers(1, 4))
    def test_parts_the_log_and_keeps_order(
        self, made: Interactions, fraction: float, min_events: int
    ) -> None:
        split = split_per_user(made, fraction=fraction, min_events=min_events)
        check_parts(made, split)
        check_order_within_users(split)
        sizes = dict(made.frame.group_by("user_id").len().iter_rows())
        train = dict(split.train.frame.group_by("user_id").len().iter_rows())
        nobody_has_two = made.frame.group_by("user_id").agg(pl.col("timestamp").n_unique())[
            "timestamp"
        ].max() in (None, 1)
        for user, size in sizes.items():
            days = made.frame.filter(pl.col("user_id") == user)["timestamp"].to_list()
            cut = int(fraction * size) if size >= min_events else size
            wanted = size if cut == size else days.index(days[cut])
            if wanted == 0 < cut:
                wanted = days.count(days[0])
            if not nobody_has_two:
                assert train.get(user, 0) == wanted


class TestLeaveLastOut:
    def test_by_hand(self) -> None:
        made = log([("a", "x", 1), ("a", "y", 2), ("b", "x", 5), ("a", "z", 3)])
        split = leave_last_out(made)
        assert rows(split.train) == [("a", "x", 1), ("a", "y", 2), ("b", "x", 5)]
        assert rows(split.test) == [("a", "z", 3)]
        assert rows(leave_last_out(made, min_events=1).test) == [("a", "z", 3), ("b", "x", 5)]

    def test_all_of_the_last_moment(self) -> None:
        split = leave_last_out(log([("a", "x", 1), ("a", "y", 2), ("a", "z", 2)]))
        assert rows(split.train) == [("a", "x", 1)]
        assert sorted(rows(split.test)) == [("a", "y", 2), ("a", "z", 2)]

    def test_min_events_below_one(self) -> None:
        for split in (leave_last_out, split_per_user):
            with pytest.raises(ValueError, match="min_events must be >= 1, got 0"):
                split(log([]), min_events=0)

    @given(logs(), st.integers(1, 4))
    def test_one_moment_each(self, made: Interactions, min_events: int) -> None:
        split = leave_last_out(made, min_events=min_events)
        check_parts(made, split)
        check_order_within_users(split)
        wanted = made.frame.filter(
            (pl.len().over("user_id") >= min_events)
            & (pl.col("timestamp") == pl.col("timestamp").max().over("user_id"))
            & (
                (pl.col("timestamp") > pl.col("timestamp").min().over("user_id"))
                | (pl.len().over("user_id") == 1)
            )
        )
        if len(wanted):
            assert split.test.frame.equals(wanted)


class TestAtMoment:
    def test_the_moment_itself_is_test(self) -> None:
        made = log([("a", "x", 1), ("b", "y", 2), ("a", "z", 3)])
        split = split_at(made, START + timedelta(days=2))
        assert rows(split.train) == [("a", "x", 1)]
        assert rows(split.test) == [("b", "y", 2), ("a", "z", 3)]

    def test_time_zone_refused(self) -> None:
        with pytest.raises(ValueError, match="moment must be UTC without a time zone, got 2020-01"):
            split_at(log([]), START.replace(tzinfo=UTC))

    @given(logs(), st.integers(-1, 8))
    def test_train_is_strictly_before(self, made: Interactions, day: int) -> None:
        moment = START + timedelta(days=day)
        split = split_at(made, moment)
        check_parts(made, split)
        assert (split.train.frame["timestamp"] < moment).all()
        assert (split.test.frame["timestamp"] >= moment).all()


def check_parts(made: Interactions, split: Split) -> None:
    """Disjoint, together the whole log, both in the order of the log."""
    train, test = rows(split.train), rows(split.test)
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(rows(made))
    place = {row: at for at, row in enumerate(rows(made))}
    for part in (train, test):
        assert [place[row] for row in part] == sorted(place[row] for row in part)


def check_order_within_users(split: Split) -> None:
    last = dict(split.train.frame.group_by("user_id").agg(pl.col("timestamp").max()).iter_rows())
    for user, _, day in rows(split.test):
        if user in last:
            assert last[user] <= START + timedelta(days=day)
