from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.ranking import build_slate


def test_without_diversity_the_score_decides_and_ties_keep_their_order() -> None:
    items = np.array([7, 3, 9, 4])
    score = np.array([0.1, 0.5, 0.5, np.nan])
    assert build_slate(items, score, 10).tolist() == [1, 2, 0]


def test_a_repeated_item_counts_once_and_padding_never() -> None:
    items = np.array([5, 5, -1, 0, 6])
    score = np.array([0.2, 0.9, 1.0, 1.0, 0.1])
    assert build_slate(items, score, 5).tolist() == [0, 4]


def test_diversity_prefers_what_differs_from_what_is_above() -> None:
    items = np.array([1, 2, 3])
    score = np.array([1.0, 0.9, 0.5])
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    # relevance 1, .8, 0; second place: item 2 has .5 * .8 - .5 * 1 = -.1, item 3 has 0
    assert build_slate(items, score, 3, vectors=vectors, diversity=0.5).tolist() == [0, 2, 1]
    assert build_slate(items, score, 3, vectors=vectors, diversity=0.2).tolist() == [0, 1, 2]


@given(st.integers(0, 30), st.integers(1, 40), st.floats(0, 1), st.integers(0, 1000))
def test_a_slate_holds_each_item_once(count: int, k: int, diversity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = rng.integers(-1, 12, count)
    score = rng.normal(size=count)
    vectors = rng.normal(size=(count, 3))
    slate = items[build_slate(items, score, k, vectors=vectors, diversity=diversity)]
    assert len(set(slate.tolist())) == slate.size == min(k, len(set(items[items > 0].tolist())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be >= 1, got 0"),
        ({"diversity": 1.5}, r"diversity must be 0\.\.1, got 1\.5"),
        ({"diversity": 0.5}, "vectors must be"),
        ({"score": np.ones(3)}, "item_index and score must be"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    values: dict[str, object] = {"item_index": np.array([1, 2]), "score": np.ones(2), "k": 2}
    with pytest.raises(ValueError, match=message):
        build_slate(**{**values, **arguments})  # type: ignore[arg-type]
