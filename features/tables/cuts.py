"""Where a history is cut: between two moments, never within one."""

from __future__ import annotations

import numpy as np

from features.tables.hashing import stable_mix

__all__ = ["rest_of_rows"]

_HELD_OUT = 0.2
"""Share of the rows that are held out whole where none has two moments."""


def rest_of_rows(
    row: np.ndarray, timestamp: np.ndarray, cut: np.ndarray, number: np.ndarray
) -> np.ndarray:
    """Which events come after the first ``cut`` of their row, no moment divided.

    Events of one time that the cut falls among come after it, unless nothing would be left before
    them: then they all come before it. Where no row is cut in this way though rows have events
    enough, none having two moments, a fifth of these rows comes after the cut whole, drawn by
    their number.

    Args:
        row: [E] int64, rising.
        timestamp: [E], never falling within a row.
        cut: [U] int64 events of each row before the cut, 0 = none.
        number: [U] uint64 that a row is known by.

    Returns:
        [E] bool.
    """
    size = row.size
    if not size:
        return np.zeros(0, dtype=bool)
    new_row = np.diff(row, prepend=row[0] - 1) != 0
    new_moment = new_row | (np.diff(timestamp, prepend=timestamp[0]) != 0)
    event = np.arange(size)
    place = event - np.maximum.accumulate(np.where(new_row, event, 0))
    moment = np.cumsum(new_moment) - 1  # [E] of all rows
    ends = place[np.append(np.flatnonzero(new_moment)[1:] - 1, size - 1)]  # place of its last event
    first_moment = np.maximum.accumulate(np.where(new_row, moment, 0))
    late: np.ndarray = (ends[moment] >= cut[row]) & ((moment > first_moment) | (cut[row] == 0))
    counts = np.bincount(row, minlength=cut.size)
    cuttable = (counts > 1) & (cut > 0) & (cut < counts)
    if late.any() or not cuttable.any() or np.count_nonzero(counts) == 1:
        return late
    drawn = stable_mix(number, np.ones(1, dtype=np.uint64)) / 2.0**64 < _HELD_OUT
    whole = drawn & cuttable
    if not whole.any() or whole[counts > 0].all():
        whole = number == number[cuttable].max()
    held_out: np.ndarray = whole[row]
    return held_out
