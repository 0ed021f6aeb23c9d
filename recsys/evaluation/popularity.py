"""Groups of items by how often they occur in training, and what being rare is worth."""

from __future__ import annotations

import numpy as np

__all__ = ["checked_popularity", "cold_items", "head_items", "popularity_rank", "self_information"]


def checked_popularity(popularity: np.ndarray) -> np.ndarray:
    """``popularity`` as float64 [N + 1] with 0 in the padding row.

    Raises:
        ValueError: not [N + 1] with N >= 1, or an entry that is negative or not finite.
    """
    counts = np.array(popularity, dtype=np.float64)
    if counts.ndim != 1 or counts.size < 2:
        raise ValueError(
            f"popularity must be [N + 1] training counts with N >= 1, got shape {counts.shape}"
        )
    counts[0] = 0.0
    bad = ~(np.isfinite(counts) & (counts >= 0))
    if bad.any():
        raise ValueError(
            f"popularity must be finite and >= 0: item index {int(np.argmax(bad))} has "
            f"{counts[bad][0]}"
        )
    return counts


def popularity_rank(popularity: np.ndarray) -> np.ndarray:
    """[N + 1] int64 rank of each item, 0 = most popular, ties to the lower index; -1 for row 0."""
    counts = checked_popularity(popularity)
    rank = np.full(counts.size, -1, dtype=np.int64)
    rank[np.argsort(-counts[1:], kind="stable") + 1] = np.arange(counts.size - 1)
    return rank


def head_items(popularity: np.ndarray, *, fraction: float = 0.1) -> np.ndarray:
    """[N + 1] bool: the most popular tenth (``fraction``) of the catalogue by training count.

    ceil(fraction * N) items, fewer if not so many have an event at all; ties to the lower index.

    Raises:
        ValueError: ``fraction`` is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction}")
    counts = checked_popularity(popularity)
    rank = popularity_rank(counts)
    head: np.ndarray = (rank >= 0) & (rank < np.ceil(fraction * (counts.size - 1))) & (counts > 0)
    return head


def cold_items(popularity: np.ndarray) -> np.ndarray:
    """[N + 1] bool: items without any training event (row 0 is not an item)."""
    cold: np.ndarray = checked_popularity(popularity) == 0
    cold[0] = False
    return cold


def self_information(popularity: np.ndarray) -> np.ndarray:
    """[N + 1] float64 bits: -log2 of the share of training events that are of the item.

    One event is added to every item, so that an item never seen is rare and not infinitely so.

    Source: Zhou et al., PNAS 107(10), 2010 (self-information of an item), with add-one smoothing.
    """
    counts = checked_popularity(popularity)
    share = (counts + 1.0) / (counts.sum() + counts.size - 1)
    bits: np.ndarray = -np.log2(share)
    bits[0] = 0.0
    return bits
