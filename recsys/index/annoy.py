"""Approximate search with Annoy's random-projection trees."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

from recsys.errors import ArtifactError, NotFittedError
from recsys.index.files import read_description, read_vectors, write_index
from recsys.index.inputs import (
    check_metric,
    checked_masks,
    checked_query,
    checked_vectors,
)
from recsys.index.protocol import Metric
from recsys.topk import TopK
from recsys.unit_rows import unit_rows

__all__ = ["AnnoyIndex"]

log = logging.getLogger(__name__)

TREES = "trees.ann"


class AnnoyIndex:
    """A forest over the items; finds most of the best and scores what it finds exactly.

    A filter never makes a result too short: each query asks for more than k, drops what may not
    be returned, and asks for twice as many until k are left. Once it would ask for as many items
    as may be returned at all, it scores exactly those instead, so a narrow filter is answered
    exactly.

    Rows of zeros are not in the forest: they lie on no side of a plane, and where they are many
    they fill every leaf. All of them score 0, so those of the lowest index are added to what is
    found. The other rows are Annoy's items in their order.

    Args:
        metric: "dot" (Annoy's own reduction, Bachrach et al., RecSys 2014) or "angular".
        num_trees: more trees find more and take more memory; >= 1.
        search_k: nodes looked at for a query; more find more and take longer. None: Annoy's
            rule, ``num_trees`` x the number of items fetched.
        over_fetch: first fetch as a multiple of k; >= 1.
        seed: of the trees; one thread builds, so equal seeds make equal trees.

    Raises:
        ValueError: a setting is out of range.
    """

    is_exact = False
    kind = "annoy"

    def __init__(
        self,
        *,
        metric: Metric = "dot",
        num_trees: int = 50,
        search_k: int | None = None,
        over_fetch: float = 2.0,
        seed: int = 0,
    ) -> None:
        check_metric(metric)
        if num_trees < 1:
            raise ValueError(f"num_trees must be >= 1, got {num_trees}")
        if search_k is not None and search_k < 1:
            raise ValueError(f"search_k must be >= 1 or None, got {search_k}")
        if not 1.0 <= over_fetch < np.inf:
            raise ValueError(f"over_fetch must be a finite number >= 1, got {over_fetch}")
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must be 0..2^31 - 1, got {seed}")
        self.metric: Metric = metric
        self.num_trees = num_trees
        self.search_k = search_k
        self.over_fetch = over_fetch
        self.seed = seed
        self._vectors: np.ndarray | None = None
        self._trees: Any = None
        self._rows = self._zeros = np.empty(0, dtype=np.int64)

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
        started = time.perf_counter()
        self._vectors = checked_vectors(vectors)
        self._rows, self._zeros = _parted(self._vectors)
        trees = self._empty_trees()
        trees.set_seed(self.seed)
        # Unit rows have the same angles, and Annoy squares lengths in float32.
        rows = self._vectors if self.metric == "dot" else unit_rows(self._vectors)
        for item, row in enumerate(self._rows):
            trees.add_item(item, rows[row])
        trees.build(self.num_trees, n_jobs=1)
        self._trees = trees
        seconds = time.perf_counter() - started
        log.info("annoy index: %d items, %d trees, %.2f s", self.num_items, self.num_trees, seconds)
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
        everywhere = np.ones(width, dtype=bool) if allowed is None else allowed.copy()
        everywhere[0] = False
        result = TopK.empty(num_queries, k)
        for row in range(num_queries):
            eligible = everywhere if excluded is None else everywhere & ~excluded[row]
            zeros = self._zeros[eligible[self._zeros]][:k]
            found = np.concatenate([self._candidates(query[row], k, eligible), zeros])
            score = self._score(table[found], query[row])
            order = np.lexsort((found, -score))[:k]
            result.item_index[row, : order.size] = found[order]
            result.score[row, : order.size] = score[order]
        return result

    def save(self, directory: Path) -> None:
        """See `Index.save`."""
        vectors = self._table()
        settings = {
            "metric": self.metric,
            "num_trees": self.num_trees,
            "search_k": self.search_k,
            "over_fetch": self.over_fetch,
            "seed": self.seed,
        }
        write_index(directory, self.kind, settings, vectors)
        if self._rows.size:
            self._trees.save(str(directory / TREES))
        else:  # Annoy reads no forest of nothing
            (directory / TREES).write_bytes(b"")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """See `Index.load`; the trees are read through a memory map of their file."""
        description = read_description(directory, cls.kind)
        settings: Any = description["settings"]
        index = cls(**settings)
        index._vectors = read_vectors(directory, description)
        trees = index._empty_trees()
        path = directory / TREES
        if not path.exists():
            raise ArtifactError(f"half an index in {directory}: {TREES} is missing")
        if path.stat().st_size:
            try:
                trees.load(str(path))
            except OSError as e:
                raise ArtifactError(f"{path} is damaged ({e}); build the index again") from e
        held = trees.get_n_items()
        if held == index.num_items:  # as those of before always are
            index._rows = np.arange(1, held + 1)
        else:
            index._rows, index._zeros = _parted(index._vectors)
        if held != index._rows.size:
            raise ArtifactError(
                f"{path} holds {held} items, the vectors {index._rows.size}; build the index again"
            )
        index._trees = trees
        return index

    def _candidates(self, query: np.ndarray, k: int, eligible: np.ndarray) -> np.ndarray:
        """Indices of items in the forest, at least k of the eligible ones if they are so many."""
        among = eligible[self._rows]
        num_eligible, num_items = int(among.sum()), among.size
        if num_eligible == 0:
            return np.empty(0, dtype=np.int64)
        # A filter that leaves one item in ten needs ten times the fetch to begin with.
        fetch = int(np.ceil(self.over_fetch * k * num_items / num_eligible))
        while fetch < num_eligible:
            search_k = -1 if self.search_k is None else max(self.search_k, fetch)
            near = self._trees.get_nns_by_vector(query, fetch, search_k)
            found: np.ndarray = self._rows[np.asarray(near, dtype=np.int64)]
            found = found[eligible[found]]
            if found.size >= k:
                return found
            fetch *= 2
        everyone: np.ndarray = self._rows[among]
        return everyone

    def _score(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """[C] float32 scores, summed in float64 like those of `ExactIndex`."""
        items, asked = rows.astype(np.float64), query.astype(np.float64)
        if self.metric == "angular":
            items, asked = unit_rows(items), unit_rows(asked[None])[0]
        score: np.ndarray = (items @ asked).astype(np.float32)
        return score

    def _empty_trees(self) -> Any:
        # Imported here so that exact search needs no Annoy; this is the library, not this module.
        from annoy import AnnoyIndex as Trees

        return Trees(self.dim, self.metric)

    def _table(self) -> np.ndarray:
        """[N + 1, D] float32 vectors as they were given."""
        if self._vectors is None:
            raise NotFittedError("the annoy index is empty: call build(vectors) or load it first")
        return self._vectors


def _parted(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the items whose vector is not zero, and of the others; both rise."""
    is_real = (vectors[1:] != 0).max(axis=1)
    return np.nonzero(is_real)[0] + 1, np.nonzero(~is_real)[0] + 1
