"""Checks at the door of every index, so that all say the same thing about the same mistake."""

from __future__ import annotations

from typing import get_args

import numpy as np

from recsys.index.protocol import Metric

__all__ = ["check_metric", "checked_masks", "checked_query", "checked_vectors"]


def check_metric(metric: str) -> None:
    """Raise a `ValueError` unless ``metric`` is one of `Metric`."""
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be 'dot' or 'angular', got {metric!r}")


def checked_vectors(vectors: np.ndarray) -> np.ndarray:
    """``vectors`` as a C-contiguous float32 copy with a zero row 0.

    Raises:
        ValueError: not [N + 1, D] with N >= 0 and D >= 1, or a value that is not finite.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 1:
        raise ValueError(
            f"vectors must be [N + 1, D] with a padding row 0 and D >= 1, got shape {array.shape}"
        )
    table = np.array(array, dtype=np.float32, order="C", copy=True)
    table[0] = 0.0
    _check_finite(table, "vectors")
    return table


def checked_query(query: np.ndarray, dim: int) -> np.ndarray:
    """``query`` as C-contiguous float32 [Q, ``dim``].

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    array = np.asarray(query)
    if array.ndim != 2 or array.shape[1] != dim:
        raise ValueError(f"query must be [Q, {dim}] like the indexed vectors, got {array.shape}")
    rows = np.ascontiguousarray(array, dtype=np.float32)
    _check_finite(rows, "query")
    return rows


def checked_masks(
    excluded: np.ndarray | None,
    allowed: np.ndarray | None,
    *,
    k: int,
    num_queries: int,
    num_items: int,
) -> None:
    """Check ``k`` and both masks of a search.

    Raises:
        ValueError: k < 1, or a mask that is not bool of the right shape.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    wanted = {
        "excluded": (excluded, (num_queries, num_items + 1)),
        "allowed": (allowed, (num_items + 1,)),
    }
    for name, (mask, shape) in wanted.items():
        if mask is None:
            continue
        if mask.dtype != np.bool_:
            raise ValueError(f"{name} must be a bool mask, got {mask.dtype}")
        if mask.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {mask.shape}")


def _check_finite(rows: np.ndarray, name: str) -> None:
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{name} must be finite float32 numbers: {int(bad.sum())} of {rows.shape[0]} rows are "
            f"not, the first is row {first}; check the model that made them"
        )
