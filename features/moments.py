"""Moments in time: UTC without a zone inside, whole microseconds where numbers are needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["EPOCH", "microseconds", "utc"]

EPOCH = datetime(1970, 1, 1)


def utc(moment: datetime) -> datetime:
    """A moment in UTC without a zone; one without a zone is UTC."""
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC; a moment without a zone is UTC."""
    return (utc(moment) - EPOCH) // timedelta(microseconds=1)
