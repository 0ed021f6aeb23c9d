from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from recsys.topk import TopK, top_k

# Few values, so that ties are the ordinary case.
VALUES = st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0, float("inf"), -float("inf"), float("nan")])


def reference(score: np.ndarray, k: int, excluded: np.ndarray | None) -> TopK:
    """One row and one item at a time: sort by falling score, then by index."""
    item_index = np.full((len(score), k), -1, dtype=np.int64)
    best = np.full((len(score), k), -np.inf, dtype=np.float32)
    for row in range(len(score)):
        offered = [
            (-score[row, item], item)
            for item in range(1, score.shape[1])
            if score[row, item] > -np.inf and not (excluded is not None and excluded[row, item])
        ]
        for place, (negative, item) in enumerate(sorted(offered)[:k]):
            item_index[row, place], best[row, place] = item, -negative
    return TopK(item_index, best)


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray | None]:
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    score = draw(arrays(np.float32, shape, elements=VALUES))
    excluded = draw(st.none() | arrays(np.bool_, shape))
    return score, draw(st.integers(1, 12)), excluded


@given(questions())
def test_equals_a_stable_sort(question: tuple[np.ndarray, int, np.ndarray | None]) -> None:
    score, k, excluded = question
    before = score.copy()
    found, wanted = top_k(score, k, excluded=excluded), reference(score, k, excluded)
    np.testing.assert_array_equal(found.item_index, wanted.item_index)
    np.testing.assert_array_equal(found.score, wanted.score)
    assert found.item_index.dtype == np.int64
    assert found.score.dtype == np.float32
    np.testing.assert_array_equal(score, before)  # the argument is not written to


@st.composite
def wide_questions(draw: st.DrawFn) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Wide enough that blocks of columns are compared first; ties within and across blocks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 5)), draw(st.integers(17, 600)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    score = (rng.integers(0, levels, shape) - levels // 2).astype(np.float32)
    # Often one value nearly everywhere: ties between blocks whose maxima differ.
    common = draw(st.sampled_from([[-0.0, 0.0], [-np.inf], [np.nan, np.inf, -np.inf, -0.0]]))
    filled = rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.99]))
    score = np.where(filled, rng.choice(common, shape), score).astype(np.float32)
    share = draw(st.sampled_from([None, 0.05, 0.95, 1.0]))
    excluded = None if share is None else rng.random(shape) < share
    return score, draw(st.integers(1, 24)), excluded


@given(wide_questions())
def test_blocks_change_nothing(question: tuple[np.ndarray, int, np.ndarray | None]) -> None:
    score, k, excluded = question
    found, wanted = top_k(score, k, excluded=excluded), reference(score, k, excluded)
    np.testing.assert_array_equal(found.item_index, wanted.item_index)
    np.testing.assert_array_equal(found.score, wanted.score)


def test_ties_between_blocks_go_to_the_lower_index() -> None:
    score = np.zeros((1, 601))
    score[0, 400] = 9.0  # its block is the best, but its other items are not
    assert top_k(score, 3).item_index.tolist() == [[400, 1, 2]]


def test_many_rows_are_taken_a_chunk_at_a_time() -> None:
    score = np.random.default_rng(5).integers(0, 50, (60, 9_001)).astype(np.float64)
    score[31, 17] = np.nan  # one row's NaN leaves the others alone
    score[59, 1:8_999] = -np.inf
    excluded = np.zeros(score.shape, dtype=bool)
    excluded[7, 1:6_000] = excluded[30, 1:] = True
    found, wanted = top_k(score, 20, excluded=excluded), reference(score, 20, excluded)
    np.testing.assert_array_equal(found.item_index, wanted.item_index)
    np.testing.assert_array_equal(found.score, wanted.score)


def test_scores_are_compared_in_single_precision() -> None:
    score = np.array([[0.0, 1.0, 1.0 + 1e-12, 0.5]])
    assert top_k(score, 2).item_index.tolist() == [[1, 2]]


def test_by_hand() -> None:
    score = np.array([[9.0, 1.0, 2.0, 2.0, np.nan, -np.inf, 0.5]])
    found = top_k(score, 4)
    assert found.item_index.tolist() == [[2, 3, 1, 6]]
    assert found.score.tolist() == [[2.0, 2.0, 1.0, 0.5]]


def test_ties_at_the_edge_of_k_go_to_the_lower_index() -> None:
    assert top_k(np.ones((2, 6)), 3).item_index.tolist() == [[1, 2, 3]] * 2


def test_what_is_left_out_is_padding() -> None:
    excluded = np.array([[False, True, True], [False, False, True]])
    found = top_k(np.array([[5.0, 1.0, 2.0], [5.0, 1.0, 2.0]]), 5, excluded=excluded)
    assert found.item_index.tolist() == [[-1] * 5, [1, -1, -1, -1, -1]]
    assert np.isneginf(found.score[0]).all()


@pytest.mark.parametrize("k", [1, 3, 7])
def test_no_queries_and_no_items(k: int) -> None:
    assert top_k(np.zeros((0, 4)), k).item_index.shape == (0, k)
    assert top_k(np.zeros((2, 1)), k).item_index.tolist() == [[-1] * k] * 2


def test_batch_equals_one_by_one() -> None:
    score = np.random.default_rng(3).integers(0, 4, (20, 15)).astype(np.float32)
    whole = top_k(score, 6)
    for row in range(20):
        alone = top_k(score[row : row + 1], 6)
        np.testing.assert_array_equal(alone.item_index[0], whole.item_index[row])


@pytest.mark.parametrize(
    ("score", "k", "excluded", "message"),
    [
        (np.zeros((1, 3)), 0, None, r"k must be >= 1, got 0"),
        (np.zeros(3), 1, None, r"score must be \[Q, N \+ 1\], got shape \(3,\)"),
        (np.zeros((1, 3)), 1, np.zeros((1, 2), bool), r"got \(1, 2\) for \(1, 3\)"),
    ],
)
def test_refuses(score: np.ndarray, k: int, excluded: np.ndarray | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_k(score, k, excluded=excluded)
