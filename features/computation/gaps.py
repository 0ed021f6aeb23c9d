"""The time between two events of one user with one item."""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["gap_weight", "gaps"]

_DAY_US = 86_400_000_000


def gaps(user: np.ndarray, item: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """Time since the newest event of the same user and item among those that arrived before.

    Args:
        user: [E] int64, in the order of arrival.
        item: [E] int64.
        happened: [E] int64 microseconds since 1970-01-01 UTC.

    Returns:
        [E] int64 microseconds; 0: no such event, or none that happened earlier.
    """
    frame = pl.DataFrame({"user": user, "item": item, "happened": happened})
    newest = pl.col("happened").cum_max().shift(1).over("user", "item")
    since = frame.select((pl.col("happened") - newest).fill_null(0).clip(0))["happened"]
    return since.to_numpy()


def gap_weight(gap_us: np.ndarray) -> np.ndarray:
    """float64 log(1 + days), what a gap counts as."""
    weight: np.ndarray = np.log1p(gap_us / _DAY_US)
    return weight
