"""Cutting an event log into a part to learn from and a later part to be judged on.

All cuts keep the order of the log. Within one user that order is time, then item id (as text),
then kind of event: the order in which `Interactions` keeps its rows. It does not depend on the
order of the rows in the file.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import polars as pl

from features.tables import TIMESTAMP, USER, Interactions

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
    interactions: Interactions, *, fraction: float = 0.8, min_events: int = 2
) -> Split:
    """Each user's first floor(fraction * n) events are train, the rest are test.

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
    cut = (pl.lit(fraction) * _events_of_user()).floor().cast(pl.Int64)
    return _cut_after(interactions, cut, min_events)


def leave_last_out(interactions: Interactions, *, min_events: int = 2) -> Split:
    """Each user's last event is test, all before are train.

    Args:
        interactions: the log.
        min_events: users with fewer events are not tested: all their events are train; >= 1.

    Raises:
        ValueError: ``min_events`` < 1.
    """
    _check_min_events(min_events)
    return _cut_after(interactions, _events_of_user() - 1, min_events)


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
    frame = interactions.frame
    later = frame.filter(pl.col(TIMESTAMP) >= moment)
    return Split(interactions.before(moment), Interactions(later))


def _events_of_user() -> pl.Expr:
    """Within a group of one user's events."""
    return pl.len().cast(pl.Int64)


def _cut_after(interactions: Interactions, cut: pl.Expr, min_events: int) -> Split:
    frame = interactions.frame
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    late = (place >= cut) & (_events_of_user() >= min_events)
    tested = frame.select(late.over(USER).alias("tested"))["tested"]
    return Split(Interactions(frame.filter(~tested)), Interactions(frame.filter(tested)))


def _check_min_events(min_events: int) -> None:
    if min_events < 1:
        raise ValueError(f"min_events must be >= 1, got {min_events}")
