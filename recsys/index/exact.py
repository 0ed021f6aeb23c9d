"""Exact search: every product, in blocks that fit a memory bound."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Self

import numpy as np

from recsys.errors import NotFittedError
from recsys.index.files import read_description, read_vectors, write_index
from recsys.index.inputs import (
    check_metric,
    checked_masks,
    checked_query,
    checked_vectors,
)
from recsys.index.protocol import Metric
from recsys.topk import TopK, top_k
from recsys.unit_rows import unit_rows

__all__ = ["ExactIndex"]

log = logging.getLogger(__name__)

# Memory of one score while a block is worked on: the float64 product and the running count of ties
# (8 bytes each), the float32 score, its negated and its partitioned copy (4 each), four masks.
BYTES_PER_SCORE = 32


class ExactIndex:
    """Scores every item for every query and keeps the k best, ties to the lower index.

    Products are summed in float64 and rounded to float32 once. A float32 product depends in its
    last bits on where in the matrix the row stands and on how many queries come along, so equal
    vectors would not tie and a batch would not equal its queries one by one. The price is memory:
    12 bytes for each number of the vectors.

    Args:
        metric: "dot" or "angular" (cosine).
        block_bytes: roughly the most memory in bytes one block of scores may take; a block is
            never less than one query against the whole catalogue.

    Raises:
        ValueError: an unknown metric, or block_bytes < 1.
    """

    is_exact = True
    kind = "exact"

    def __init__(self, *, metric: Metric = "dot", block_bytes: int = 64 * 2**20) -> None:
        check_metric(metric)
        if block_bytes < 1:
            raise ValueError(f"block_bytes must be >= 1, got {block_bytes}")
        self.metric: Metric = metric
        self.block_bytes = block_bytes
        self._vectors: np.ndarray | None = None
        self._scored: np.ndarray | None = None

    @property
    def num_items(self) -> int:
        """N, the number of items indexed."""
        return int(self._table().shape[0]) - 1

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return int(self._table().shape[1])

    def build(self, vectors: np.ndarray) -> Self:
        """See `Index.build`."""
        self._vectors = checked_vectors(vectors)
        table = self._vectors.astype(np.float64)
        self._scored = table if self.metric == "dot" else unit_rows(table)
        log.info("exact index: %d items of dimension %d", self.num_items, self.dim)
        return self

    def search(
        self,
        query: np.ndarray,
        k: int,
        *,
        excluded: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
    ) -> TopK:
        """See `Index.search`."""
        table = self._table()
        query = checked_query(query, table.shape[1])
        num_queries, width = query.shape[0], table.shape[0]
        checked_masks(excluded, allowed, k=k, num_queries=num_queries, num_items=width - 1)
        query = query.astype(np.float64)
        if self.metric == "angular":
            query = unit_rows(query)
        not_allowed = None if allowed is None else ~allowed
        result = TopK.empty(num_queries, k)
        block = max(1, self.block_bytes // (BYTES_PER_SCORE * width))
        for start in range(0, num_queries, block):
            rows = slice(start, start + block)
            score = (query[rows] @ table.T).astype(np.float32)  # [block, N + 1]
            if not_allowed is not None:
                score[:, not_allowed] = -np.inf
            found = top_k(score, k, excluded=None if excluded is None else excluded[rows])
            result.item_index[rows] = found.item_index
            result.score[rows] = found.score
        return result

    def save(self, directory: Path) -> None:
        """See `Index.save`."""
        settings = {"metric": self.metric, "block_bytes": self.block_bytes}
        write_index(directory, self.kind, settings, self._vectors_as_built())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """See `Index.load`."""
        description = read_description(directory, cls.kind)
        settings = description["settings"]
        return cls(**settings).build(  # type: ignore[arg-type]
            read_vectors(directory, description)
        )

    def _table(self) -> np.ndarray:
        """[N + 1, D] float64 rows whose product with a query is the score."""
        if self._scored is None:
            raise NotFittedError("the exact index is empty: call build(vectors) or load it first")
        return self._scored

    def _vectors_as_built(self) -> np.ndarray:
        if self._vectors is None:
            raise NotFittedError("the exact index is empty: call build(vectors) or load it first")
        return self._vectors
