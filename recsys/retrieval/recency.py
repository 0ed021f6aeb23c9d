"""Weights that favour what a user did last."""

from __future__ import annotations

import numpy as np

from features.tables import Histories

__all__ = ["recency_weights"]


def recency_weights(histories: Histories, half_life: float | None) -> np.ndarray:
    """[E] float32: ``0.5 ** (age / half_life)``, age = events after this one in its history.

    Age counts events, not seconds: a user who comes back after a year still has a last item.

    Args:
        histories: any.
        half_life: in events, > 0; None: every event weighs 1.

    Raises:
        ValueError: half_life <= 0.
    """
    if half_life is None:
        return np.ones(histories.item_index.size, dtype=np.float32)
    if half_life <= 0:
        raise ValueError(f"half_life must be > 0 events, got {half_life}; None turns it off")
    age = np.repeat(histories.indptr[1:], histories.counts) - 1 - np.arange(histories.rows.size)
    return np.asarray(0.5 ** (age / half_life), dtype=np.float32)
