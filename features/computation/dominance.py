"""Sums over the points before one limit and below another, for many pairs of limits at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

__all__ = ["DominanceSums"]

_KEPT_BYTES = 256_000_000


class DominanceSums:
    """E points in a row, each with a value and a weight.

    `below` sums the weights of the points at positions 0 .. p - 1 with a value less than v. Level l
    of a merge-sort tree holds the points sorted by value within blocks of 2^l, and their running
    weights; a prefix is one block of each level that is a bit of p. O(log^2 E) a question. The
    levels stay in memory if they are small, otherwise every call of `below` makes them again, one
    after the other: O(E log E).

    Args:
        value: [E] int64.
        weight: [E] float64.
        kept_bytes: how large the levels may be to stay.
    """

    def __init__(
        self, value: np.ndarray, weight: np.ndarray, *, kept_bytes: int = _KEPT_BYTES
    ) -> None:
        self._distinct, rank = np.unique(value, return_inverse=True)
        self._rank = rank.astype(np.int64)
        self._weight = weight
        self._stride = self._distinct.size + 1
        self._num_levels = value.size.bit_length()
        self._kept: list[tuple[np.ndarray, np.ndarray]] | None = None
        if 16 * value.size * self._num_levels <= kept_bytes:
            self._kept = list(self._levels())

    def below(self, position: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """[Q] float64 sums.

        Args:
            position: [Q] int64, 0..E.
            limit: [Q] int64 values.
        """
        rank = np.searchsorted(self._distinct, limit, side="left")
        total = np.zeros(position.shape)
        levels = self._levels() if self._kept is None else self._kept
        for level, (key, running) in enumerate(levels):
            asked = np.flatnonzero((position >> level) & 1)
            block = (position[asked] >> (level + 1)) << 1
            end = np.searchsorted(key, block * self._stride + rank[asked], side="left")
            total[asked] += running[end] - running[block << level]
        return total

    def between(self, begin: np.ndarray, end: np.ndarray, limit: np.ndarray) -> np.ndarray:
        """[Q] float64 sums over the positions ``begin`` .. ``end`` - 1; see `below`."""
        both = self.below(np.concatenate([begin, end]), np.tile(limit, 2))
        found: np.ndarray = both[begin.size :] - both[: begin.size]
        return found

    def _levels(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.arange(self._rank.size)
        for level in range(self._num_levels):
            key = (order >> level) * self._stride + self._rank[order]
            merged = np.argsort(key, kind="stable")  # blocks are sorted: it merges pairs of runs
            order, key = order[merged], key[merged]
            yield key, np.concatenate([np.zeros(1), np.cumsum(self._weight[order])])
