"""Items like another, by what the towers and the content say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.tables import Histories
from recsys.retrieval.protocol import Retriever
from recsys.topk import TopK, top_k

__all__ = ["SimilarItems", "after_item"]


class SimilarItems:
    """Compares several vectors of each item side by side, so that each counts alike.

    An item nobody met yet has neighbours too, by its content.

    Args:
        vectors: tables [N + 1, D_i] float32, at least one; row 0 is no item. One of zeros says
            nothing and is left out where there is another.
    """

    def __init__(self, vectors: Sequence[np.ndarray]) -> None:
        vectors = [part for part in vectors if part.any()] or vectors[:1]
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


def after_item(
    retriever: Retriever, item_index: np.ndarray, k: int, *, num_items: int, moment: int
) -> TopK:
    """What a retriever finds for users who met one item each, and just before the moment.

    Args:
        retriever: any; what it does not score above 0 is not alike.
        item_index: [Q] int64 >= 1.
        k: most items.
        num_items: N.
        moment: microseconds since the epoch.
    """
    count = item_index.size
    histories = Histories(
        np.arange(count + 1, dtype=np.int64),
        item_index.astype(np.int64),
        np.full(count, moment - 1, dtype=np.int64),
        np.ones(count, dtype=np.float32),
    )
    question = retriever.ask(histories, moment=np.full(count, moment, dtype=np.int64))
    top = question.retrieve(k, excluded=histories.seen_mask(num_items))
    alike = top.score > 0
    return TopK(
        np.where(alike, top.item_index, -1), np.where(alike, top.score, np.float32(-np.inf))
    )
