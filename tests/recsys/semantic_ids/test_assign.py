from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.semantic_ids import (
    ResidualKMeans,
    add_tie_digit,
    assign_unique,
    move_to_free_codes,
)


class Ruler:
    """One level of codes at 0, 1, 2, ... below a prefix that is the first coordinate."""

    num_levels = 2
    num_codes = 4

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        return np.stack([vectors[:, 0], vectors[:, 1].round()], axis=1).astype(np.int64)

    def level_distances(self, vectors: np.ndarray, level: int) -> np.ndarray:
        return (vectors[:, level, None] - np.arange(4.0)) ** 2


def test_tie_digits_by_hand() -> None:
    codes = np.array([[3, 1], [3, 2], [3, 1], [0, 0], [3, 1]])
    assert add_tie_digit(codes)[:, 2].tolist() == [0, 0, 1, 0, 2]


def test_tie_digits_go_on_above_those_taken() -> None:
    taken = np.array([[3, 1, 0], [3, 1, 4], [3, 2, 0]])
    added = add_tie_digit(np.array([[3, 1], [7, 7], [3, 1], [3, 2]]), taken=taken)
    assert added.tolist() == [[3, 1, 5], [7, 7, 0], [3, 1, 6], [3, 2, 1]]


def test_overflow_fails_loudly() -> None:
    codes = np.array([[3, 1]] * 3)
    assert add_tie_digit(codes, num_ties=3)[:, 2].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"3 items have the codes \[3, 1\], the tie digit has 2"):
        add_tie_digit(codes, num_ties=2)
    with pytest.raises(ValueError, match="num_ties must be >= 1, got 0"):
        add_tie_digit(codes, num_ties=0)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30),
    st.integers(0, 30),
)
def test_ids_are_distinct_and_old_ones_stay(rows: list[tuple[int, int]], cut: int) -> None:
    codes = np.array(rows, dtype=np.int64).reshape(-1, 2)
    whole = add_tie_digit(codes)
    first = add_tie_digit(codes[:cut])
    both = np.concatenate([first, add_tie_digit(codes[cut:], taken=first)])
    assert len(np.unique(whole, axis=0)) == len(codes)
    # Two generations give the same ids as one.
    np.testing.assert_array_equal(both, whole)
    np.testing.assert_array_equal(whole[:, :2], codes)


def test_moving_by_hand() -> None:
    # Three items at code 1 below prefix 0: .9 is nearest and stays, 1.3 goes to 2, 1.4 to 0
    # (3 is taken by the fourth item). The item below prefix 1 is alone.
    vectors = np.array([[0, 1.3], [0, 0.9], [0, 1.4], [0, 3.0], [1, 1.0]])
    moved = move_to_free_codes(Ruler().assign(vectors), vectors, Ruler())  # type: ignore[arg-type]
    assert moved.tolist() == [[0, 2], [0, 1], [0, 0], [0, 3], [1, 1]]


def test_a_full_prefix_keeps_its_collision() -> None:
    vectors = np.array([[0, v] for v in (0.0, 1.0, 2.0, 3.0, 3.1)])
    codes = Ruler().assign(vectors)
    moved = move_to_free_codes(codes, vectors, Ruler())  # type: ignore[arg-type]
    np.testing.assert_array_equal(moved, codes)
    ids = assign_unique(vectors, Ruler(), reassign_last_level=True)  # type: ignore[arg-type]
    assert ids[:, 2].tolist() == [0, 0, 0, 0, 1]


def test_moving_respects_earlier_items() -> None:
    vectors = np.array([[0, 1.0], [0, 1.1]])
    taken = np.array([[0, 1, 0], [0, 2, 0]])
    ids = assign_unique(vectors, Ruler(), reassign_last_level=True, taken=taken)  # type: ignore[arg-type]
    assert ids.tolist() == [[0, 0, 0], [0, 3, 0]]


@pytest.mark.parametrize("reassign", [False, True])
def test_real_quantiser_gives_distinct_ids(planted, reassign: bool) -> None:
    vectors = np.concatenate([planted[0], planted[0][:50]])  # 50 exact duplicates
    quantizer = ResidualKMeans(num_codes=8, num_levels=2)
    quantizer.fit(planted[0], generator=torch.Generator().manual_seed(0))
    codes = quantizer.assign(vectors)
    ids = assign_unique(vectors, quantizer, reassign_last_level=reassign)
    assert ids.shape == (650, 3)
    assert len(np.unique(ids, axis=0)) == 650
    np.testing.assert_array_equal(ids[:, 0], codes[:, 0])
    if reassign:
        plain = assign_unique(vectors, quantizer)
        assert (ids[:, 2] > 0).sum() < (plain[:, 2] > 0).sum()
    else:
        np.testing.assert_array_equal(ids[:, :2], codes)


def test_taken_must_have_a_tie_digit(planted) -> None:
    with pytest.raises(ValueError, match=r"taken must be \[M, 3\] .*got shape \(1, 2\)"):
        assign_unique(np.zeros((1, 2)), Ruler(), taken=np.zeros((1, 2), dtype=int))  # type: ignore[arg-type]


def test_ties_may_be_as_many_as_there_are_equal_items() -> None:
    vectors = np.zeros((300, 2))
    with pytest.raises(ValueError, match="num_ties must exceed the items that share one id"):
        assign_unique(vectors, Ruler())
    ids = assign_unique(vectors, Ruler(), num_ties=None)
    assert ids[:, :2].any() == np.False_
    assert ids[:, 2].tolist() == list(range(300))
    more = assign_unique(vectors[:2], Ruler(), num_ties=None, taken=ids)
    assert more[:, 2].tolist() == [300, 301]
