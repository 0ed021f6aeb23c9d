"""Events one by one, in the order in which they arrived."""

from __future__ import annotations

import hashlib
import math
import struct
from datetime import datetime
from typing import NamedTuple

import polars as pl

from features.errors import DataError
from features.moments import microseconds
from features.tables.schema import CREATED, EVENT, EVENT_ID, ITEM, TIMESTAMP, USER, WEIGHT

__all__ = ["Arrival", "arrival", "arrivals"]


class Arrival(NamedTuple):
    """One event.

    Attributes:
        user: user id.
        item: item id.
        happened: microseconds since 1970-01-01 UTC.
        kind: kind of the event.
        weight: its weight: 0 counts for nothing, and below 0 it is a dislike.
        arrived: microseconds since 1970-01-01 UTC.
        identity: 64 bits that are the same when the event comes again.
    """

    user: str
    item: str
    happened: int
    kind: str
    weight: float
    arrived: int
    identity: int


def arrival(
    user: str,
    item: str,
    timestamp: datetime,
    *,
    event: str = "interaction",
    weight: float = 1.0,
    created: datetime | None = None,
    event_id: str | None = None,
) -> Arrival:
    """One event that has just come in.

    Args:
        user: user id.
        item: item id.
        timestamp: UTC, no zone: when it happened.
        event: its kind.
        weight: finite, >= 0.
        created: UTC, no zone: when it arrived. None: when it happened.
        event_id: what it is known by when it comes again. None: user, item, time and kind.

    Raises:
        DataError: an id or the kind is empty, a time has a zone, or the weight breaks its rule.
    """
    for name, text in ((USER, user), (ITEM, item), (EVENT, event)):
        if not text:
            raise DataError(f"{name} must not be empty, got {text!r}")
    for name, moment in ((TIMESTAMP, timestamp), (CREATED, created)):
        if moment is not None and moment.tzinfo is not None:
            raise DataError(f"{name} must be UTC without time zone, got {moment.isoformat()}")
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(f"{WEIGHT} must be a finite number >= 0, got {weight}")
    happened = microseconds(timestamp)
    arrived = happened if created is None else microseconds(created)
    weight = struct.unpack("<f", struct.pack("<f", weight))[0]  # a log holds float32
    identity = _identity(user, item, happened, event, event_id)
    return Arrival(user, item, happened, event, weight, arrived, identity)


def arrivals(
    events: pl.DataFrame, arrived: datetime | None = None, default_event: str = "interaction"
) -> list[Arrival]:
    """The events in the order of their arrival, ties as they stand.

    Args:
        events: user_id, item_id (text or integers), timestamp Datetime (UTC, no zone) and, if
            known, event, weight, created (time of arrival) and event_id.
        arrived: UTC, when events without a time of arrival arrived. None: when they happened.
        default_event: the kind of an event that does not say.

    Raises:
        DataError: a column is missing, of a wrong type, or null where it must not be.
    """
    for name in (USER, ITEM, TIMESTAMP):
        if name not in events.columns:
            raise DataError(
                f"events must have the column {name!r}, got {', '.join(events.columns) or 'none'}"
            )
    for name in (TIMESTAMP, CREATED):
        dtype = events.schema.get(name, pl.Datetime())
        if not isinstance(dtype, pl.Datetime) or dtype.time_zone is not None:
            raise DataError(
                f"events: {name} must be a Datetime in UTC without time zone, got {dtype}; cast it"
            )
    weight = events.schema.get(WEIGHT, pl.Float32())
    if not weight.is_numeric():
        raise DataError(f"events: {WEIGHT} must be a number, got {weight}; cast it")
    given = {
        EVENT: pl.lit(default_event),
        WEIGHT: pl.lit(1.0),
        CREATED: pl.lit(None, dtype=pl.Datetime("us")),
        EVENT_ID: pl.lit(None, dtype=pl.String),
    }
    absent = [value.alias(name) for name, value in given.items() if name not in events.columns]
    frame = events.with_columns(absent).select(
        pl.col(USER, ITEM, EVENT, EVENT_ID).cast(pl.String),
        pl.col(TIMESTAMP, CREATED).cast(pl.Datetime("us")),
        pl.col(WEIGHT).cast(pl.Float32).cast(pl.Float64),
    )
    for name in (USER, ITEM, TIMESTAMP, EVENT, WEIGHT):
        bad = frame[name].is_null()
        if name in (USER, ITEM, EVENT):
            bad = bad | (frame[name] == "")
        elif name == WEIGHT:
            bad = bad | ~frame[name].is_finite()
        if bool(bad.any()):
            rule = "be a finite number" if name == WEIGHT else "not be null or empty"
            raise DataError(
                f"events: {name} must {rule}: {int(bad.sum())} of {frame.height} break that, "
                f"first in row {bad.arg_true()[0]}; repair or drop these rows"
            )
    when = pl.col(TIMESTAMP) if arrived is None else pl.lit(arrived, dtype=pl.Datetime("us"))
    frame = frame.with_columns(pl.col(CREATED).fill_null(when)).sort(CREATED, maintain_order=True)
    rows = frame.select(
        USER,
        ITEM,
        pl.col(TIMESTAMP).to_physical(),
        EVENT,
        WEIGHT,
        pl.col(CREATED).to_physical(),
        EVENT_ID,
    ).iter_rows()
    found = []
    for user, item, happened, kind, weight, created, event_id in rows:
        identity = _identity(user, item, happened, kind, event_id)
        found.append(Arrival(user, item, happened, kind, weight, created, identity))
    return found


def _identity(user: str, item: str, happened: int, kind: str, event_id: str | None) -> int:
    parts = (user, item, str(happened), kind) if event_id is None else (user, event_id)
    text = "\0".join(parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
