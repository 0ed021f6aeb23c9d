from __future__ import annotations

import numpy as np
import pytest

from recsys.index import ExactIndex


def test_by_hand() -> None:
    vectors = np.array([[0, 0], [1, 0], [0, 2], [3, 3]], dtype=np.float32)
    found = ExactIndex().build(vectors).search(np.array([[1.0, 0.5]]), 4)
    np.testing.assert_array_equal(found.item_index, [[3, 1, 2, -1]])  # 4.5, 1, 1: tie to item 1
    np.testing.assert_allclose(found.score, [[4.5, 1.0, 1.0, -np.inf]])


def test_angular_by_hand() -> None:
    vectors = np.array([[0, 0], [5, 0], [0, 2], [3, 3], [0, 0]], dtype=np.float32)
    found = ExactIndex(metric="angular").build(vectors).search(np.array([[0.0, 0.1]]), 4)
    np.testing.assert_array_equal(found.item_index, [[2, 3, 1, 4]])
    np.testing.assert_allclose(found.score, [[1.0, 2**-0.5, 0.0, 0.0]], atol=1e-7)


def test_angular_survives_tiny_and_huge_lengths() -> None:
    vectors = np.array([[0, 0], [1e-30, 0], [0, 1e30]], dtype=np.float32)
    found = ExactIndex(metric="angular").build(vectors).search(np.array([[1e-25, 2e-25]]), 2)
    np.testing.assert_array_equal(found.item_index, [[2, 1]])
    np.testing.assert_allclose(found.score, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-6)


def test_block_size_does_not_change_the_answer() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(101, 12)).astype(np.float32)
    query = rng.normal(size=(23, 12)).astype(np.float32)
    excluded = rng.random((23, 101)) < 0.5
    plain = ExactIndex().build(vectors).search(query, 9, excluded=excluded)
    for block_bytes in (1, 28 * 101 * 2, 28 * 101 * 7, 28 * 101 * 23):
        other = ExactIndex(block_bytes=block_bytes).build(vectors)
        found = other.search(query, 9, excluded=excluded)
        np.testing.assert_array_equal(found.item_index, plain.item_index)
        np.testing.assert_allclose(found.score, plain.score, rtol=1e-5)


def test_block_bytes_below_one() -> None:
    with pytest.raises(ValueError, match="block_bytes must be >= 1, got 0"):
        ExactIndex(block_bytes=0)
