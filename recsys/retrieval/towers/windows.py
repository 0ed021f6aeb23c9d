"""What a query sees: the newest events of a history, strictly before a moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from features.tables import Histories

__all__ = [
    "begun_left",
    "ends_before_own_time",
    "latest_times",
    "latest_window",
    "masked_softmax",
    "pool_weights",
    "read_blocks",
    "recency_logits",
    "window_before",
]


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
    """[U, T] int64: the newest events of each row, at most ``length``, padded on the left with 0.

    T is the longest row's number of them, at least 1.
    """
    return _latest(histories, histories.item_index, length)


def latest_times(histories: Histories, length: int) -> Tensor:
    """[U, T] int64 microseconds of the events of `latest_window`, 0 at the padding."""
    return _latest(histories, histories.timestamp, length)


def _latest(histories: Histories, values: np.ndarray, length: int) -> Tensor:
    width = max(1, min(length, int(histories.counts.max(initial=0))))
    return window_before(values, histories.indptr[:-1], histories.indptr[1:], width)


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


def begun_left(window: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Windows that end in the last column, moved so that they begin in the first.

        window  0 0 4 1   ->  4 1 0   count  2
                0 7 0 2       7 0 2          3

    Args:
        window: [B, T] int64, newest last, padded on the left with 0.
        time: [B, T] int64 of the events.

    Returns:
        window and time, [B, longest] int64, and the number of columns [B] int64 that each row
        takes.
    """
    width = window.shape[1]
    count = _lengths(window)
    longest = int(count.max()) if len(window) else 0
    column = torch.arange(longest, device=window.device)
    source = width - count[:, None] + column  # [B, longest]
    inside = source < width
    source = source.clamp_(max=max(width - 1, 0))
    return window.gather(1, source) * inside, time.gather(1, source) * inside, count


def _lengths(window: Tensor) -> Tensor:
    """[B] int64 columns from the first event of each window on; hidden ones within count."""
    return ((window > 0).cumsum(dim=1) > 0).sum(dim=1)


def read_blocks(window: Tensor, *, most: int, pairs: int) -> list[Tensor]:
    """The rows of ``window`` [B, T], padded on the left, in blocks of about one length each.

    Args:
        window: [B, T] int64, 0 = padding.
        most: rows of a block, >= 1.
        pairs: of a block's rows times its longest window and one more, squared; a longer one
            stands alone.

    Returns:
        int64 rows of each block, the longest windows first.
    """
    length = _lengths(window)
    order = torch.argsort(length, descending=True, stable=True)
    longest = (length[order] + 1).tolist()
    blocks, begin = [], 0
    while begin < len(order):
        end = begin + max(1, min(most, pairs // longest[begin] ** 2))
        blocks.append(order[begin:end])
        begin = end
    return blocks


def recency_logits(length: int, half_lives: Sequence[float]) -> Tensor:
    """[P, T] float32: log of the weight of each place of a window, newest last, before padding.

    The event ``a`` places before the newest weighs ``0.5 ** (a / half_life)``; a half-life of
    infinity is the plain mean.
    """
    age = torch.arange(length - 1, -1, -1, dtype=torch.float64)  # [T]
    half_life = torch.tensor(half_lives, dtype=torch.float64)[:, None]
    return (-math.log(2) * age / half_life).float()


def masked_softmax(logit: Tensor, real: Tensor) -> Tensor:
    """Softmax of ``logit`` [P, B, T] over the ``real`` [B, T] events of each window.

    Returns:
        [P, B, T], 0 where not real; all 0, and no gradient, for a window without a real event.
    """
    hidden = ~real & real.any(dim=1, keepdim=True)  # an empty window hides nothing: no NaN
    return torch.softmax(logit.masked_fill(hidden, -torch.inf), dim=2) * real


def pool_weights(window: Tensor, half_lives: Sequence[float]) -> Tensor:
    """Weights of the events of each window, one set a half-life, each summing to 1.

    Args:
        window: [B, T] int64, newest last, 0 = padding.
        half_lives: P half-lives in events, > 0; see `recency_logits`.

    Returns:
        [P, B, T] float32, 0 at the padding; all 0 for an empty window.
    """
    logit = recency_logits(window.shape[1], half_lives).to(window.device)
    return masked_softmax(logit[:, None, :], window > 0)
