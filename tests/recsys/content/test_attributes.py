from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from recsys.content.attributes import MultiHotEncoder, NumberEncoder


def test_multi_hot_by_hand(rng: np.random.Generator) -> None:
    column = pl.Series([["a", "b"], ["a", "a"], None, [], [" ", None]], dtype=pl.List(pl.String))
    encoder = MultiHotEncoder().fit(column, rng=rng)
    # idf(a) = log(6 / 3) + 1, idf(b) = log(6 / 2) + 1; rows divided by their length.
    a, b = math.log(2) + 1, math.log(3) + 1
    length = math.hypot(a, b)
    assert encoder.values == ["a", "b"]
    expected = [[a / length, b / length], [1, 0], [0, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(encoder.transform(column), expected, rtol=1e-6)


def test_unseen_values_are_ignored(rng: np.random.Generator) -> None:
    encoder = MultiHotEncoder().fit(pl.Series(["x", "y"]), rng=rng)
    np.testing.assert_array_equal(
        encoder.transform(pl.Series(["y", "new", None])), [[0, 1], [0, 0], [0, 0]]
    )
    assert encoder.transform(pl.Series([], dtype=pl.String)).shape == (0, 2)


def test_rare_values_are_dropped(rng: np.random.Generator) -> None:
    encoder = MultiHotEncoder(min_count=2).fit(pl.Series(["x", "y", "x"]), rng=rng)
    assert encoder.values == ["x"]


def test_wide_columns_are_projected(rng: np.random.Generator) -> None:
    # 3 planted groups of 40 values each: three directions hold what rows of a group share.
    draw = np.random.default_rng(1)
    rows = [[f"{i % 3}-{v}" for v in draw.choice(40, 12, replace=False)] for i in range(300)]
    column = pl.Series(rows)
    encoder = MultiHotEncoder(max_dim=3).fit(column, rng=np.random.default_rng(5))
    vectors = encoder.transform(column)
    assert vectors.shape == (300, 3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T
    same = np.equal.outer(np.arange(300) % 3, np.arange(300) % 3)
    assert near[same].mean() > near[~same].mean() + 0.5
    again = MultiHotEncoder(max_dim=3).fit(column, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(again.transform(column), vectors)


def test_numbers_by_hand() -> None:
    column = pl.Series([1.0, 3.0, None, float("nan")])
    encoder = NumberEncoder().fit(column)
    # mean 2, std 1; half are missing, so the flag is (0 or 1 - .5) / .5.
    np.testing.assert_allclose(encoder.transform(column), [[-1, -1], [1, -1], [0, 1], [0, 1]])
    np.testing.assert_allclose(encoder.transform(pl.Series([1000])), [[4, -1]])


def test_numbers_without_spread_or_missing_values() -> None:
    encoder = NumberEncoder().fit(pl.Series([7, 7]))
    np.testing.assert_array_equal(encoder.transform(pl.Series([7, None])), [[0, 0], [0, 0]])
    empty = NumberEncoder().fit(pl.Series([None, None]))
    np.testing.assert_array_equal(empty.transform(pl.Series([None])), [[0, 0]])


def test_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="'size' must be numeric, got String"):
        NumberEncoder().fit(pl.Series("size", ["3"]))
    with pytest.raises(ValueError, match="1 rows are infinite, the first is row 1"):
        NumberEncoder().fit(pl.Series("size", [1.0, float("inf")]))
    with pytest.raises(ValueError, match="max_dim and min_count must be >= 1, got 0 and 1"):
        MultiHotEncoder(max_dim=0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
