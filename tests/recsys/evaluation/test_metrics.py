from __future__ import annotations

from math import log2
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ConfigError
from recsys.evaluation import (
    LIST_METRICS,
    USER_METRICS,
    MetricName,
    Truth,
    judge,
    parse_metric,
    self_information,
)
from recsys.evaluation.metrics import coverage, head_share, ndcg, novelty


def measure(name: str, items: list[int], relevant: dict[int, float], k: int | None = None) -> float:
    metric = parse_metric(f"{name}@{k or len(items)}")
    indptr = np.array([0, len(relevant)])
    truth = Truth.from_rows(indptr, np.array(list(relevant)), np.array(list(relevant.values())))
    (value,) = USER_METRICS[metric.name](judge(np.array([items]), truth), metric.k)
    return float(value)


def ones(*items: int) -> dict[int, float]:
    return dict.fromkeys(items, 1.0)


# STYLE 2.8, its table row by row; the lists hold items 1..5 at ranks 1..5.
TOP5 = [1, 2, 3, 4, 5]
TWO_HITS = ones(1, 3)
EIGHT_RELEVANT = ones(1, 3, 5, 11, 12, 13, 14, 15)
# The row of grades: grade 1 at rank 1, 3 at rank 2, 2 at rank 4. (The written table says "3,1,1";
# its numbers .7884, .7142 and .9675 are those of grades 3, 2, 1 in these places.)
GRADED_LIST = [1, 3, 9, 2, 8]
GRADED = {1: 1.0, 3: 3.0, 2: 2.0}


class TestConventionTable:
    def test_two_hits_precision(self) -> None:
        assert measure("precision", TOP5, TWO_HITS) == 2 / 5

    def test_two_hits_ndcg(self) -> None:
        by_hand = (1 + 1 / log2(4)) / (1 + 1 / log2(3))
        assert measure("ndcg", TOP5, TWO_HITS) == pytest.approx(by_hand)
        assert round(by_hand, 4) == 0.9197

    def test_two_hits_map(self) -> None:
        assert measure("map", TOP5, TWO_HITS) == pytest.approx((1 / 1 + 2 / 3) / 2)
        assert round((1 + 2 / 3) / 2, 4) == 0.8333

    def test_eight_relevant_recall(self) -> None:
        assert measure("recall", TOP5, EIGHT_RELEVANT) == 0.375
        assert measure("capped_recall", TOP5, EIGHT_RELEVANT) == 0.6

    def test_eight_relevant_map(self) -> None:
        # ranx gives .2833 (it divides by 8); ours divides by min(relevant, k) = 5.
        by_hand = (1 + 2 / 3 + 3 / 5) / 5
        assert measure("map", TOP5, EIGHT_RELEVANT) == pytest.approx(by_hand)
        assert round(by_hand, 4) == 0.4533

    def test_grades_ndcg(self) -> None:
        ideal = 3 + 2 / log2(3) + 1 / log2(4)
        by_hand = (1 + 3 / log2(3) + 2 / log2(5)) / ideal
        assert measure("ndcg", GRADED_LIST, GRADED) == pytest.approx(by_hand)
        assert round(by_hand, 4) == 0.7884

    def test_grades_exponential_ndcg(self) -> None:
        ideal = 7 + 3 / log2(3) + 1 / log2(4)
        by_hand = (1 + 7 / log2(3) + 3 / log2(5)) / ideal
        assert measure("exponential_ndcg", GRADED_LIST, GRADED) == pytest.approx(by_hand)
        assert round(by_hand, 4) == 0.7142

    def test_grades_ignored_ndcg(self) -> None:
        by_hand = (1 + 1 / log2(3) + 1 / log2(5)) / (1 + 1 / log2(3) + 1 / log2(4))
        assert measure("ndcg", GRADED_LIST, ones(*GRADED)) == pytest.approx(by_hand)
        assert round(by_hand, 4) == 0.9675

    def test_no_relevant_item_is_left_out(self) -> None:
        truth = Truth.from_lists([[1, 3], []])
        judged = judge(np.array([TOP5, TOP5]), truth)
        assert judged.left_out == 1
        np.testing.assert_array_equal(judged.row, [0])
        for metric in USER_METRICS.values():
            assert metric(judged, 5).shape == (1,)


def test_precision_of_a_short_list_divides_by_k() -> None:
    assert measure("precision", [1, -1, -1, -1], ones(1)) == 0.25
    assert measure("recall", [1, -1, -1, -1], ones(1)) == 1.0


def test_mrr_and_hit_rate_by_hand() -> None:
    assert measure("mrr", [7, 8, 1, 2], ones(1, 2)) == pytest.approx(1 / 3)
    assert measure("mrr", [7, 8, 1, 2], ones(1, 2), k=2) == 0.0
    assert measure("hit_rate", [7, 8, 1, 2], ones(1, 2), k=3) == 1.0
    assert measure("hit_rate", [7, 8, 1, 2], ones(1, 2), k=2) == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sorted(USER_METRICS))
def test_agrees_with_plain_loops(
    name: str, seed: int, reference: ModuleType, random_case: Any
) -> None:
    case = random_case(np.random.default_rng(seed), 40, 12, 9)
    judged = judge(case.lists, Truth.from_rows(case.indptr, case.items, case.grades))
    kept = [row for row, wanted in enumerate(case.relevant) if wanted]
    assert judged.row.tolist() == kept
    assert judged.left_out == 40 - len(kept)
    for k in (1, 3, 9):
        wanted = [
            reference.METRICS[name](case.lists.item_index[row].tolist(), case.relevant[row], k)
            for row in kept
        ]
        np.testing.assert_allclose(USER_METRICS[name](judged, k), wanted, rtol=1e-12)


def test_every_metric_has_a_reference(reference: ModuleType) -> None:
    assert set(reference.METRICS) == set(USER_METRICS)


# Our name, ranx's name, cutoffs. ranx's map@k divides by all relevant items, ours by
# min(relevant, k), so there they are compared at k >= relevant; "burges" has the exponential gain.
RANX_NAMES = [
    ("precision", "precision", (2, 5, 10)),
    ("recall", "recall", (2, 5, 10)),
    ("hit_rate", "hit_rate", (2, 5, 10)),
    ("mrr", "mrr", (2, 5, 10)),
    ("ndcg", "ndcg", (2, 5, 10)),
    ("exponential_ndcg", "ndcg_burges", (2, 5, 10)),
    ("map", "map", (10,)),
]


@pytest.mark.slow  # ranx compiles its metrics: half a minute the first time, seconds later
@pytest.mark.filterwarnings("ignore")  # of ranx and numba
class TestAgainstRanx:
    def test_random_lists(self, random_case: Any) -> None:
        ranx = pytest.importorskip("ranx")
        case = random_case(np.random.default_rng(7), 30, 10, 10)
        # ranx has no place for a user without an answer or without relevant items.
        filled = case.lists.item_index[:, 0] >= 1
        rows = [r for r in range(30) if case.relevant[r] and filled[r]]
        qrels = {f"{r:02d}": {str(i): int(g) for i, g in case.relevant[r].items()} for r in rows}
        run = {f"{r:02d}": scored(case.lists.item_index[r].tolist()) for r in rows}
        truth = Truth.from_rows(case.indptr, case.items, case.grades)
        judged = judge(case.lists, truth.only(users=np.isin(np.arange(30), rows)))
        for ours, theirs, cutoffs in RANX_NAMES:
            for k in cutoffs:
                wanted = ranx.evaluate(
                    ranx.Qrels(qrels), ranx.Run(run), f"{theirs}@{k}", return_mean=False
                )
                got = USER_METRICS[ours](judged, k)
                np.testing.assert_allclose(got, wanted, rtol=1e-9, err_msg=f"{ours}@{k}")

    def test_convention_table(self) -> None:
        ranx = pytest.importorskip("ranx")
        rows = [
            ("precision", "precision", TOP5, TWO_HITS),
            ("ndcg", "ndcg", TOP5, TWO_HITS),
            ("map", "map", TOP5, TWO_HITS),
            ("recall", "recall", TOP5, EIGHT_RELEVANT),
            ("ndcg", "ndcg", GRADED_LIST, GRADED),
            ("exponential_ndcg", "ndcg_burges", GRADED_LIST, GRADED),
        ]
        for ours, theirs, items, relevant in rows:
            qrels = ranx.Qrels({"u": {str(i): int(g) for i, g in relevant.items()}})
            wanted = ranx.evaluate(qrels, ranx.Run({"u": scored(items)}), f"{theirs}@5")
            assert measure(ours, items, relevant) == pytest.approx(wanted)
        # The one row where ranx differs: it divides by all eight relevant items, not by k.
        qrels = ranx.Qrels({"u": {str(i): 1 for i in EIGHT_RELEVANT}})
        theirs = ranx.evaluate(qrels, ranx.Run({"u": scored(TOP5)}), "map@5")
        assert measure("map", TOP5, EIGHT_RELEVANT) == pytest.approx(theirs * 8 / 5)


def scored(items: list[int]) -> dict[str, float]:
    """A list as ranx wants it: falling scores, and no padding."""
    return {str(item): 100.0 - place for place, item in enumerate(items) if item >= 1}


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A list of distinct items of 1..12 with padding at its end, and relevant items."""
    items = draw(st.lists(st.integers(1, 12), unique=True, min_size=1, max_size=8))
    relevant = draw(st.lists(st.integers(1, 12), unique=True, min_size=1, max_size=8))
    return items + [-1] * draw(st.integers(0, 3)), relevant


class TestInvariants:
    @given(cases())
    def test_between_zero_and_one(self, case: tuple[list[int], list[int]]) -> None:
        items, relevant = case
        for name in USER_METRICS:
            assert 0.0 <= measure(name, items, ones(*relevant)) <= 1.0 + 1e-12

    @given(st.lists(st.integers(1, 12), unique=True, min_size=1, max_size=8), st.integers(0, 4))
    def test_a_perfect_list(self, relevant: list[int], extra: int) -> None:
        items = relevant + list(range(20, 20 + extra))
        for name in ("ndcg", "exponential_ndcg", "map", "mrr", "hit_rate", "recall"):
            assert measure(name, items, ones(*relevant)) == pytest.approx(1.0)
        for k in range(1, len(items) + 1):
            assert measure("capped_recall", items, ones(*relevant), k) == pytest.approx(
                min(k, len(relevant)) / min(k, len(relevant))
            )

    @given(cases(), st.data())
    def test_moving_a_hit_up_never_lowers(
        self, case: tuple[list[int], list[int]], data: st.DataObject
    ) -> None:
        items, relevant = case
        hits = [p for p, item in enumerate(items) if item in relevant and p > 0]
        if not hits:
            return
        place = data.draw(st.sampled_from(hits))
        above = place - 1
        if items[above] in relevant:
            return
        moved = items.copy()
        moved[above], moved[place] = moved[place], moved[above]
        for name in USER_METRICS:
            for k in range(1, len(items) + 1):
                before = measure(name, items, ones(*relevant), k)
                assert measure(name, moved, ones(*relevant), k) >= before - 1e-12

    @given(cases(), st.randoms(use_true_random=False))
    def test_relabelling_items_changes_nothing(
        self, case: tuple[list[int], list[int]], random: Any
    ) -> None:
        items, relevant = case
        labels = list(range(1, 13))
        random.shuffle(labels)
        new = {-1: -1} | {old: label for old, label in enumerate(labels, start=1)}
        for name in USER_METRICS:
            assert measure(name, [new[i] for i in items], ones(*[new[i] for i in relevant])) == (
                pytest.approx(measure(name, items, ones(*relevant)))
            )

    @given(cases(), st.integers(1, 5))
    def test_a_longer_list_changes_nothing_before_k(
        self, case: tuple[list[int], list[int]], extra: int
    ) -> None:
        items, relevant = case
        k = len(items)
        for name in USER_METRICS:
            longer = measure(name, items + list(range(50, 50 + extra)), ones(*relevant), k)
            assert longer == measure(name, items, ones(*relevant), k)

    @settings(max_examples=25)
    @given(st.integers(0, 2**31))
    def test_order_of_users_changes_nothing(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        lists = np.argsort(rng.random((6, 9)), axis=1)[:, :5] + 1
        relevant = [rng.permutation(9)[: rng.integers(1, 6)] + 1 for _ in range(6)]
        order = rng.permutation(6)
        plain = judge(lists, Truth.from_lists([row.tolist() for row in relevant]))
        moved = judge(lists[order], Truth.from_lists([relevant[row].tolist() for row in order]))
        for metric in USER_METRICS.values():
            np.testing.assert_allclose(metric(moved, 5), metric(plain, 5)[order])


class TestListMetrics:
    LISTS = np.array([[1, 2, -1], [1, 3, 4], [-1, -1, -1]])
    COUNTS = np.array([0, 7, 3, 1, 0, 0, 0, 0, 0, 0, 0])  # N = 10; head is item 1

    def test_coverage_by_hand(self) -> None:
        assert coverage(self.LISTS, 3, self.COUNTS) == 0.4
        assert coverage(self.LISTS, 1, self.COUNTS) == 0.1

    def test_novelty_by_hand(self) -> None:
        # One event added to each of 10 items: 8, 4, 2, 1 of 21.
        bits = {1: log2(21 / 8), 2: log2(21 / 4), 3: log2(21 / 2), 4: log2(21)}
        np.testing.assert_allclose(self_information(self.COUNTS)[1:5], list(bits.values()))
        wanted = ((bits[1] + bits[2]) / 2 + (bits[1] + bits[3] + bits[4]) / 3) / 2
        assert novelty(self.LISTS, 3, self.COUNTS) == pytest.approx(wanted)

    def test_head_share_by_hand(self) -> None:
        assert head_share(self.LISTS, 3, self.COUNTS) == pytest.approx((1 / 2 + 1 / 3) / 2)

    def test_only_empty_lists(self) -> None:
        empty = np.full((2, 3), -1)
        for metric in LIST_METRICS.values():
            assert metric(empty, 3, self.COUNTS) == 0.0

    def test_popularity_must_cover(self) -> None:
        with pytest.raises(ValueError, match="popularity must cover every recommended item: got 4"):
            coverage(self.LISTS, 3, np.ones(4))


class TestRefusals:
    JUDGED = judge(np.array([TOP5]), Truth.from_lists([[1]]))

    @pytest.mark.parametrize("name", sorted(USER_METRICS))
    def test_k_out_of_range(self, name: str) -> None:
        with pytest.raises(ValueError, match="k must be >= 1, got 0"):
            USER_METRICS[name](self.JUDGED, 0)
        with pytest.raises(ValueError, match="k must not exceed the length of the lists: got 6"):
            USER_METRICS[name](self.JUDGED, 6)

    @pytest.mark.parametrize("name", sorted(LIST_METRICS))
    def test_k_out_of_range_of_lists(self, name: str) -> None:
        with pytest.raises(ValueError, match="k must be >= 1, got 0"):
            LIST_METRICS[name](np.array([TOP5]), 0, np.ones(6))
        with pytest.raises(ValueError, match="k must not exceed the length of the lists: got 6"):
            LIST_METRICS[name](np.array([TOP5]), 6, np.ones(6))

    def test_gain(self) -> None:
        with pytest.raises(ValueError, match="gain must be 'linear' or 'exponential', got 'log'"):
            ndcg(self.JUDGED, 5, gain="log")  # type: ignore[arg-type]


class TestNames:
    def test_read(self) -> None:
        assert parse_metric("recall@20") == MetricName("recall", 20)
        assert str(MetricName("recall", 20)) == "recall@20"
        assert parse_metric("ndcg@5").is_per_user
        assert not parse_metric("coverage@5").is_per_user

    @pytest.mark.parametrize("text", ["recall", "recall@", "recall@0", "recall@-1", "recall@2.5"])
    def test_bad_cutoff(self, text: str) -> None:
        with pytest.raises(ConfigError, match="must read like recall@20 with a cutoff >= 1, got"):
            parse_metric(text)

    def test_unknown(self) -> None:
        with pytest.raises(ConfigError, match=r"unknown metric 'recal'; .* did you mean 'recall'"):
            parse_metric("recal@20")
