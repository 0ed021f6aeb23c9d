"""Random walks of three steps from the items of a history over users to items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import numpy as np
from scipy.sparse import csr_array, diags_array, vstack

from features.tables import Histories
from recsys.retrieval.options import CountingOptions
from recsys.retrieval.recency import check_half_life, weighted_cells
from recsys.retrieval.source_options import GraphOptions
from recsys.retrieval.sparse_items import SparseItemRetriever

__all__ = ["Rp3BetaRetriever"]

_BLOCK_STEPS = 2**24
"""Pairs of steps that one block of items multiplies: about 200 MB."""


class Rp3BetaRetriever(SparseItemRetriever):
    """Where a walk from an item over a user who met it ends, with blockbusters held back.

    With the matrix X [U, N] of `weighted_cells`, its row sums d_u and its column sums d_i,
    ``M[i, j] = d_j ** -popularity_power * sum over u of (X_ui / d_i) ** power * (X_uj / d_u) **
    power``, of which each row i keeps its ``neighbours`` largest; M[i, i] = 0. A history w,
    weighted by recency and weight, scores ``w M``.

    Source: Christoffel, Paudel, Newell and Bernstein, Blockbusters and Wallflowers, RecSys 2015
    (RP3-beta, section 3); the power is that of Cooper et al., WWW 2014 (P3-alpha).
    """

    KIND = "rp3beta"

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        power: float = GraphOptions.default("walk_power"),
        popularity_power: float = GraphOptions.default("walk_popularity_power"),
        neighbours: int = GraphOptions.default("walk_neighbours"),
        half_life: float | None = CountingOptions.default("half_life"),
        name: str = "rp3beta",
    ) -> Self:
        """Walk from every item of ``histories`` [U rows].

        Time grows with the sum of squared lengths of the histories; the matrix has at most
        ``neighbours`` entries an item.

        Args:
            histories: training events.
            num_items: N.
            power: of the probability of a step, > 0.
            popularity_power: of the degree that an item is divided by, >= 0.
            neighbours: kept of each item, >= 1; of equals those of the lower index.
            half_life: of the asking history, in events; None: events count by their weight alone.
            name: how answers name this source.

        Raises:
            ValueError: an argument is outside its bounds, or an item index exceeds ``num_items``.
        """
        if power <= 0:
            raise ValueError(f"power must be > 0, got {power}; 0.5 to 1.5 is usual")
        if popularity_power < 0:
            raise ValueError(f"popularity_power must be >= 0, got {popularity_power}; 0 is off")
        if neighbours < 1:
            raise ValueError(f"neighbours must be >= 1, got {neighbours}; 50 to 500 is usual")
        check_half_life(half_life)
        cells = weighted_cells(histories, num_items)
        to_items = _steps(cells, power)
        to_users = _steps(cells.T.tocsr(), power)
        degree = cells.sum(axis=0)
        held_back = np.power(degree, -popularity_power, out=np.zeros_like(degree), where=degree > 0)
        to_items = csr_array(to_items @ diags_array(held_back))
        parts = [
            _largest(to_users[block] @ to_items, int(block[0]), neighbours)
            for block in _blocks(to_users, np.diff(to_items.indptr))
        ]
        matrix = csr_array(vstack(parts, format="csr"), dtype=np.float32)
        return cls(
            name=name, num_items=num_items, half_life=half_life, matrix=matrix, weighted=True
        )


def _steps(cells: csr_array, power: float) -> csr_array:
    """Probabilities of a step from a row to a column, each to a power."""
    total = np.repeat(cells.sum(axis=1), np.diff(cells.indptr))
    return csr_array(((cells.data / total) ** power, cells.indices, cells.indptr), cells.shape)


def _blocks(to_users: csr_array, user_size: np.ndarray) -> Iterator[np.ndarray]:
    """Runs of items whose walks take about `_BLOCK_STEPS` steps, at least one item each."""
    steps = np.concatenate([[0], np.cumsum(user_size[to_users.indices])])[to_users.indptr]
    start, num_rows = 0, to_users.shape[0]
    while start < num_rows:
        stop = int(np.searchsorted(steps, steps[start] + _BLOCK_STEPS, side="right")) - 1
        stop = min(max(stop, start + 1), num_rows)
        yield np.arange(start, stop)
        start = stop


def _largest(block: csr_array, first_row: int, kept: int) -> csr_array:
    """The ``kept`` largest entries of each row that are not on the diagonal."""
    block.sort_indices()
    column, value, counts = [], [], []
    for row in range(block.shape[0]):
        entries = slice(block.indptr[row], block.indptr[row + 1])
        found, size = block.indices[entries], block.data[entries]
        other = found != first_row + row
        found, size = found[other], size[other]
        if found.size > kept:
            best = np.sort(np.argsort(-size, kind="stable")[:kept])
            found, size = found[best], size[best]
        column.append(found)
        value.append(size)
        counts.append(found.size)
    return csr_array(
        (np.concatenate(value), np.concatenate(column), np.concatenate([[0], np.cumsum(counts)])),
        shape=block.shape,
    )
