"""From scored candidates to the places of a slate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.ranking.slate import build_slate
from recsys.recommender.pool import CandidatePool
from recsys.topk import top_k

__all__ = ["Ranked", "Slate", "SlateItem", "order_pool"]

SLATE_POOL = 50
"""Best candidates that the diversity rule may choose from."""


class SlateItem(NamedTuple):
    """One place of a slate; ``source`` is the retriever that ranked the item best."""

    item_id: str
    score: float
    source: str


class Slate(NamedTuple):
    """An ordered answer.

    Attributes:
        items: best first, no item twice.
        source: "ranker" where the user's history was used, "popularity" where there was none,
            "nothing left" where the filters left no candidate, "nothing likely" where a threshold
            left none.
    """

    items: list[SlateItem]
    source: str


class Ranked(NamedTuple):
    """Ordered candidates of Q users.

    Attributes:
        item_index: [Q, K] int64, best first, -1 = nothing.
        score: [Q, K] float32 of each item, -inf where there is nothing; falling along K unless
            a diversity rule moved items.
        source: [Q, K] uint8 position of the retriever in `Recommender.source_names`.
    """

    item_index: np.ndarray
    score: np.ndarray
    source: np.ndarray


def order_pool(
    pool: CandidatePool, score: np.ndarray, k: int, *, diversity: float, vectors: np.ndarray
) -> Ranked:
    """The slate of each query from its candidates' scores.

    Args:
        pool: Q queries.
        score: [R] scores of the pool's real entries in row-major order; -inf = leave out.
        k: places.
        diversity: 0: by score alone; 1: by difference from what is above alone.
        vectors: [N + 1, D] float32 that difference is measured by.
    """
    depth = max(k, SLATE_POOL) if diversity > 0 else k
    width = max(depth, pool.item_index.shape[1])
    dense = np.full((len(pool.item_index), width), -np.inf, dtype=np.float32)
    dense[:, : pool.item_index.shape[1]][pool.real] = score
    # Column 0 is the padding row of `top_k`, so positions are shifted by one.
    best = top_k(np.pad(dense, ((0, 0), (1, 0))), depth)
    position = np.maximum(best.item_index - 1, 0)
    nothing = best.item_index < 0
    item_index = np.take_along_axis(
        np.pad(pool.item_index, ((0, 0), (0, width - pool.item_index.shape[1]))),
        position,
        axis=1,
    )
    source = np.take_along_axis(
        np.pad(pool.source, ((0, 0), (0, width - pool.source.shape[1]))), position, axis=1
    )
    item_index[nothing] = -1
    ranked = Ranked(item_index, best.score, source)
    return _diversified(ranked, k, diversity, vectors) if diversity > 0 else ranked


def _diversified(ranked: Ranked, k: int, diversity: float, vectors: np.ndarray) -> Ranked:
    out = Ranked(*(array[:, :k].copy() for array in ranked))
    for row, (items, score) in enumerate(zip(ranked.item_index, ranked.score, strict=True)):
        place = build_slate(
            items, score, k, vectors=vectors[np.maximum(items, 0)], diversity=diversity
        )
        for new, old in zip(out, ranked, strict=True):
            new[row, : place.size] = old[row, place]
    return out
