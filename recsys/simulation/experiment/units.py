"""From the log of what was shown and done to one row for each user of an experiment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import polars as pl

from features.errors import DataError
from features.moments import utc
from features.tables import EVENT, TIMESTAMP, USER, WEIGHT

__all__ = ["UnitFrame", "read_units"]


class UnitFrame(NamedTuple):
    """One row for each user of an experiment.

    Attributes:
        rows: user_id; arm; exposed_at, the first moment in the experiment; measured_until, where
            the covariates end, a microsecond before; requests, impressions and degraded
            impressions; for each kind of event ``<kind>``, the number after exposure,
            ``<kind>_weight``, the sum of the weights (1 where an event has none), and
            ``<kind>_before``, the number before exposure; ``impressions_before``.
        num_in_two_arms: users that were seen in several arms and are left out.
        num_without_user: impressions in the experiment that name no user.
    """

    rows: pl.DataFrame
    num_in_two_arms: int
    num_without_user: int


def read_units(
    impressions: pl.LazyFrame | pl.DataFrame,
    feedback: pl.LazyFrame | pl.DataFrame,
    experiment: str,
    *,
    events: Sequence[str],
    since: datetime | None = None,
    until: datetime | None = None,
    window_s: float | None = None,
    history_s: float = 28 * 86_400.0,
) -> UnitFrame:
    """Rows of the impression and the feedback log to one row for each user.

    Everything a user does after the first exposure counts, whatever led to it: the arm is the only
    difference, and no rule of attribution can lean to one side. A user counts whole or not at
    all: with a window, users whose window is not over at ``until`` are left out, so every user has
    the same time.

    Args:
        impressions: with user_id, timestamp, request_id and arms ("experiment=arm;..."); also
            degraded where it is there.
        feedback: with user_id, timestamp, event and weight.
        experiment: its name.
        events: kinds of events that are counted, such as "click".
        since: users are exposed from this moment on, UTC where it has no zone. None: all.
        until: end of what was logged for all users. None: the last impression's or event's moment.
        window_s: seconds after exposure that count for each user, > 0. None: until the end.
        history_s: seconds before exposure that covariates count, > 0.

    Raises:
        ValueError: a time is not positive.
        DataError: no user was in the experiment.
    """
    if not history_s > 0 or (window_s is not None and not window_s > 0):
        raise ValueError(f"window_s and history_s must be > 0 seconds, got {window_s}, {history_s}")
    since = None if since is None else utc(since)
    until = None if until is None else utc(until)
    shown, done = impressions.lazy().collect(), feedback.lazy().collect()
    pattern = rf"(?:^|;){re.escape(experiment)}=([^;]*)"
    inside = shown.with_columns(pl.col("arms").str.extract(pattern).alias("arm")).drop_nulls("arm")
    if since is not None:
        inside = inside.filter(pl.col(TIMESTAMP) >= since)
    if until is not None:
        inside = inside.filter(pl.col(TIMESTAMP) < until)
    nobody = int(inside[USER].null_count())
    users = (
        inside.drop_nulls(USER)
        .group_by(USER)
        .agg(
            pl.col("arm").first(),
            pl.col("arm").n_unique().alias("arms"),
            pl.col(TIMESTAMP).min().alias("exposed_at"),
        )
        .sort(USER)
    )
    if users.is_empty():
        raise DataError(
            f"experiment must have shown something to a user, got none of {experiment!r} among "
            f"{shown.height} impressions"
        )
    mixed = int((users["arms"] > 1).sum())
    users = users.filter(pl.col("arms") == 1).drop("arms")
    end = until if until is not None else _last(shown, done)
    if window_s is not None:
        window = timedelta(seconds=window_s)
        users = users.filter(pl.col("exposed_at") + window <= end)
        last = pl.col("exposed_at") + window
    else:
        last = pl.lit(end + timedelta(microseconds=0 if until is not None else 1))
    moment, start = pl.col(TIMESTAMP), pl.col("exposed_at")
    after = (moment >= start) & (moment < last)
    before = (moment < start) & (moment >= start - timedelta(seconds=history_s))
    degraded = pl.col("degraded") if "degraded" in shown.columns else pl.lit(False)
    seen = (
        shown.drop_nulls(USER)
        .join(users, on=USER)
        .group_by(USER)
        .agg(
            pl.col("request_id").filter(after).n_unique().alias("requests"),
            after.sum().alias("impressions"),
            (degraded & after).sum().alias("degraded"),
            before.sum().alias("impressions_before"),
        )
    )
    counts = []
    for kind in events:
        one = pl.col(EVENT) == kind
        weight = pl.col(WEIGHT).fill_null(1.0)
        counts += [
            (one & after).sum().alias(kind),
            pl.when(one & after).then(weight).otherwise(0.0).sum().alias(f"{kind}_weight"),
            (one & before).sum().alias(f"{kind}_before"),
        ]
    rows = users.join(seen, on=USER, how="left")
    if counts:
        acted = done.drop_nulls(USER).join(users, on=USER).group_by(USER).agg(counts)
        rows = rows.join(acted, on=USER, how="left")
    rows = rows.with_columns(
        pl.exclude(USER, "arm", "exposed_at").fill_null(0).cast(pl.Float64),
        (start - timedelta(microseconds=1)).alias("measured_until"),
    ).sort(USER)
    return UnitFrame(rows, mixed, nobody)


def _last(*frames: pl.DataFrame) -> datetime:
    moments = [frame[TIMESTAMP].max() for frame in frames if not frame.is_empty()]
    return max(moment for moment in moments if isinstance(moment, datetime))
