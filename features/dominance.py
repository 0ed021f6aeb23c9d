"""Sums over the points before one limit and below another, for many pairs of limits at once."""

from __future__ import annotations

import numpy as np

__all__ = ["DominanceSums"]


class DominanceSums:
    """E points in a row, each with a value and a weight.

    `below` sums the weights of the points at positions 0 .. p - 1 with a value less than v. Level l
    of a merge-sort tree holds the points sorted by value within blocks of 2^l, and their running
    weights; a prefix is one block of each level that is a bit of p. O(log^2 E) a question.

    Args:
        value: [E] int64.
        weight: [E] float64.
    """

    def __init__(self, value: np.ndarray, weight: np.ndarray) -> None:
        self._distinct, rank = np.unique(value, return_inverse=True)
        self._stride = self._distinct.size + 1
        place = np.arange(value.size)
        self._levels: list[tuple[np.ndarray, np.ndarray]] = []
        for level in range(value.size.bit_length()):
            key = (place >> level) * self._stride + rank
            order = np.argsort(key, kind="stable")
            running = np.concatenate([np.zeros(1), np.cumsum(weight[order])])
            self._levels.append((key[order], running))

    def below(self, position: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """[Q] float64 sums.

        Args:
            position: [Q] int64, 0..E.
            limit: [Q] int64 values.
        """
        rank = np.searchsorted(self._distinct, limit, side="left")
        total = np.zeros(position.shape)
        for level, (key, running) in enumerate(self._levels):
            asked = np.flatnonzero((position >> level) & 1)
            block = (position[asked] >> (level + 1)) << 1
            end = np.searchsorted(key, block * self._stride + rank[asked], side="left")
            total[asked] += running[end] - running[block << level]
        return total
