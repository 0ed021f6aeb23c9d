"""Moments in time: UTC without a zone inside, whole microseconds where numbers are needed."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

__all__ = ["EPOCH", "duration_text", "duration_us", "microseconds", "utc"]

EPOCH = datetime(1970, 1, 1)
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([mhdw])")
_UNIT_US = {"m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}


def utc(moment: datetime) -> datetime:
    """A moment in UTC without a zone; one without a zone is UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a moment without a zone is UTC."""
    return (utc(moment) - EPOCH) // timedelta(microseconds=1)


def duration_us(text: str) -> int | None:
    """Microseconds of a time in minutes (m), hours (h), days (d) or weeks (w); None: it is none.

    >>> duration_us("7d") == duration_us("1w") == duration_us("168 h")
    True
    """
    found = _DURATION.fullmatch(text)
    long = math.inf if found is None else float(found[1]) * _UNIT_US[found[2]]
    return round(long) if math.isfinite(long) else None


def duration_text(microseconds: int) -> str:
    """The same in words, in the largest of days, hours and minutes that leaves no rest.

    >>> duration_text(duration_us("2w")), duration_text(duration_us("1.5d"))
    ('14d', '36h')
    """
    for unit in "dh":
        if microseconds % _UNIT_US[unit] == 0:
            return f"{microseconds // _UNIT_US[unit]}{unit}"
    return f"{microseconds / _UNIT_US['m']:g}m"
