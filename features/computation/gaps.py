"""The time between the events of one user with one item.

Each event but the first of a user and item lengthens the time between their first and their last
one by something, or by nothing. Summed up these are the time from the first to the last, whatever
the order in which the events arrived.
"""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = ["DAY_US", "gaps"]

DAY_US = 86_400_000_000


def gaps(user: np.ndarray, item: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events whose user had another one with their item, and by how much each lengthens the time.

    Args:
        user: [E] int64, in the order of arrival.
        item: [E] int64.
        happened: [E] int64 microseconds since 1970-01-01 UTC.

    Returns:
        [C] int64 positions of these events and [C] float64 days.
    """
    time = pl.col("happened")
    first, last = (
        extreme.shift(1).over("user", "item") for extreme in (time.cum_min(), time.cum_max())
    )
    longer = (time - last).clip(0) + (first - time).clip(0)
    frame = pl.DataFrame({"user": user, "item": item, "happened": happened})
    found = frame.select(longer.alias("longer"))["longer"]
    came = found.is_not_null().arg_true().to_numpy().astype(np.int64)
    return came, found.drop_nulls().to_numpy() / DAY_US
