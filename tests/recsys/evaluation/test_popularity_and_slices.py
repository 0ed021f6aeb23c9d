from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import Truth, cold_items, head_items, item_slices, user_slices
from recsys.evaluation.popularity import popularity_rank

COUNTS = np.array([99, 5, 0, 5, 9, 1, 0, 2, 2, 2, 2])  # row 0 is no item and does not count


def test_rank_breaks_ties_by_index() -> None:
    np.testing.assert_array_equal(popularity_rank(COUNTS), [-1, 1, 8, 2, 0, 7, 9, 3, 4, 5, 6])


def test_head_and_cold() -> None:
    assert np.nonzero(head_items(COUNTS))[0].tolist() == [4]
    assert np.nonzero(head_items(COUNTS, fraction=0.11))[0].tolist() == [1, 4]
    assert np.nonzero(head_items(COUNTS, fraction=1.0))[0].tolist() == [1, 3, 4, 5, 7, 8, 9, 10]
    assert np.nonzero(cold_items(COUNTS))[0].tolist() == [2, 6]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_head_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be above 0 and at most 1, got"):
        head_items(COUNTS, fraction=fraction)


def test_bad_popularity() -> None:
    for counts in (np.ones(1), np.ones((2, 2))):
        with pytest.raises(ValueError, match=r"popularity must be \[N \+ 1\] training counts"):
            head_items(counts)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="finite and >= 0: item index 2 has"):
            cold_items(np.array([0.0, 1.0, bad]))


def test_item_slices_part_the_catalogue() -> None:
    masks = [part.items for part in item_slices(COUNTS, head_fraction=0.2)]
    total = np.sum([mask for mask in masks if mask is not None], axis=0)
    np.testing.assert_array_equal(total, [0] + [1] * 10)
    names = [part.name for part in item_slices(COUNTS)]
    assert names == ["head items", "tail items", "cold items"]
    assert item_slices(COUNTS, head_fraction=0.2)[0].description.startswith("the 20% of items")


def test_item_slice_restricts_the_truth() -> None:
    truth = Truth.from_lists([[4, 5, 2], [4]])
    head, tail, cold = (part.of(truth) for part in item_slices(COUNTS))
    assert (head.item_index.tolist(), head.counts.tolist()) == ([4, 4], [1, 1])
    assert (tail.item_index.tolist(), tail.counts.tolist()) == ([5], [1, 0])
    assert (cold.item_index.tolist(), cold.counts.tolist()) == ([2], [1, 0])


def test_user_slices_at_the_median_of_judged_users() -> None:
    truth = Truth.from_lists([[1], [1], [1], []])
    short, long = user_slices(np.array([3, 8, 5, 1000]), truth)
    assert short.description == "users with at most 5 training events"
    assert short.of(truth).counts.tolist() == [1, 0, 1, 0]
    assert long.of(truth).counts.tolist() == [0, 1, 0, 0]


def test_user_slices_refuse() -> None:
    truth = Truth.from_lists([[1], [1]])
    with pytest.raises(ValueError, match=r"history_length must have one entry per row .* \(3,\)"):
        user_slices(np.ones(3), truth)
    with pytest.raises(ValueError, match="history_length must be >= 0, got -1"):
        user_slices(np.array([2, -1]), truth)
