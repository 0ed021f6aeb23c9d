"""Scores of histories by a sparse item-item matrix."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from features.tables import Histories

__all__ = ["sparse_scores"]


def sparse_scores(histories: Histories, weight: np.ndarray, matrix: csr_array) -> np.ndarray:
    """[Q, N + 1] float32: each history's rows of ``matrix``, summed by weight.

    Memory is a few times that of the result.

    Args:
        histories: Q rows.
        weight: [E] float32 of the events.
        matrix: [N + 1, N + 1] float32.

    Raises:
        ValueError: an item is above N.
    """
    if len(histories) == 1:
        return _of_one(histories, weight, matrix)[None]
    asked = histories.to_csr(matrix.shape[1] - 1, weight)
    return np.asarray((asked @ matrix).toarray(), dtype=np.float32)


def _of_one(histories: Histories, weight: np.ndarray, matrix: csr_array) -> np.ndarray:
    """[N + 1] of one history: for the few rows of a request a sparse product does too much."""
    histories.check_width(matrix.shape[1] - 1)
    order = np.argsort(histories.item_index, kind="stable")
    items = histories.item_index[order]
    start = matrix.indptr[items].astype(np.int64)
    size = matrix.indptr[items + 1] - start
    place = np.repeat(start - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
    score = np.zeros(matrix.shape[1], dtype=np.float32)
    np.add.at(score, matrix.indices[place], matrix.data[place] * np.repeat(weight[order], size))
    return score
