"""Items like another, by what the towers and the content say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.topk import TopK, top_k

__all__ = ["SimilarItems"]


class SimilarItems:
    """Compares several vectors of each item side by side, so that each counts alike.

    An item nobody met yet has neighbours too, by its content.

    Args:
        vectors: tables [N + 1, D_i] float32, at least one; row 0 is no item.
    """

    def __init__(self, vectors: Sequence[np.ndarray]) -> None:
        unit = [
            part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
            for part in vectors
        ]
        self._vectors = np.concatenate(unit, axis=1) / np.float32(np.sqrt(len(unit)))

    def of(self, item_index: np.ndarray, k: int) -> TopK:
        """The ``k`` items closest to each of ``item_index`` [Q] int64, by cosine, not itself."""
        score = self._vectors[item_index] @ self._vectors.T
        score[np.arange(item_index.size), item_index] = -np.inf
        return top_k(score, k)
