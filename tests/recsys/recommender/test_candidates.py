from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.tables import Histories, Vocabulary
from recsys.recommender.pool import CandidatePool, pool_candidates
from recsys.retrieval.blocks import DenseRetriever
from recsys.topk import TopK, top_k

N = 12


class Fixed:
    """A retriever whose scores are given: [Q, N + 1]; also the question put to it."""

    def __init__(self, name: str, table: np.ndarray) -> None:
        self.name, self.table = name, table.astype(np.float32)

    def ask(
        self,
        histories: Histories,
        *,
        moment: np.ndarray | None = None,
        user_index: np.ndarray | None = None,
    ) -> Fixed:
        self.asked = user_index
        return self

    def retrieve(self, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        return top_k(self.table, k, excluded=excluded)

    def score(self, item_index: np.ndarray) -> np.ndarray:
        found = np.take_along_axis(self.table, np.maximum(item_index, 0), axis=1)
        return np.where(item_index > 0, found, np.float32(-np.inf))

    def save(self, directory: Path) -> None:
        raise NotImplementedError


def empty(rows: int) -> Histories:
    nothing = np.zeros(0, dtype=np.int64)
    return Histories(
        np.zeros(rows + 1, dtype=np.int64), nothing, nothing, np.zeros(0, dtype=np.float32)
    )


def pooled(
    tables: dict[str, np.ndarray], per_source: int, excluded: np.ndarray | None = None
) -> CandidatePool:
    queries = len(next(iter(tables.values())))
    return pool_candidates(
        [Fixed(name, table) for name, table in tables.items()],
        empty(queries),
        per_source,
        num_items=N,
        moment=np.zeros(queries, dtype=np.int64),
        excluded=excluded,
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, np.ndarray], int, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    queries, sources = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    tables = {
        f"s{number}": rng.integers(-2, 5, (queries, N + 1)).astype(np.float32)
        for number in range(sources)
    }
    share = draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    return tables, draw(st.integers(1, N + 3)), rng.random((queries, N + 1)) < share


@given(questions())
def test_pool_is_the_union_scored_by_everyone(
    question: tuple[dict[str, np.ndarray], int, np.ndarray],
) -> None:
    tables, per_source, excluded = question
    pool = pooled(tables, per_source, excluded)
    assert pool.names == tuple(tables)
    for row in range(len(excluded)):
        union = set()
        for table in tables.values():
            union |= set(top_k(table, per_source, excluded=excluded).item_index[row].tolist())
        items = pool.item_index[row]
        real = items[items > 0]
        assert real.tolist() == sorted(union - {-1})  # ascending, so distinct
        assert (items[real.size :] == -1).all()
        assert not excluded[row, real].any()
        for name, table in tables.items():
            np.testing.assert_array_equal(pool.score[name][row, : real.size], table[row, real])
            assert np.isneginf(pool.score[name][row, real.size :]).all()
            ranks = pool.rank[name][row, : real.size]
            order = np.argsort(-table[row, real], kind="stable")
            assert ranks[order].tolist() == list(range(real.size))
        best = [
            int(np.argmin([pool.rank[name][row, c] for name in tables])) for c in range(len(real))
        ]
        assert pool.source[row, : real.size].tolist() == best
    assert pool.item_index.shape[1] == max(int(pool.real.sum(axis=1).max()), 0)


def two_rows() -> CandidatePool:
    first = np.full((2, N + 1), -np.inf)
    second = np.full((2, N + 1), -np.inf)
    first[0, [3, 7]], first[1, 5] = [2.0, 4.0], 8.0
    second[0, [3, 7]], second[1, 5] = [0.5, 0.25], -1.0
    return pooled({"first": first, "second": second}, 2)


def test_by_hand() -> None:
    pool = two_rows()
    assert pool.item_index.tolist() == [[3, 7], [5, -1]]
    assert pool.source[pool.real].tolist() == [1, 0, 0]
    assert pool.rank["first"][0].tolist() == [1.0, 0.0]


def test_requests_are_in_row_major_order_with_shares_of_the_best() -> None:
    items = Vocabulary.from_ids([f"i{number}" for number in range(1, N + 1)])
    frame = two_rows().to_requests(["ann", "bob"], items, np.array([10, 20]))
    assert frame["request_id"].to_list() == [0, 0, 1]
    assert frame["user_id"].to_list() == ["ann", "ann", "bob"]
    assert frame["item_id"].to_list() == ["i3", "i7", "i5"]
    assert frame["moment"].to_physical().to_list() == [10, 10, 20]
    assert frame["score__first"].to_list() == [2.0, 4.0, 8.0]
    assert frame["score__first_share"].to_list() == [0.5, 1.0, 1.0]
    assert frame["rank__second"].to_list() == [0.0, 1.0, 0.0]
    assert frame["score__second_share"].to_list()[:2] == [1.0, 0.5]


def test_shares_stay_small_where_no_score_is_positive() -> None:
    """A cosine can be negative everywhere; its share must not be a number of the order of 1e9."""
    items = Vocabulary.from_ids([f"i{number}" for number in range(1, N + 1)])
    pool = pooled({"cosine": np.full((1, N + 1), -0.3)}, 3)
    share = pool.to_requests(["ann"], items, np.zeros(1, dtype=np.int64))["score__cosine_share"]
    assert share.to_list() == [0.0, 0.0, 0.0]


def test_nothing_left_gives_a_pool_without_columns() -> None:
    pool = pooled({"s": np.ones((2, N + 1))}, 3, np.ones((2, N + 1), dtype=bool))
    assert pool.item_index.shape == (2, 0)
    items = Vocabulary.from_ids([f"i{number}" for number in range(1, N + 1)])
    assert pool.to_requests(["a", "b"], items, np.zeros(2, dtype=np.int64)).height == 0


def test_no_queries() -> None:
    assert pooled({"s": np.zeros((0, N + 1))}, 3).item_index.shape == (0, 0)


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_retrievers_must_have_distinct_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="must be named, each once"):
        pool_candidates(
            [Fixed(name, np.zeros((1, N + 1))) for name in names],
            empty(1),
            3,
            num_items=N,
            moment=np.zeros(1, dtype=np.int64),
        )


def test_per_source_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        pooled({"s": np.zeros((1, N + 1))}, 0)


class Counting(DenseRetriever):
    """Scores every item by its number; counts how often it is asked for all of them."""

    name = "counting"
    num_items = N

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.calls = 0

    def score_all(self, histories: Histories, moment: np.ndarray) -> np.ndarray:
        self.calls += 1
        return moment[:, None] + np.tile(np.arange(N + 1, dtype=np.float32), (len(histories), 1))


@pytest.mark.parametrize(("block_bytes", "calls"), [(10_000, 1), (2 * 4 * (N + 1), 6)])
def test_all_items_are_scored_once_where_the_scores_fit(block_bytes: int, calls: int) -> None:
    """Five queries are one block, or three blocks that are made for both answers."""
    counting = Counting(block_bytes)
    pool = pool_candidates(
        [counting], empty(5), 2, num_items=N, moment=np.arange(5) * 100, excluded=None
    )
    assert counting.calls == calls
    assert pool.item_index.tolist() == [[N - 1, N]] * 5
    assert pool.score["counting"][:, 1].tolist() == [N, N + 100, N + 200, N + 300, N + 400]


def test_every_retriever_is_told_who_asks() -> None:
    retrievers = [Fixed(name, np.ones((2, N + 1))) for name in ("a", "b")]
    known = np.array([7, 0])
    pool_candidates(
        retrievers, empty(2), 1, num_items=N, moment=np.zeros(2, dtype=np.int64), user_index=known
    )
    assert [retriever.asked is known for retriever in retrievers] == [True, True]
