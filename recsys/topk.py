"""The type every search returns, and the one exact top-k rule used everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np

__all__ = ["TopK", "stacked", "top_k"]

_CHUNK_SCORES = 2**18
"""Scores looked at together: 1 MiB, which stays in a core's cache."""

_LEAST_WIDTH_PER_RESULT = 64
"""With fewer columns than this for each result, looking at blocks first gains nothing.

It must be at least 25, or there are fewer blocks than results.
"""


class TopK(NamedTuple):
    """Best first; ``-1`` / ``-inf`` where nothing was left.

    Attributes:
        item_index: [Q, K] int64 item indices (row numbers of the vocabulary, 1..N), -1 = nothing.
        score: [Q, K] float32, non-increasing along K, -inf where ``item_index`` is -1.
    """

    item_index: np.ndarray
    score: np.ndarray

    @classmethod
    def empty(cls, num_queries: int, k: int) -> Self:
        """Nothing for every query."""
        return cls(
            np.full((num_queries, k), -1, dtype=np.int64),
            np.full((num_queries, k), -np.inf, dtype=np.float32),
        )


def stacked(parts: Sequence[TopK], k: int) -> TopK:
    """The queries of all parts, one part after the other; none at all give [0, ``k``]."""
    if not parts:
        return TopK.empty(0, k)
    return TopK(
        np.concatenate([part.item_index for part in parts]),
        np.concatenate([part.score for part in parts]),
    )


def top_k(score: np.ndarray, k: int, *, excluded: np.ndarray | None = None) -> TopK:
    """Exact top-k over the last axis, ties broken by the lower item index.

    Column 0 is the padding row of every item table and is never returned. Neither are columns
    whose score is -inf or NaN. Scores are compared as float32.

    Blocks of neighbouring columns are compared first, by their largest score. Whatever is in the
    top k lies in one of the k best blocks: each of those holds a column that beats everything
    outside them, ties included, because of two blocks with equal maxima the lower one is better.
    One pass over the scores finds the maxima; the rest looks at k blocks only.

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
    if excluded is not None and excluded.shape != score.shape:
        raise ValueError(
            f"excluded must have the shape of score: got {excluded.shape} for {score.shape}"
        )
    num_queries, num_items = len(score), score.shape[1] - 1
    result = TopK.empty(num_queries, k)
    kept = min(k, num_items)
    if num_queries == 0 or kept < 1:
        return result
    per_result = num_items // kept
    block = 5 * math.isqrt(per_result) if per_result >= _LEAST_WIDTH_PER_RESULT else 1
    num_blocks = math.ceil(num_items / block)
    chunk_rows = max(1, _CHUNK_SCORES // num_items)
    padded = np.full((min(chunk_rows, num_queries), num_blocks * block), -np.inf, dtype=np.float32)
    for start in range(0, num_queries, chunk_rows):
        rows = slice(start, start + chunk_rows)
        value = padded[: len(score[rows])]
        value[:, :num_items] = score[rows, 1:]
        if excluded is not None:
            np.putmask(value[:, :num_items], excluded[rows, 1:], -np.inf)
        column = _best_columns(value, kept, block)
        result.item_index[rows, :kept] = column + 1
        result.score[rows, :kept] = np.take_along_axis(value, column, axis=1)
    result.item_index[np.isneginf(result.score)] = -1
    return result


def _best_columns(value: np.ndarray, k: int, block: int) -> np.ndarray:
    """[Q, k] int64 columns of ``value`` [Q, W], best first; NaN becomes -inf in place."""
    if block == 1:
        value[np.isnan(value)] = -np.inf
        return _largest(value, k)
    in_blocks = value.reshape(len(value), -1, block)  # [Q, W / block, block]
    largest = in_blocks.max(axis=2)
    if np.isnan(largest).any():
        value[np.isnan(value)] = -np.inf
        largest = in_blocks.max(axis=2)
    best = _largest(largest, k)
    best.sort(axis=1)  # a lower place in the row below must stay a lower column
    row = np.arange(len(value))[:, None]
    place = _largest(in_blocks[row, best].reshape(len(value), -1), k)  # of k * block
    column: np.ndarray = best[row, place // block] * block + place % block
    return column


def _largest(value: np.ndarray, k: int) -> np.ndarray:
    """[Q, k] int64 columns of the k largest of ``value`` [Q, W] float32, ties to the lower column.

    Value and column become one integer, so that no two are equal: the bits of a float32 without
    its sign rise with its size, and are flipped where it is negative.
    """
    width = value.shape[1]
    bits = (value + np.float32(0.0)).view(np.int32)  # -0.0 becomes 0.0, which it is equal to
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    key = (rising.astype(np.int64) << 32) | np.arange(width - 1, -1, -1)
    if k < width:
        key = np.partition(key, width - k, axis=1)[:, width - k :]
    key.sort(axis=1)
    column: np.ndarray = width - 1 - (key[:, ::-1] & 0xFFFFFFFF)
    return column
