"""The type every search returns, and the one exact top-k rule used everywhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["TopK", "top_k"]


class TopK(NamedTuple):
    """Best first; ``-1`` / ``-inf`` where nothing was left.

    Attributes:
        item_index: [Q, K] int64 item indices (row numbers of the vocabulary, 1..N), -1 = nothing.
        score: [Q, K] float32, non-increasing along K, -inf where ``item_index`` is -1.
    """

    item_index: np.ndarray
    score: np.ndarray


def top_k(score: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
    """Exact top-k over the last axis, ties broken by the lower item index.

    Column 0 is the padding row of every item table and is never returned. Neither are columns
    whose score is -inf or NaN.

    Args:
        score: [Q, N + 1] float; higher is better.
        k: results per query, >= 1; more than the catalogue holds is padded.
        excluded: [Q, N + 1] bool, True = must not be returned. None: nothing excluded.

    Raises:
        ValueError: k < 1, ``score`` is not 2-D, or ``excluded`` has another shape.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if score.ndim != 2:
        raise ValueError(f"score must be [Q, N + 1], got shape {score.shape}")
    masked = np.array(score, dtype=np.float32, copy=True)
    masked[np.isnan(masked)] = -np.inf
    masked[:, 0] = -np.inf
    if excluded is not None:
        if excluded.shape != score.shape:
            raise ValueError(
                f"excluded must have the shape of score: got {excluded.shape} for {score.shape}"
            )
        masked[excluded] = -np.inf
    num_queries, width = masked.shape
    kept = min(k, width)
    if kept < width:
        # The k-th largest value per row; everything above it is in, ties at it go to low indices.
        threshold = -np.partition(-masked, kept - 1, axis=1)[:, kept - 1 : kept]
        above = masked > threshold
        at = masked == threshold
        room = kept - above.sum(axis=1, keepdims=True)
        chosen = above | (at & (np.cumsum(at, axis=1) <= room))
        item_index = np.nonzero(chosen)[1].reshape(num_queries, kept)
    else:
        item_index = np.broadcast_to(np.arange(width), (num_queries, width))
    values = np.take_along_axis(masked, item_index, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    item_index = np.take_along_axis(item_index, order, axis=1).astype(np.int64)
    values = np.take_along_axis(values, order, axis=1)
    item_index[np.isneginf(values)] = -1
    if kept < k:
        pad = ((0, 0), (0, k - kept))
        item_index = np.pad(item_index, pad, constant_values=-1)
        values = np.pad(values, pad, constant_values=-np.inf)
    return TopK(item_index, values)
