"""Where vectors lie: how close pairs are, how far apart the others, in how many directions."""

from __future__ import annotations

import numpy as np

__all__ = ["alignment", "rankme", "uniformity"]

_GRAM_ROWS = 256
"""Rows of the Gram matrix held at once: 8 MB in float64 against 4,000 others."""


def alignment(query: np.ndarray, candidate: np.ndarray) -> float:
    """Mean squared distance of the normalised rows.

    Args:
        query: [B, D] float, B >= 1.
        candidate: [B, D] float; row i belongs to row i of ``query``.

    Returns:
        In [0, 4]: 0 the same direction, 2 at right angles, 4 opposite.

    Raises:
        ValueError: shapes disagree or there is no row.

    Source: Wang & Isola, ICML 2020, eq. 1 with alpha = 2.
    """
    if query.ndim != 2 or query.shape != candidate.shape or not len(query):
        raise ValueError(
            f"query and candidate must both be [B >= 1, D], got {query.shape} and {candidate.shape}"
        )
    return float(((_unit(query) - _unit(candidate)) ** 2).sum(axis=1).mean())


def uniformity(vectors: np.ndarray, *, t: float = 2.0) -> float:
    """``log mean exp(-t ||x_a - x_b||^2)`` over the pairs a < b of normalised rows.

    The number that `recsys.retrieval.losses.uniformity` trains on, a block of rows at a time.

    Args:
        vectors: [B, D] float, B >= 2; rows of zeros have no direction and do not belong here.
        t: sharpness, > 0.

    Returns:
        In [-4 t, 0]: 0 when all rows point the same way, about ``-2 t (1 - t / D)`` when they
        point everywhere.

    Raises:
        ValueError: fewer than two rows, or t <= 0.

    Source: Wang & Isola, ICML 2020, eq. 2.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ValueError(f"vectors must be [B >= 2, D], got shape {vectors.shape}")
    if not t > 0:
        raise ValueError(f"t must be > 0, got {t}")
    unit = _unit(vectors)
    total = 0.0
    for start in range(0, len(unit), _GRAM_ROWS):
        cosine = unit[start : start + _GRAM_ROWS] @ unit[start:].T  # [block, B - start]
        total += float(np.triu(np.exp(2.0 * t * (cosine - 1.0)), 1).sum())
    return float(np.log(total / (len(unit) * (len(unit) - 1) / 2)))


def rankme(vectors: np.ndarray, *, eps: float = 1e-12) -> float:
    """Exp of the entropy of the singular values: how many directions the rows really use.

    ``exp(-sum p_k log p_k)`` with ``p_k = sigma_k / sum(sigma) + eps``. Rows are neither centred
    nor normalised.

    Args:
        vectors: [B, D] float, B >= 1.
        eps: added outside the fraction, so that the p_k do not sum to one. The source's 1e-7 is
            for float32; here the spectrum is float64.

    Returns:
        From 1 to min(B, D); all zeros count as 1.

    Raises:
        ValueError: no row or no column.

    Source: Garrido et al., ICML 2023 (RankMe), eq. 1.
    """
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError(f"vectors must be [B >= 1, D >= 1], got shape {vectors.shape}")
    sigma = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)  # [min(B, D)]
    share = sigma / max(float(sigma.sum()), 1e-30) + eps
    return float(np.exp(-(share * np.log(share)).sum()))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """[B, D] float64 rows of length 1; a row of zeros stays one."""
    rows = vectors.astype(np.float64)
    unit: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
