"""The item-item model of big catalogues: every item's equations among its own neighbours."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csc_array, csr_array

from recsys.retrieval.linear.kernels import count_pairs, fill_pairs, solve_items
from recsys.retrieval.linear.system import ItemSystem

__all__ = ["LONGEST", "SparseBill", "solve_by_neighbours", "sparse_bill"]

log = logging.getLogger(__name__)

LONGEST = 1000
"""Newest events of a user that count: time and memory grow with the square of a history."""
_ROOM = 5
"""Pairs of an item that are kept while solving, in terms of its neighbours."""
_ITEMS_AT_ONCE = 256


class SparseBill(NamedTuple):
    """What `solve_by_neighbours` takes.

    Attributes:
        pairs: (item, other or same item) that one user met both of.
        kept: of them, what is held while solving.
        weights: of the model, at most.
        peak_bytes: while solving, without the matrix.
        seconds: on one core of 2026, within a factor of two.
    """

    pairs: int
    kept: int
    weights: int
    peak_bytes: int
    seconds: float


def sparse_bill(system: ItemSystem, neighbours: int) -> SparseBill:
    """What solving will take; it takes a small part of that time itself.

    Args:
        system: X [U, N + 1] and the rest.
        neighbours: see `solve_by_neighbours`.
    """
    return _bill(_pairs_of(_Matrix.of(system)), neighbours)


def solve_by_neighbours(system: ItemSystem, neighbours: int) -> csr_array:
    """[N + 1, N + 1] float32 weights W, at most ``neighbours`` a column, in sorted rows.

    Column j solves ``(X'X + penalty)_SS b = (X'X)_Sj`` where S are the ``neighbours`` items with
    the largest cosine of their columns of X to that of j: the exact model, each item explained by S
    alone. Items that nobody met together are no neighbours; where all were, ``neighbours >= N - 1``
    gives what `recsys.retrieval.linear.dense.solve_by_items` does.

    No matrix [N, N] or [U, N] is made. X'X is held in rows of at most 5 ``neighbours`` entries,
    those of the largest cosine; a pair that neither of its items kept counts as never met together,
    and no pivot is let below its penalty, so that the equations stay solvable. Memory is 40 bytes
    an item and neighbour plus 24 an item and neighbour of the result; time is that of
    `sparse_bill`. Results do not depend on the number of threads, which is that of the cores.

    Args:
        system: X [U, N + 1] and the rest; a history should hold no more than `LONGEST` items.
        neighbours: >= 1; 100 to 400 is usual.

    Raises:
        ValueError: neighbours < 1.

    Sources: Ning and Karypis, SLIM, ICDM 2011, section 4.3 (columns solved apart, among neighbours
    alone); Steck, Markov Random Fields for Collaborative Filtering, NeurIPS 2019, section 3 (the
    closed form on subsets of the items).
    """
    if neighbours < 1:
        raise ValueError(f"neighbours must be >= 1, got {neighbours}; 100 to 400 is usual")
    matrix = _Matrix.of(system)
    num_items = matrix.damping.size - 1
    pairs = _pairs_of(matrix)
    bill = _bill(pairs, neighbours)
    log.info(
        "sparse item-item model of %d items: %d pairs, %.1f GiB, about %.0f s of one core",
        *(num_items, bill.pairs, bill.peak_bytes / 2**30, bill.seconds),
    )
    gram = _gram(matrix, np.minimum(pairs, _room(neighbours)))
    start = _starts(np.clip(pairs - 1, 0, neighbours))
    index = np.empty(start[-1], dtype=np.int32)
    value = np.empty(start[-1], dtype=np.float32)
    _in_threads(
        *(solve_items, num_items + 1, neighbours, gram, matrix.damping, system.penalty),
        *(start, index, value),
    )
    del gram, matrix
    shape = (num_items + 1, num_items + 1)
    weights = csr_array(csc_array((value, index, start), shape=shape))
    if system.item_scale is not None:
        scale = system.item_scale.astype(np.float32)
        weights.data /= scale[weights.indices]
        weights.data *= np.repeat(scale, np.diff(weights.indptr))
    return weights


class _Matrix(NamedTuple):
    """X in compressed rows and columns: starts, places and float32 values of either."""

    users: tuple[np.ndarray, np.ndarray, np.ndarray]
    items: tuple[np.ndarray, np.ndarray, np.ndarray]
    damping: np.ndarray

    @classmethod
    def of(cls, system: ItemSystem) -> _Matrix:
        rows = csr_array(system.matrix, dtype=np.float32, copy=True)
        rows.eliminate_zeros()
        columns = rows.tocsc()
        square = np.bincount(rows.indices, rows.data.astype(np.float64) ** 2, rows.shape[1])
        damping = np.where(square > 0, square, 1.0) ** -0.5
        return cls(_arrays(rows), _arrays(columns), damping.astype(np.float32))


def _arrays(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


def _pairs_of(matrix: _Matrix) -> np.ndarray:
    """[N + 1] int64: items met together with each one, itself among them."""
    count = np.zeros(matrix.damping.size, dtype=np.int64)
    _in_threads(count_pairs, count.size, *matrix.users[:2], *matrix.items[:2], count)
    return count


def _gram(matrix: _Matrix, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X'X in compressed rows of the given sizes."""
    start = _starts(size)
    index = np.empty(start[-1], dtype=np.int32)
    value = np.empty(start[-1], dtype=np.float32)
    _in_threads(fill_pairs, size.size, *matrix, start, index, value)
    return start, index, value


def _room(neighbours: int) -> int:
    return _ROOM * neighbours + 1


def _bill(pairs: np.ndarray, neighbours: int) -> SparseBill:
    kept = int(np.minimum(pairs, _room(neighbours)).sum())
    sizes = np.clip(pairs - 1, 0, neighbours).astype(np.float64)
    weights = int(sizes.sum())
    peak = max(8 * (kept + weights), 24 * weights) + 24 * pairs.size
    seconds = 1.2e-8 * float(pairs.sum()) + 3e-9 * kept * neighbours + 1.5e-10 * (sizes**3).sum()
    return SparseBill(int(pairs.sum()), kept, weights, peak, float(seconds))


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _in_threads(kernel: Callable[..., None], size: int, *arguments: Any) -> None:
    """Call ``kernel(first, last, *arguments)`` for ranges of 0..size - 1."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        calls = [
            pool.submit(kernel, first, min(first + _ITEMS_AT_ONCE, size), *arguments)
            for first in range(0, size, _ITEMS_AT_ONCE)
        ]
        for call in calls:
            call.result()
