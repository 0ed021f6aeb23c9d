from __future__ import annotations

import numpy as np
import pytest

from features.tables import Histories
from recsys.evaluation import Truth, judge
from recsys.topk import TopK


def histories() -> Histories:
    return Histories(
        indptr=np.array([0, 3, 3, 5]),
        item_index=np.array([4, 1, 4, 2, 7]),
        timestamp=np.array([5, 6, 9, 1, 1]),
        weight=np.array([1, 2, 5, 0, 3], dtype=np.float32),
    )


def test_from_histories_merges_repeats() -> None:
    truth = Truth.from_histories(histories())
    np.testing.assert_array_equal(truth.indptr, [0, 2, 2, 4])
    np.testing.assert_array_equal(truth.item_index, [1, 4, 2, 7])
    np.testing.assert_array_equal(truth.grade, [1, 1, 1, 1])
    assert len(truth) == 3


def test_from_histories_with_weights_takes_the_largest_and_drops_zero() -> None:
    truth = Truth.from_histories(histories(), grades="weight")
    np.testing.assert_array_equal(truth.indptr, [0, 2, 2, 3])
    np.testing.assert_array_equal(truth.item_index, [1, 4, 7])
    np.testing.assert_array_equal(truth.grade, [2, 5, 3])
    with pytest.raises(ValueError, match="grades must be 'one' or 'weight', got 'sum'"):
        Truth.from_histories(histories(), grades="sum")  # type: ignore[arg-type]


def test_grades_of_and_best_grades() -> None:
    truth = Truth.from_histories(histories(), grades="weight")
    shown = np.array([[4, 7, 1], [4, 7, 1], [-1, 7, 9]])
    np.testing.assert_array_equal(truth.grades_of(shown), [[5, 0, 2], [0, 0, 0], [0, 3, 0]])
    np.testing.assert_array_equal(truth.best_grades(3), [[5, 2, 0], [0, 0, 0], [3, 0, 0]])
    np.testing.assert_array_equal(truth.best_grades(1), [[5], [0], [3]])


def test_only() -> None:
    truth = Truth.from_lists([[1, 2], [], [2, 3]])
    items = np.array([False, False, True, False])
    np.testing.assert_array_equal(truth.only(items=items).counts, [1, 0, 1])
    users = np.array([False, True, True])
    np.testing.assert_array_equal(truth.only(users=users).counts, [0, 0, 2])
    np.testing.assert_array_equal(truth.only(items=items, users=users).item_index, [2])
    with pytest.raises(ValueError, match="items must be a flat mask over at least 4 rows, got"):
        truth.only(items=items[:3])
    with pytest.raises(ValueError, match=r"users must have one entry per row: got shape \(2,\)"):
        truth.only(users=users[:2])


def test_empty_truth() -> None:
    truth = Truth.from_lists([])
    judged = judge(np.empty((0, 3), dtype=np.int64), truth)
    assert judged.grade.shape == (0, 3)
    nobody = judge(np.array([[1, 2]]), Truth.from_lists([[]]))
    assert nobody.left_out == 1
    assert nobody.row.size == 0


def test_judge_takes_topk_or_array() -> None:
    item_index = np.array([[3, 1], [2, -1]])
    lists = TopK(item_index, np.zeros((2, 2), dtype=np.float32))
    truth = Truth.from_lists([[1], [2, 5]])
    for results in (lists, item_index):
        judged = judge(results, truth)
        np.testing.assert_array_equal(judged.grade, [[0, 1], [1, 0]])
        np.testing.assert_array_equal(judged.ideal, [[1, 0], [1, 1]])
        np.testing.assert_array_equal(judged.num_relevant, [1, 2])


def test_judge_refuses() -> None:
    truth = Truth.from_lists([[1], [2]])
    with pytest.raises(ValueError, match="one row per row of the truth: got 1 for 2"):
        judge(np.array([[1]]), truth)
    with pytest.raises(ValueError, match=r"must be \[Q, K\] integers, got float64 of shape \(2, 1"):
        judge(np.ones((2, 1)), truth)
    with pytest.raises(ValueError, match=r"must be \[Q, K\] integers, got int64 of shape \(2,\)"):
        judge(np.array([1, 2]), truth)
    for value in (0, -2):
        with pytest.raises(ValueError, match=f"indices >= 1 or -1: row 1 holds {value}"):
            judge(np.array([[1, 2], [3, value]]), truth)
    with pytest.raises(ValueError, match="repeat an item within a list: 1 rows do, the first is r"):
        judge(np.array([[1, 2, -1], [3, 4, 3]]), truth)
    judge(np.array([[-1, -1], [3, -1]]), truth)  # nothing twice is not a repeated item


def test_from_rows_refuses() -> None:
    with pytest.raises(ValueError, match=r"flat and of one length, got \(2,\) and \(1,\)"):
        Truth.from_rows(np.array([0, 2]), np.array([1, 2]), np.array([1.0]))
    for indptr in ([1, 2], [0, 1], [0, 2, 1, 2], [], [[0, 2]]):
        with pytest.raises(ValueError, match="indptr must rise from 0 to the number of items 2"):
            Truth.from_rows(np.array(indptr), np.array([1, 2]))
    with pytest.raises(ValueError, match="item_index of the truth must be >= 1, got 0"):
        Truth.from_rows(np.array([0, 2]), np.array([1, 0]))
    for grade in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="grade must be finite and >= 0"):
            Truth.from_rows(np.array([0, 1]), np.array([1]), np.array([grade]))
