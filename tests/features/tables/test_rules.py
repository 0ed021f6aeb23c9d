"""What the rows of a log mean: every rule by hand, and against plain loops."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from features.tables import EventColumns, Interactions, Tables
from features.tables.rules import EventRules

START = datetime(2024, 3, 1)
COLUMNS = EventColumns(event="what")


def frame(*rows: tuple[Any, ...], names: str = "user_id item_id timestamp what") -> pl.DataFrame:
    """Rows whose third value is a day."""
    made = pl.DataFrame(list(rows), schema=names.split(), orient="row")
    return made.with_columns((pl.lit(START) + pl.duration(days="timestamp")).alias("timestamp"))


def of(
    raw: pl.DataFrame,
    columns: EventColumns | None = None,
    known: pl.Series | None = None,
    **rules: Any,
) -> Interactions:
    return Interactions.from_frame(
        raw, columns=columns or COLUMNS, rules=EventRules(**rules), known=known
    )


def weights(part: pl.DataFrame | None) -> dict[str, float]:
    assert part is not None
    return dict(zip(part["item_id"], part["weight"].to_list(), strict=True))


class TestKinds:
    RAW = frame(
        ("u", "a", 0, "view"), ("u", "b", 1, "buy"), ("u", "c", 2, "hide"), ("u", "d", 3, "scroll")
    )
    KINDS: ClassVar = {"view": 0.25, "buy": 1.0, "hide": -2.0, "scroll": 0.0}

    def test_a_weight_a_kind(self) -> None:
        log = of(self.RAW, kinds=self.KINDS)
        assert weights(log.frame) == {"a": 0.25, "b": 1.0}
        assert weights(log.dislikes) == {"c": 2.0}
        assert log.neutral is not None
        assert log.neutral["item_id"].to_list() == ["d"]
        assert [one.told for one in log.counts] == [
            "1 row taken as dislikes",
            "1 row counted for nothing",
        ]

    def test_times_the_weight_of_the_row(self) -> None:
        raw = self.RAW.with_columns(stars=pl.Series([4.0, 2.0, 3.0, 1.0]))
        log = of(raw, EventColumns(event="what", weight="stars"), kinds=self.KINDS)
        assert weights(log.frame) == {"a": 1.0, "b": 2.0}
        assert weights(log.dislikes) == {"c": 6.0}

    def test_kinds_that_are_not_weighed_are_a_problem(self) -> None:
        with pytest.raises(DataError, match=r"must be one of the kinds in \[data.kinds\].*scroll"):
            of(self.RAW, kinds={"view": 1.0, "buy": 1.0, "hide": -1.0})

    def test_targets_that_never_occur_are_a_problem(self) -> None:
        with pytest.raises(DataError, match="'order' never occurs"):
            of(self.RAW, targets=("order",))

    def test_kinds_without_a_column_are_a_problem(self) -> None:
        raw = self.RAW.drop("what")
        with pytest.raises(DataError, match=r"all events are of the kind 'interaction'"):
            of(raw, EventColumns(), kinds={"view": 1.0})

    @pytest.mark.parametrize(
        ("rules", "told"),
        [
            ({"kinds": {"view": 1}, "targets": ("buy",)}, "targets must be kinds of"),
            ({"kinds": {"buy": 0}, "targets": ("buy",)}, "must be kinds that weigh above 0"),
            ({"positive": "4"}, "positive must be a comparison with a number"),
            ({"negative": "< x"}, "negative must be a comparison with a number"),
            ({"repeats": "twice"}, "repeats must be one of 'refuse', 'sum', 'first', 'keep'"),
        ],
    )
    def test_rules_that_cannot_be(self, rules: dict[str, Any], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            EventRules(**rules)


class TestRatings:
    RAW = frame(
        *(("u", str(stars), day, stars) for day, stars in enumerate((-1.0, 0.0, 2.0, 4.0, 5.0))),
        names="user_id item_id timestamp stars",
    )
    RATED = EventColumns(weight="stars")

    def test_below_zero_is_refused_unless_a_rule_says_what_it_means(self) -> None:
        with pytest.raises(DataError, match=r"data.rules.negative = '< 0'"):
            of(self.RAW, self.RATED)

    def test_zero_counts_for_nothing(self) -> None:
        log = of(self.RAW, self.RATED, negative="< 0")
        assert weights(log.frame) == {"2.0": 2.0, "4.0": 4.0, "5.0": 5.0}
        assert weights(log.dislikes) == {"-1.0": 1.0}

    def test_likes_from_a_threshold(self) -> None:
        log = of(self.RAW, self.RATED, positive=">= 4", negative="<= 0")
        assert weights(log.frame) == {"4.0": 4.0, "5.0": 5.0}
        assert weights(log.dislikes) == {"-1.0": 1.0, "0.0": 1.0}

    def test_a_rule_without_its_column_is_a_problem(self) -> None:
        with pytest.raises(DataError, match=r"Name the column that it compares in"):
            of(self.RAW.drop("stars"), EventColumns(), positive="> 3")

    @pytest.mark.parametrize("value", [-1.0, 0.0, 2.0, 4.0, 5.0])
    @pytest.mark.parametrize(
        "rules",
        [{"negative": "< 0"}, {"positive": ">= 4", "negative": "<= 0"}, {"positive": "!= 9"}],
    )
    def test_a_live_event_weighs_what_its_row_would(
        self, value: float, rules: dict[str, Any]
    ) -> None:
        log = of(self.RAW, self.RATED, **rules)
        signed = weights(log.whole)
        assert EventRules(**rules).weight_of("interaction", value, 3.0) == signed.get(str(value), 0)


@pytest.mark.parametrize(
    ("kind", "weight", "wanted"),
    [("buy", None, 1.0), ("view", None, 0.25), ("hide", None, -2.0), ("view", 4.0, 1.0),
     ("unheard", None, 0.0), ("scroll", 3.0, 0.0), ("hide", 0.5, -1.0)],
)  # fmt: skip
def test_live_kinds(kind: str, weight: float | None, wanted: float) -> None:
    assert EventRules(kinds=TestKinds.KINDS).weight_of(kind, weight, 7.0) == wanted


def test_an_event_that_says_no_weight_has_the_usual_one() -> None:
    assert EventRules().weight_of("view", None, 3.5) == 3.5
    assert EventRules().weight_of("view", 0.0, 3.5) == 0.0


class TestReturns:
    NAMES = "user_id item_id timestamp many"
    SOLD = EventColumns(quantity="many")

    def test_a_return_takes_back_the_purchase_before_it(self) -> None:
        raw = frame(
            ("u", "a", 0, 2), ("u", "a", 5, -2), ("u", "b", 1, 3), ("u", "b", 6, -1),
            ("v", "a", 2, 1), ("w", "c", 3, -4), names=self.NAMES,
        )  # fmt: skip
        log = of(raw, self.SOLD)
        assert log.frame.select("user_id", "item_id").rows() == [("u", "b"), ("v", "a")]
        assert log.dislikes is not None
        assert log.dislikes.select("user_id", "item_id").rows() == [("w", "c"), ("u", "a")]
        assert "3 rows of a quantity below 0 took back 1 purchase" in [
            one.told for one in log.counts
        ]

    def test_or_is_left_out(self) -> None:
        raw = frame(("u", "a", 0, 2), ("u", "a", 5, -2), ("u", "b", 0, 0), names=self.NAMES)
        log = of(raw, self.SOLD, negative_quantity="drop")
        assert weights(log.frame) == {"a": 1.0}
        assert log.dislikes is None

    @given(st.lists(st.tuples(st.sampled_from("uv"), st.integers(-4, 4)), min_size=1, max_size=14))
    def test_as_a_till_would(self, lines: list[tuple[str, int]]) -> None:
        """Purchases on a pile; a return takes from the top."""
        raw = frame(
            *((user, "a", day, many) for day, (user, many) in enumerate(lines)), names=self.NAMES
        )
        piles: dict[str, list[list[int]]] = {"u": [], "v": []}
        disliked: dict[int, bool] = {}
        for day, (user, many) in enumerate(lines):
            pile, left = piles[user], -many
            if many > 0:
                pile.append([day, many])
            while left > 0 and pile:
                taken = min(left, pile[-1][1])
                left -= taken
                pile[-1][1] -= taken
                if not pile[-1][1]:
                    pile.pop()
            if many < 0:
                disliked[day] = not pile
        kept = sorted(day for pile in piles.values() for day, _ in pile)
        log = of(raw, self.SOLD)
        days = (log.frame["timestamp"] - START).dt.total_days().to_list()
        assert sorted(days) == kept
        refused = [] if log.dislikes is None else log.dislikes["timestamp"].to_list()
        wanted = sorted(day for day, empty in disliked.items() if empty)
        assert sorted((at - START).days for at in refused) == wanted

    def test_a_quantity_must_be_a_number(self) -> None:
        raw = frame(("u", "a", 0, "two"), names=self.NAMES)
        with pytest.raises(DataError, match=r"many.*must be a number"):
            of(raw, self.SOLD)


class TestRepeats:
    RAW = frame(
        ("u", "a", 0, 2.0), ("u", "a", 0, 3.0), ("u", "b", 1, 1.0),
        names="user_id item_id timestamp stars",
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("repeats", "wanted"),
        [("sum", [5.0, 1.0]), ("first", [2.0, 1.0]), ("keep", [2.0, 3.0, 1.0])],
    )
    def test_what_they_are(self, repeats: str, wanted: list[float]) -> None:
        log = of(self.RAW, EventColumns(weight="stars"), repeats=repeats)
        assert log.frame["weight"].to_list() == wanted

    def test_refused_with_the_remedy(self) -> None:
        with pytest.raises(DataError, match=r"Say in data.rules.repeats what they are"):
            of(self.RAW, EventColumns(weight="stars"))


class TestMissing:
    RAW = pl.DataFrame(
        {
            "user_id": ["u", None, "u", " ", "v"],
            "item_id": ["a", "a", "b", "c", None],
            "timestamp": [1_700_000_000, 1_700_000_001, None, 1_700_000_003, 1_700_000_004],
        }
    )

    def test_left_out_and_counted(self) -> None:
        tables = Tables(self.RAW, rules=EventRules(missing="drop"))
        assert tables.problems == []
        assert tables.interactions.frame["item_id"].to_list() == ["a"]
        assert [one.told for one in tables.counts] == [
            "4 rows without user_id, item_id or timestamp left out"
        ]

    def test_refused(self) -> None:
        assert {one.column for one in Tables(self.RAW).problems} >= {"user_id", "item_id"}


class TestUndescribed:
    RAW = frame(("u", "a", 0, "view"), ("u", "z", 1, "view"), ("v", "z", 2, "view"))
    ITEMS = pl.DataFrame({"item_id": ["a", "b"], "price": [1.0, 2.0]})

    def tables(self, **rules: Any) -> Tables:
        return Tables(self.RAW, self.ITEMS, columns=COLUMNS, rules=EventRules(**rules))

    def test_refused_with_both_remedies(self) -> None:
        (problem,) = self.tables().problems
        assert "set data.rules.undescribed to 'take' or 'drop'" in problem.remedy

    def test_taken_without_values(self) -> None:
        tables = self.tables(undescribed="take")
        assert tables.problems == []
        assert tables.item_table.frame.rows() == [("a", 1.0), ("b", 2.0), ("z", None)]
        assert len(tables.interactions) == 3
        assert "1 item of the log that no row describes taken without values" in [
            one.told for one in tables.counts
        ]

    def test_left_out(self) -> None:
        tables = self.tables(undescribed="drop")
        assert tables.problems == []
        assert tables.interactions.frame["item_id"].to_list() == ["a"]
        assert tables.item_table.ids == ["a", "b"]
        assert "2 rows of items that no row describes left out" in [
            one.told for one in tables.counts
        ]


class TestMoments:
    def test_lines_of_an_order_happen_at_its_first(self) -> None:
        raw = frame(
            ("u", "a", 3, "1"), ("u", "b", 4, "1"), ("u", "c", 5, None), ("v", "a", 9, "1"),
            names="user_id item_id timestamp basket",
        )  # fmt: skip
        log = of(raw, EventColumns(order="basket"))
        days = {
            (row["user_id"], row["item_id"]): (row["timestamp"] - START).days
            for row in log.frame.iter_rows(named=True)
        }
        assert days == {("u", "a"): 3, ("u", "b"): 3, ("u", "c"): 5, ("v", "a"): 9}

    @given(
        st.lists(
            st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef")), unique=True, min_size=1
        )
    )
    def test_the_order_of_one_time_is_that_of_the_rows_alone(
        self, pairs: list[tuple[str, str]]
    ) -> None:
        raw = frame(*((user, item, 0, "view") for user, item in pairs))
        log, again = of(raw), of(raw.reverse())
        assert log.frame.equals(again.frame)
        fewer = of(raw.filter(pl.col("user_id") == pairs[0][0]))
        own = log.frame.filter(pl.col("user_id") == pairs[0][0])
        assert own.equals(fewer.frame)

    def test_and_not_the_ids(self) -> None:
        """Of 400 users with ten items each, the first item has the lowest id as often as chance."""
        raw = frame(
            *((f"u{user}", f"i{item}", 0, "view") for user in range(400) for item in range(10))
        )
        first = of(raw).frame.group_by("user_id").first()["item_id"].value_counts()
        assert first.height == 10
        assert first["count"].max() < 80  # 40 each, 6 standard deviations

    def test_shuffled_they_are_a_microsecond_apart(self) -> None:
        raw = frame(*(("u", item, 0, "view") for item in "abcd"), ("v", "a", 0, "view"))
        log, whole = of(raw, same_time="shuffle"), of(raw)
        own = log.frame.filter(pl.col("user_id") == "u")
        assert own["timestamp"].to_list() == [START + timedelta(microseconds=k) for k in range(4)]
        order = whole.frame.filter(pl.col("user_id") == "u")["item_id"].to_list()
        assert own["item_id"].to_list() == order
        assert log.counts[0].rows == 3


def test_a_log_and_its_dislikes_go_together() -> None:
    raw = frame(("u", "a", 0, "view"), ("u", "b", 1, "hide"), ("v", "c", 2, "view"))
    log = of(raw, kinds={"view": 1.0, "hide": -1.0})
    assert log.dislikes is not None
    assert log.whole["weight"].to_list() == [1.0, -1.0, 1.0]
    again = Interactions.of_whole(log.whole)
    assert again.dislikes is not None
    assert again.frame.equals(log.frame)
    assert again.dislikes.equals(log.dislikes)
    early = log.before(START + timedelta(days=1))
    assert early.dislikes is not None
    assert early.dislikes.is_empty()
    assert log.filter_users(["v"]).frame["item_id"].to_list() == ["c"]
    assert log.fingerprint() != of(raw, kinds={"view": 1.0, "hide": 0.0}).fingerprint()
