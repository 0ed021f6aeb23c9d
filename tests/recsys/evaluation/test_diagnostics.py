from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.diagnostics import (
    RetrieverDiagnostics,
    collapse,
    diagnose_retriever,
    global_auc,
    occurrence_skewness,
    tail_recall,
)
from recsys.evaluation.geometry import alignment, rankme, uniformity
from recsys.evaluation.metrics import coverage, head_share
from recsys.evaluation.truth import Truth

DIM = 16
HEALTHY = RetrieverDiagnostics(
    num_users=900,
    num_items=400,
    alignment=0.8,
    uniformity_users=-3.1,
    uniformity_items=-3.4,
    rankme_users=50.0,
    rankme_items=55.0,
    global_auc=0.86,
    coverage=0.5,
    head_share=0.7,
    occurrence_skewness=5.7,
    tail_recall=0.01,
)


class World:
    """Users who want items near them, and lists of the nearest items."""

    def __init__(self, num_users: int = 300, num_items: int = 200) -> None:
        rng = np.random.default_rng(7)
        self.query = rng.standard_normal((num_users, DIM)).astype(np.float32)
        self.item = rng.standard_normal((num_items + 1, DIM)).astype(np.float32)
        self.item[0] = 100.0  # whatever stands there, it is no item
        score = self.query @ self.item[1:].T
        self.order = np.argsort(-score, axis=1) + 1
        self.retrieved = self.order[:, :20]
        self.truth = Truth.from_lists([row[rng.integers(0, 40, 3)].tolist() for row in self.order])
        self.counts = rng.integers(1, 100, num_items + 1)

    def diagnose(self, **changes: object) -> RetrieverDiagnostics:
        given_ = {
            "query_vectors": self.query,
            "item_vectors": self.item,
            "retrieved": self.retrieved,
            "counts": self.counts,
            "rng": np.random.default_rng(0),
            "truth": self.truth,
            **changes,
        }
        return diagnose_retriever(**given_)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_numbers_are_those_of_the_functions(world: World) -> None:
    found = world.diagnose()
    wanted_query = world.query[world.truth.rows]
    wanted_item = world.item[world.truth.item_index]
    assert found.num_users == 300
    assert found.num_items == 200  # row 0 is no item
    assert found.alignment == pytest.approx(alignment(wanted_query, wanted_item))
    assert found.uniformity_users == pytest.approx(uniformity(world.query))
    assert found.uniformity_items == pytest.approx(uniformity(world.item[1:]))
    assert found.rankme_users == pytest.approx(rankme(world.query))
    assert found.rankme_items == pytest.approx(rankme(world.item[1:]))
    assert found.coverage == coverage(world.retrieved, 20, world.counts)
    assert found.head_share == head_share(world.retrieved, 20, world.counts)
    assert found.occurrence_skewness == occurrence_skewness(world.retrieved, 200)
    assert found.tail_recall == tail_recall(world.retrieved, world.truth, world.counts)
    all_pairs = (world.query @ world.item[1:].T).ravel()
    auc = global_auc((wanted_query * wanted_item).sum(axis=1), all_pairs)
    assert auc > 0.8
    assert found.global_auc == pytest.approx(auc, abs=4 * 0.002)  # random pairs are a sample


def test_rows_are_drawn(world: World) -> None:
    found = world.diagnose(max_rows=50)
    assert (found.num_users, found.num_items) == (50, 50)
    assert found == world.diagnose(max_rows=50)
    other = world.diagnose(max_rows=50, rng=np.random.default_rng(1))
    assert found.uniformity_users != other.uniformity_users
    assert found.uniformity_users == pytest.approx(world.diagnose().uniformity_users, rel=0.1)
    assert found.coverage == other.coverage  # lists are looked at as a whole


def test_no_row_is_drawn_twice(world: World) -> None:
    found = world.diagnose(query_vectors=np.eye(300), item_vectors=np.eye(201, 300), max_rows=150)
    assert found.rankme_users == pytest.approx(150.0)
    assert found.rankme_items == pytest.approx(150.0)


def test_wanted_pairs_are_drawn_as_pairs() -> None:
    world = World(num_users=600)
    truth = Truth.from_lists(world.order[:, :100].tolist())  # 60,000 pairs, more than are drawn
    everything = alignment(world.query[truth.rows], world.item[truth.item_index])
    assert everything < 1.7
    found = world.diagnose(truth=truth).alignment
    assert found == pytest.approx(everything, abs=4 * 1 / np.sqrt(50_000))


def test_random_pairs_are_of_the_catalogue() -> None:
    item = np.array([[1e6], [1.0]])
    found = diagnose_retriever(
        np.ones((2, 1)),
        item,
        np.array([[1], [1]]),
        np.array([0, 5]),
        rng=np.random.default_rng(0),
        truth=Truth.from_lists([[1], []]),
    )
    assert found.global_auc == 0.5  # the only item against itself
    assert found.uniformity_items is None


def test_what_truth_tells_is_none_without_it(world: World) -> None:
    of_truth = {"alignment": None, "global_auc": None, "tail_recall": None}
    with_truth = world.diagnose()
    assert world.diagnose(truth=None) == replace(with_truth, **of_truth)  # type: ignore[arg-type]
    assert world.diagnose(truth=Truth.from_lists([[]] * 300)).alignment is None


def test_zero_rows_have_no_direction(world: World) -> None:
    item = world.item.copy()
    item[101:] = 0.0  # never met, and no content
    found = world.diagnose(item_vectors=item)
    assert found.num_items == 100
    assert found.uniformity_items == pytest.approx(uniformity(item[1:101]))
    assert found.rankme_items == pytest.approx(rankme(item[1:101]))


def test_goes_through_json(world: World) -> None:
    found = world.diagnose(truth=None)
    assert RetrieverDiagnostics(**json.loads(json.dumps(found.as_dict()))) == found


def test_only_a_collapsed_retriever_sets_off_the_alarm(world: World) -> None:
    assert collapse(world.diagnose(), DIM) is None
    point = np.ones_like(world.item) + 0.01 * world.item
    message = collapse(world.diagnose(item_vectors=point), DIM)
    assert message is not None
    assert "the item vectors have collapsed: RankMe 1." in message
    assert "of at most 16, want >= 8.0" in message
    assert "all point the same way" in message
    assert "raise gamma" in message
    flat = world.query.copy()
    flat[:, 4:] = 0.0  # spread out, but in 4 of 16 dimensions
    message = collapse(world.diagnose(query_vectors=flat), DIM)
    assert message is not None
    assert "the user vectors have collapsed: RankMe 4.0" in message
    assert "use few of their dimensions" in message


def test_alarm_by_hand() -> None:
    assert collapse(HEALTHY, 64) is None
    assert collapse(replace(HEALTHY, rankme_items=32.0), 64) is None
    message = collapse(replace(HEALTHY, rankme_items=31.9), 64)
    assert message is not None
    assert "item vectors have collapsed: RankMe 31.9 of at most 64, want >= 32.0" in message
    assert collapse(replace(HEALTHY, rankme_items=31.9), 64, least=0.4) is None
    # Five users cannot fill more than five directions.
    few = replace(HEALTHY, rankme_users=4.0, num_users=5)
    assert collapse(few, 64) is None
    assert collapse(replace(few, rankme_users=2.0), 64) is not None
    alone = replace(few, num_users=1, rankme_users=1.0, uniformity_users=None)
    assert collapse(alone, 64) is None
    dead = replace(HEALTHY, num_users=0, rankme_users=0.0, uniformity_users=None)
    assert collapse(dead, 64) == (
        "the user vectors are all zero: lower the learning rates or the weight decay"
    )


def test_all_zero_vectors(world: World) -> None:
    found = world.diagnose(query_vectors=np.zeros_like(world.query))
    assert (found.num_users, found.rankme_users, found.uniformity_users) == (0, 0.0, None)
    assert found.global_auc == 0.5


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
    st.lists(st.integers(0, 5), min_size=1, max_size=12),
)
def test_auc_counts_pairs(positive: list[int], other: list[int]) -> None:
    pairs = [1.0 if p > r else 0.5 if p == r else 0.0 for p in positive for r in other]
    found = global_auc(np.array(positive, float), np.array(other, float))
    assert found == pytest.approx(np.mean(pairs))


@given(st.integers(0, 999), st.integers(3, 30))
def test_skewness_is_that_of_the_counts(seed: int, num_items: int) -> None:
    rng = np.random.default_rng(seed)
    lists = np.argsort(rng.random((12, num_items)) ** rng.random(num_items), axis=1)[:, :3] + 1
    lists[0] = -1
    occurrence = [(lists == item).sum() for item in range(1, num_items + 1)]
    found = occurrence_skewness(lists, num_items)
    if len(set(occurrence)) > 1:
        assert found == pytest.approx(scipy.stats.skew(occurrence))
    else:
        assert found == 0.0


def test_skewness_by_hand() -> None:
    # Occurrences 4, 0, 0, 0: mean 1, third moment (27 - 3) / 4, variance 3.
    hub = np.ones((4, 1), dtype=np.int64)
    assert occurrence_skewness(hub, 4) == pytest.approx(6 / 3**1.5)
    assert occurrence_skewness(np.array([[1, 2], [3, 4]]), 4) == 0.0
    assert occurrence_skewness(np.full((2, 3), -1), 4) == 0.0


def test_tail_recall_counts_the_less_popular_half() -> None:
    counts = np.array([0, 9, 8, 1, 0])  # items 3 and 4 are the tail
    truth = Truth.from_lists([[1, 3, 4], [1, 2], [4]])
    lists = np.array([[3, 1], [1, 2], [2, 1]])
    # User 0 finds item 3 of {3, 4}; user 1 wants no tail item; user 2 misses item 4.
    assert tail_recall(lists, truth, counts) == pytest.approx((0.5 + 0.0) / 2)
    assert tail_recall(lists, Truth.from_lists([[1], [2], []]), counts) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_vectors": np.zeros((0, DIM))}, r"query_vectors must be \[Q >= 1, D\], got shape"),
        ({"item_vectors": np.ones((201, 3))}, r"item_vectors must be \[N \+ 1, D\] = \(201, 16\)"),
        ({"counts": np.ones(9)}, r"item_vectors must be .* = \(9, 16\), got \(201, 16\)"),
        ({"retrieved": np.ones((3, 1), int)}, r"retrieved must have one row per .* got 3 for 300"),
        ({"truth": Truth.from_lists([[1]])}, r"truth must have one row per query: got 1 for 300"),
        (
            {"truth": Truth.from_lists([[201]] * 300)},
            r"truth must hold items of the catalogue: got item index 201 for 201 rows",
        ),
        ({"max_rows": 1}, r"max_rows must be >= 2, got 1"),
        (
            {"query_vectors": np.where(np.arange(300)[:, None] == 5, np.nan, np.ones((300, DIM)))},
            r"query_vectors must be finite: 1 rows are not, the first is row 5",
        ),
        (
            {"item_vectors": np.where(np.arange(201)[:, None] > 198, np.inf, np.ones((201, DIM)))},
            r"item_vectors must be finite: 2 rows are not, the first is row 199",
        ),
    ],
)
def test_refuses(world: World, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world.diagnose(**changes)


def test_refuses_what_the_small_functions_cannot_use() -> None:
    with pytest.raises(ValueError, match=r"must not be empty, got 0 and 2 scores"):
        global_auc(np.zeros(0), np.zeros(2))
    with pytest.raises(ValueError, match=r"num_items must be >= 1 and .* got 2 for item index 3"):
        occurrence_skewness(np.array([[3]]), 2)
    with pytest.raises(ValueError, match=r"dim must be >= 1, got 0"):
        collapse(HEALTHY, 0)
    with pytest.raises(ValueError, match=r"least must be above 0 and below 1, got 1.0"):
        collapse(HEALTHY, 64, least=1.0)
