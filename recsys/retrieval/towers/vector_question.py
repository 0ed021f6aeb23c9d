"""Queries put to a retriever that compares vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recsys.topk import TopK

__all__ = ["ComparesVectors", "VectorQuestion"]


class ComparesVectors(Protocol):
    """What `VectorQuestion` asks of a retriever."""

    def search(self, query: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """The best ``k`` items of each query vector [Q, D]."""
        ...

    def score_vectors(self, query: np.ndarray, item_index: np.ndarray) -> np.ndarray:
        """[Q, C] float32 scores of items [Q, C] for query vectors [Q, D]."""
        ...


@dataclass(frozen=True, eq=False)
class VectorQuestion:
    """Queries encoded once for both answers; a `recsys.retrieval.protocol.Question`.

    Attributes:
        retriever: who is asked.
        query: [Q, D] float32. A row of zeros, as an unknown user has in a model that does not
            read histories, asks for nothing: it retrieves nothing and scores 0.
    """

    retriever: ComparesVectors
    query: np.ndarray

    def retrieve(self, k: int, *, excluded: np.ndarray | None = None) -> TopK:
        """See `recsys.retrieval.protocol.Question`."""
        lists = self.retriever.search(self.query, k, excluded=excluded)
        nothing = ~self.query.any(axis=1)
        lists.item_index[nothing], lists.score[nothing] = -1, -np.inf
        return lists

    def score(self, item_index: np.ndarray) -> np.ndarray:
        """See `recsys.retrieval.protocol.Question`."""
        return self.retriever.score_vectors(self.query, item_index)
