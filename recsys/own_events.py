"""What one user did: the log, and on top of it what a live request says happened just now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from features.interactions import Interactions
from features.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.vocabulary import Vocabulary

__all__ = ["own_events"]


def own_events(
    user_id: str,
    recent_items: Sequence[str],
    items: Vocabulary,
    *,
    as_of: datetime,
    log: Interactions | None,
) -> Interactions:
    """The user's events before ``as_of``, then the recent items a second apart.

    Args:
        user_id: whose.
        recent_items: oldest first; ids that ``items`` does not hold are left out. They weigh what
            the mean event of the log does, or 1.
        items: what is known.
        as_of: the moment of the request.
        log: everybody's events. None: only the recent items count.
    """
    index = items.index(list(recent_items))
    known = [item for item, found in zip(recent_items, index, strict=True) if found > 0]
    times = [as_of - timedelta(seconds=len(known) - n) for n in range(len(known))]
    usual_weight = 1.0
    if log is not None and len(log):
        usual_weight = float(log.frame[WEIGHT].mean())  # type: ignore[arg-type]
    recent = pl.DataFrame(
        {
            USER: pl.Series([user_id] * len(known), dtype=pl.String),
            ITEM: pl.Series(known, dtype=pl.String),
            TIMESTAMP: pl.Series(times, dtype=pl.Datetime("us")),
            EVENT: pl.Series(["recent"] * len(known), dtype=pl.String),
            WEIGHT: pl.Series([usual_weight] * len(known), dtype=pl.Float32),
        }
    )
    if log is None:
        return Interactions(recent)
    logged = log.filter_users([user_id]).before(as_of).frame
    merged = pl.concat([logged.select(recent.columns), recent]).sort(TIMESTAMP, USER, ITEM, EVENT)
    return Interactions(merged)
