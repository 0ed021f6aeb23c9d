"""What the events of a history weigh, when one is learned from and when one is asked with."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories

__all__ = ["check_half_life", "recency_weights", "relative_weights", "weighted_cells"]


def check_half_life(half_life: float | None) -> None:
    """Refuse a half-life that is none.

    Raises:
        ValueError: half_life <= 0.
    """
    if half_life is not None and half_life <= 0:
        raise ValueError(f"half_life must be > 0 events, got {half_life}; None turns it off")


def recency_weights(
    histories: Histories, half_life: float | None, *, weighted: bool = True
) -> np.ndarray:
    """[E] float32: ``weight * 0.5 ** (age / half_life)``, age = events after this one.

    Age counts events, not seconds: a user who comes back after a year still has a last item.

    Args:
        histories: any.
        half_life: in events, > 0; None: every event counts by its weight alone.
        weighted: False: all events have the same weight.

    Raises:
        ValueError: half_life <= 0.
    """
    check_half_life(half_life)
    weight = histories.weight if weighted else np.ones_like(histories.weight)
    if half_life is None:
        return weight
    age = np.repeat(histories.indptr[1:], histories.counts) - 1 - np.arange(histories.rows.size)
    return np.asarray(weight * 0.5 ** (age / half_life), dtype=np.float32)


def relative_weights(histories: Histories) -> np.ndarray:
    """[E] float64: the weight of each event in terms of the mean one; 1 where all are equal."""
    weight = histories.weight.astype(np.float64)
    mean = weight.mean() if weight.size else 0.0
    return weight / mean if mean > 0 else np.ones(weight.size)


def weighted_cells(histories: Histories, num_items: int) -> csr_array:
    """[U, N + 1] float64: root of the largest relative weight of each user and item, else 0.

    So a product of two columns counts a pair of items by the geometric mean of their weights. All
    cells are 0 or 1 where all events weigh the same, however often an item was met.

    Raises:
        ValueError: an item index exceeds ``num_items``.
    """
    histories.check_width(num_items)
    weight = np.sqrt(relative_weights(histories))
    order = np.lexsort((-weight, histories.item_index, histories.rows))
    row, item = histories.rows[order], histories.item_index[order]
    first = np.ones(order.size, dtype=bool)
    first[1:] = (np.diff(row) != 0) | (np.diff(item) != 0)
    shape = (len(histories), num_items + 1)
    cells = csr_array((weight[order][first], (row[first], item[first])), shape=shape)
    cells.eliminate_zeros()
    return cells
