"""What is met shortly after, or around, the items a user met last."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from scipy.sparse import csr_array, diags_array

from features.tables import Histories
from recsys.retrieval.recency import check_half_life, relative_weights
from recsys.retrieval.sparse_items import SparseItemRetriever

__all__ = ["CoOccurrenceRetriever"]


Direction = Literal["forward", "both"]


class CoOccurrenceRetriever(SparseItemRetriever):
    """Items close to each other in other users' histories, weighted by 1 / distance.

    ``M[i, j] = sum over histories and distances d <= window of 1 / d`` where j came d events
    after i (direction "both": or before it), times the root of the product of their weights in
    terms of the mean one, damped by popularity on both sides:
    ``M[i, j] / ((n_i + shrinkage) (n_j + shrinkage)) ** popularity_power``, n the weight of an
    item's events. A history w, weighted by recency and weight, scores ``w M``. It sees order, which
    EASE does not: sessions, series, release dates. What happened at one time came in no order, so
    "forward" leaves it out.

    Source: item-to-item co-occurrence with distance decay, as in Ludewig and Jannach, Evaluation of
    Session-based Recommendation Algorithms, UMUAI 2018 (sequential rules, section 3.1.3).
    """

    KIND = "co_occurrence"

    @classmethod
    def fit(
        cls,
        histories: Histories,
        num_items: int,
        *,
        direction: Direction = "both",
        window: int = 10,
        half_life: float | None = 8.0,
        shrinkage: float = 5.0,
        popularity_power: float = 0.5,
        name: str = "co_occurrence",
    ) -> Self:
        """Count the neighbours within ``window`` events in ``histories``.

        Memory: at most ``window`` entries per event (twice that for "both").

        Raises:
            ValueError: window < 1, shrinkage <= 0, half_life <= 0 or an unknown direction.
        """
        if window < 1:
            raise ValueError(f"window must be >= 1 event, got {window}")
        if shrinkage <= 0:
            raise ValueError(f"shrinkage must be > 0, got {shrinkage}")
        if direction not in ("forward", "both"):
            raise ValueError(f"direction must be 'forward' or 'both', got {direction!r}")
        check_half_life(half_life)
        shape = (num_items + 1, num_items + 1)
        counted = csr_array(shape, dtype=np.float32)
        rows, items, times = histories.rows, histories.item_index, histories.timestamp
        own = relative_weights(histories)
        root = np.sqrt(own)
        for distance in range(1, window + 1):
            same = rows[distance:] == rows[:-distance]
            if direction == "forward":
                same &= times[distance:] > times[:-distance]
            before, after = items[:-distance][same], items[distance:][same]
            weight = (root[:-distance] * root[distance:])[same].astype(np.float32) / distance
            counted = counted + csr_array((weight, (before, after)), shape=shape)
        if direction == "both":
            counted = counted + counted.T
        frequency = np.bincount(items, own, minlength=num_items + 1)
        damping = diags_array(((frequency + shrinkage) ** -popularity_power).astype(np.float32))
        matrix = csr_array(damping @ counted @ damping, dtype=np.float32)
        matrix.setdiag(0)
        matrix.eliminate_zeros()
        matrix.sort_indices()
        return cls(
            name=name, num_items=num_items, half_life=half_life, matrix=matrix, weighted=True
        )
