"""Times of a log: the forms in which files write them, which of these a column has, and its values.

Imports of `features` only the errors and moments; may be imported from everywhere.
"""

from __future__ import annotations

from features.tables.times.detection import TimeForm, detect, narrow
from features.tables.times.parsing import (
    EARLIEST,
    ORDER_LIMIT,
    TICKS,
    TimeUnit,
    check_format,
    in_microseconds,
    time_in_microseconds,
)

__all__ = [
    "EARLIEST",
    "ORDER_LIMIT",
    "TICKS",
    "TimeForm",
    "TimeUnit",
    "check_format",
    "detect",
    "in_microseconds",
    "narrow",
    "time_in_microseconds",
]
