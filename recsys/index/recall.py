"""How much of the exact answer an approximate index finds."""

from __future__ import annotations

import numpy as np

from recsys.index.exact import ExactIndex
from recsys.index.protocol import Index

__all__ = ["recall_against_exact"]


def recall_against_exact(
    index: Index,
    vectors: np.ndarray,
    query: np.ndarray,
    k: int,
    *,
    excluded: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
) -> float:
    """Mean share of the exact top k that ``index`` returns, over queries that have a result.

    An item that ties with the last exact result counts as found, so that equal vectors cannot
    make an index look worse than it is.

    Args:
        index: built on ``vectors``.
        vectors: [N + 1, D] float.
        query: [Q, D] float.
        k: results per query, >= 1.
        excluded: [Q, N + 1] bool, as in `Index.search`.
        allowed: [N + 1] bool, as in `Index.search`.

    Returns:
        0..1; 1.0 where no query has any result.

    Raises:
        ValueError: ``vectors`` are not those of ``index`` by size, or as in `Index.search`.
    """
    vectors = np.asarray(vectors)
    if vectors.shape != (index.num_items + 1, index.dim):
        raise ValueError(
            f"vectors must be the indexed ones, {(index.num_items + 1, index.dim)}: got "
            f"{vectors.shape}"
        )
    exact = ExactIndex(metric=index.metric).build(vectors)
    best = exact.search(query, k, excluded=excluded, allowed=allowed)
    found = index.search(query, k, excluded=excluded, allowed=allowed)
    present = best.item_index >= 1  # [Q, K]
    wanted = present.sum(axis=1)
    asked = wanted > 0
    if not asked.any():
        return 1.0
    last = np.where(present, best.score, np.inf).min(axis=1)  # [Q] score of the last exact result
    slack = 1e-6 * np.maximum(np.abs(last), 1e-6)
    hits = ((found.item_index >= 1) & (found.score >= (last - slack)[:, None])).sum(axis=1)
    return float(np.mean(np.minimum(hits, wanted)[asked] / wanted[asked]))
