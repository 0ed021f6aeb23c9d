"""What a query sees: the newest events of a history, strictly before a moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from features.histories import Histories

__all__ = ["ends_before_own_time", "latest_window", "pool_weights", "window_before"]


def window_before(
    item_index: np.ndarray, start: np.ndarray, end: np.ndarray, length: int
) -> Tensor:
    """The events ``[end - length, end)`` of a flat log, never reaching below ``start``.

        item_index  4 1 7 | 2 7      start 0, end 2, length 3  ->  0 4 1

    Args:
        item_index: [E] int64, oldest first within a row.
        start: [B] int64 first event of the row.
        end: [B] int64 one past the last event that may be seen.
        length: T, >= 1.

    Returns:
        [B, T] int64, newest last, padded on the left with 0.
    """
    event = end[:, None] - np.arange(length, 0, -1, dtype=np.int64)[None, :]  # [B, T]
    inside = event >= start[:, None]
    if not item_index.size:
        return torch.zeros(event.shape, dtype=torch.int64)
    seen = item_index[np.where(inside, event, 0)]
    return torch.from_numpy(np.where(inside, seen, 0))


def latest_window(histories: Histories, length: int) -> Tensor:
    """[U, T] int64: the newest ``length`` events of each row, padded on the left with 0."""
    return window_before(histories.item_index, histories.indptr[:-1], histories.indptr[1:], length)


def ends_before_own_time(histories: Histories) -> np.ndarray:
    """[E] int64: for each event, one past the last event of its row that is strictly older.

    Events at the same moment never see each other, so a training example cannot see its own
    target or anything that happened with it.
    """
    event = np.arange(histories.item_index.size, dtype=np.int64)
    if not event.size:
        return event
    first_of_row = np.zeros(event.size, dtype=bool)
    first_of_row[histories.indptr[:-1][histories.counts > 0]] = True
    later = np.concatenate([[True], np.diff(histories.timestamp) > 0])
    return np.maximum.accumulate(np.where(first_of_row | later, event, 0))


def pool_weights(window: Tensor, half_lives: Sequence[float]) -> Tensor:
    """Weights of the events of each window, one set a half-life, each summing to 1.

    The event ``a`` places before the newest weighs ``0.5 ** (a / half_life)``; a half-life of
    infinity is the plain mean.

    Args:
        window: [B, T] int64, newest last, 0 = padding.
        half_lives: P half-lives in events, > 0.

    Returns:
        [P, B, T] float32, 0 at the padding; all 0 for an empty window.
    """
    age = torch.arange(window.shape[1] - 1, -1, -1, dtype=torch.float64)  # [T]
    decay = torch.stack([0.5 ** (age / half_life) for half_life in half_lives])  # [P, T]
    weight = decay[:, None, :] * (window > 0)[None]  # [P, B, T]
    total = weight.sum(dim=2, keepdim=True)
    return (weight / torch.where(total > 0, total, torch.ones_like(total))).float()
