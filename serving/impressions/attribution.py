"""Which impression an event rewards."""

from __future__ import annotations

import polars as pl

from features.tables import ITEM, TIMESTAMP, USER, WEIGHT

__all__ = ["join_feedback"]

_SHOWN, _ROW, _EVENT = "_shown", "_row", "_event"


def join_feedback(
    impressions: pl.LazyFrame | pl.DataFrame,
    feedback: pl.LazyFrame | pl.DataFrame,
    *,
    window_s: float,
) -> pl.DataFrame:
    """Impressions with what they led to.

    An event rewards at most one impression, and only within ``window_s`` after it was shown:
    the one of the request it names, if that showed its item; otherwise the last time before the
    event that its user was shown its item. Events later than the window, or before anything was
    shown, reward nothing.

    Args:
        impressions: rows of `read_impressions`, or any with its request_id, user_id, item_id and
            timestamp.
        feedback: rows of `read_feedback`; filter them to what counts as a reward, such as one
            kind of event.
        window_s: seconds, > 0. An event exactly so late still counts.

    Returns:
        The impressions in their order, with ``reward``, Float64, the sum of its events' weights
        (1 where an event has none), and ``num_events``, UInt32. Both are 0 without an event.

    Raises:
        ValueError: ``window_s`` is not positive.
    """
    if window_s <= 0:
        raise ValueError(f"window_s must be > 0 seconds, got {window_s}")
    window = pl.duration(microseconds=round(window_s * 1e6))
    shown = impressions.lazy().collect().with_row_index(_ROW)
    events = feedback.lazy().with_row_index(_EVENT).collect()
    keys = shown.select(_ROW, "request_id", USER, ITEM, pl.col(TIMESTAMP).alias(_SHOWN))
    named = (
        events.join(
            keys.unique(["request_id", ITEM], keep="first", maintain_order=True),
            on=["request_id", ITEM],
        )
        .filter(pl.col(TIMESTAMP) >= pl.col(_SHOWN))
        .select(_EVENT, _ROW, WEIGHT, (pl.col(TIMESTAMP) - pl.col(_SHOWN) <= window).alias("near"))
    )
    others = (
        events.join(named, on=_EVENT, how="anti")
        .drop_nulls([USER, ITEM])
        .sort(TIMESTAMP)
        .join_asof(
            keys.drop_nulls(USER).sort(_SHOWN),
            left_on=TIMESTAMP,
            right_on=_SHOWN,
            by=[USER, ITEM],
            strategy="backward",
            check_sortedness=False,
        )
        .select(_EVENT, _ROW, WEIGHT, (pl.col(TIMESTAMP) - pl.col(_SHOWN) <= window).alias("near"))
    )
    rewards = (
        pl.concat([named, others])
        .filter("near")
        .group_by(_ROW)
        .agg(
            pl.col(WEIGHT).fill_null(1.0).sum().alias("reward"),
            pl.len().cast(pl.UInt32).alias("num_events"),
        )
    )
    return (
        shown.join(rewards, on=_ROW, how="left", maintain_order="left")
        .with_columns(pl.col("reward").fill_null(0.0), pl.col("num_events").fill_null(0))
        .drop(_ROW)
    )
