"""The last step: an ordered slate without duplicates, as diverse as asked for."""

from __future__ import annotations

import numpy as np

__all__ = ["build_slate"]


def build_slate(
    item_index: np.ndarray,
    score: np.ndarray,
    k: int,
    *,
    vectors: np.ndarray | None = None,
    diversity: float = 0.0,
) -> np.ndarray:
    """Positions of the slate's items among the candidates, best first.

    Maximal marginal relevance: the next item maximises
    ``(1 - diversity) * relevance - diversity * (largest cosine to what is above)``, relevance
    being the score scaled to 0..1 within the candidates. Ties go to the earlier candidate.

    Args:
        item_index: [C] int64; entries < 1 are no item, of a repeated item the first counts.
        score: [C] float, higher is better; entries that are not finite are no candidates.
        k: most items on the slate, >= 1.
        vectors: [C, D] float32, any length; needed when ``diversity`` > 0.
        diversity: 0 (by score alone) to 1 (by difference from what is above alone).

    Returns:
        [<= k] int64 positions into the candidates.

    Raises:
        ValueError: shapes disagree, k < 1, diversity is outside 0..1 or has no vectors.

    Source: Carbonell and Goldstein, The Use of MMR, SIGIR 1998, with scores scaled to 0..1.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if not 0.0 <= diversity <= 1.0:
        raise ValueError(f"diversity must be 0..1, got {diversity}")
    if item_index.ndim != 1 or item_index.shape != score.shape:
        raise ValueError(
            f"item_index and score must be [C], got shapes {item_index.shape} and {score.shape}"
        )
    usable = np.nonzero((item_index > 0) & np.isfinite(score))[0]
    _, first = np.unique(item_index[usable], return_index=True)
    usable = usable[np.sort(first)]
    ordered = usable[np.argsort(-score[usable], kind="stable")]
    if diversity == 0.0 or ordered.size <= 1:
        return np.asarray(ordered[:k], dtype=np.int64)
    if vectors is None or vectors.ndim != 2 or vectors.shape[0] != item_index.size:
        shape = None if vectors is None else vectors.shape
        raise ValueError(
            f"vectors must be [C, D] with C = {item_index.size} when diversity > 0, got {shape}"
        )
    unit = vectors[ordered].astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    relevance = score[ordered].astype(np.float64)
    spread = relevance[0] - relevance[-1]
    relevance = (relevance - relevance[-1]) / spread if spread > 0 else np.ones_like(relevance)
    closest = np.zeros(ordered.size)
    left = np.ones(ordered.size, dtype=bool)
    chosen: list[int] = []
    for _ in range(min(k, ordered.size)):
        gain = (1.0 - diversity) * relevance - diversity * closest
        best = int(np.argmax(np.where(left, gain, -np.inf)))
        chosen.append(best)
        left[best] = False
        similarity = unit @ unit[best]
        closest = similarity if len(chosen) == 1 else np.maximum(closest, similarity)
    slate: np.ndarray = ordered[np.asarray(chosen)].astype(np.int64)
    return slate
