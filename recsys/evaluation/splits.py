"""Cutting an event log into a part to learn from and a later part to be judged on.

All cuts keep the order of the log, and what a user did at one time is one moment that no cut
divides: the lines of a basket cannot be each other's past.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from features.tables import TIMESTAMP, USER, Interactions, Vocabulary
from features.tables.cuts import rest_of_rows
from features.tables.hashing import stable_hash
from recsys.evaluation.options import SplitOptions

__all__ = ["Split", "leave_last_out", "split_at", "split_per_user"]


class Split(NamedTuple):
    """Two parts of one log that share no row and together are the whole log.

    Attributes:
        train: what a model may learn from.
        test: what it is judged on.
    """

    train: Interactions
    test: Interactions


def split_per_user(
    interactions: Interactions,
    *,
    fraction: float = SplitOptions.default("fraction"),
    min_events: int = 2,
) -> Split:
    """Each user's first floor(fraction * n) events are train, the rest are test.

    A moment that the cut falls into is test, but a user's first one is train. In a log in which no
    user has two moments, a fifth of the users is test.

    Different users are cut at different times, so train holds events that are later than another
    user's test events: right for comparing recommenders, too kind for anything that follows
    trends. Use `split_at` for that.

    Args:
        interactions: the log.
        fraction: share of each user's events that goes to train, 0 < fraction < 1.
        min_events: users with fewer events are not tested: all their events are train; >= 1.

    Raises:
        ValueError: ``fraction`` or ``min_events`` is out of range.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must be above 0 and below 1, got {fraction}")
    _check_min_events(min_events)
    return _cut_after(
        interactions, lambda counts: np.floor(fraction * counts).astype(np.int64), min_events
    )


def leave_last_out(interactions: Interactions, *, min_events: int = 2) -> Split:
    """What each user did at the last time is test, all before is train.

    Args:
        interactions: the log.
        min_events: users with fewer events are not tested: all their events are train; >= 1.

    Raises:
        ValueError: ``min_events`` < 1.
    """
    _check_min_events(min_events)
    return _cut_after(interactions, lambda counts: counts - 1, min_events)


def split_at(interactions: Interactions, moment: datetime) -> Split:
    """Events strictly before ``moment`` are train, those at or after it are test.

    Args:
        interactions: the log.
        moment: UTC without a time zone, like the timestamps of the log.

    Raises:
        ValueError: ``moment`` carries a time zone.
    """
    if moment.tzinfo is not None:
        raise ValueError(
            f"moment must be UTC without a time zone, got {moment.isoformat()}; convert it with "
            "moment.astimezone(UTC).replace(tzinfo=None)"
        )
    return Split(interactions.before(moment), interactions.only(pl.col(TIMESTAMP) >= moment))


def _cut_after(
    interactions: Interactions, cut: Callable[[np.ndarray], np.ndarray], min_events: int
) -> Split:
    """Cut each user's events; ``cut`` takes the counts of users to how many come before it."""
    frame = interactions.frame
    users = frame[USER].unique().sort()
    row = Vocabulary(users).index(frame[USER]) - 1
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=len(users))
    before = np.where(counts >= min_events, cut(counts), counts)
    time = frame[TIMESTAMP].to_physical().to_numpy()
    tested = np.zeros(frame.height, dtype=bool)
    tested[order] = rest_of_rows(row[order], time[order], before, stable_hash(users))
    late = pl.Series(tested)
    train, test = frame.filter(~late), frame.filter(late)
    begins = test.group_by(USER).agg(pl.col(TIMESTAMP).min().alias("begins"))
    disliked, passed = (
        _parted(part, begins) for part in (interactions.dislikes, interactions.neutral)
    )
    return Split(
        Interactions(train, disliked[0], passed[0]), Interactions(test, disliked[1], passed[1])
    )


def _parted(
    frame: pl.DataFrame | None, begins: pl.DataFrame
) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    """What is no like belongs to the part that was going on for its user then."""
    if frame is None:
        return None, None
    joined = frame.join(begins, on=USER, how="left", maintain_order="left")
    early = pl.col("begins").is_null() | (pl.col(TIMESTAMP) < pl.col("begins"))
    known = joined.select(early.alias("early")).to_series()
    return frame.filter(known), frame.filter(~known)


def _check_min_events(min_events: int) -> None:
    if min_events < 1:
        raise ValueError(f"min_events must be >= 1, got {min_events}")
