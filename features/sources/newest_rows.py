"""Which row of a table is a key's newest at or before a moment, for many keys and moments at once.

A row is seen from the later of its time and its creation on. Of the rows of a key that are seen at
a moment, the one that ranks highest by (time, creation, place in the table) is its newest::

    row  time  created  seen      sorted by seen        rank  running maximum
    0    1     1        1    ->   row 0 (from 1)        0     row 0
    1    3     3        3         row 1 (from 3)        2     row 1
    2    2     4        4         row 2 (from 4)        1     row 1   the later news is older

All keys go through one sorted array of whole numbers, key x (rows + 1) + place among the seen, so a
moment is found by one search, and sorted moments are found side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

__all__ = ["key_numbers", "newest_rows"]


def newest_rows(
    row_keys: np.ndarray,
    times: np.ndarray,
    created: np.ndarray | None,
    asked_keys: np.ndarray,
    moments: np.ndarray,
) -> np.ndarray:
    """The newest row seen at each moment.

    Args:
        row_keys: [N] int64 >= 0, the key of each row.
        times: [N] int64, its time.
        created: [N] int64, when it was created; None: at its time.
        asked_keys: [R] int64, -1 for a key without rows.
        moments: [R] int64.

    Returns:
        [R] int64 row, -1 where none was seen.
    """
    count = len(times)
    if not count:
        return np.full(len(moments), -1, dtype=np.int64)
    base = count + 1
    if created is None:
        ranked = seen_order = _stable_argsort(times)
        seen = times[seen_order]
    else:
        ranked = np.lexsort((created, times))
        seen = np.maximum(times, created)
        seen_order = np.argsort(seen)
        seen = seen[seen_order]
    # Every (key, place among the seen), key by key; places count from 1.
    slots = row_keys[seen_order] * base + np.arange(1, base)
    slots.sort()
    if created is None:
        newest = slots
    else:
        rank = np.empty(count, dtype=np.int64)
        rank[ranked] = np.arange(1, base)
        key, place = np.divmod(slots, base)
        newest = np.maximum.accumulate(key * base + rank[seen_order[place - 1]])
    asked = asked_keys * base + _count_up_to(seen, moments)
    found = newest[_count_up_to(slots, asked) - 1]
    key, rank_of_newest = np.divmod(found, base)
    # Before the first slot the index -1 gives the last key's newest, which is another key's
    # unless that key is asked before its first row: then its slot lies above what was asked.
    hit = (key == asked_keys) & (asked >= slots[0])
    return np.where(hit, ranked[rank_of_newest - 1], -1)


def key_numbers(
    rows: pl.DataFrame, asked: pl.DataFrame, on: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids as numbers from 0, the same for the same ids in both frames.

    Args:
        rows: N rows of the id columns, without nulls.
        asked: R rows of them, in the same types.
        on: the id columns; none: every row has the key 0.

    Returns:
        [N] and [R] int64; -1 for an asked key that no row has, or with a null.
    """
    if not on:
        return np.zeros(rows.height, dtype=np.int64), np.zeros(asked.height, dtype=np.int64)
    if not rows.height:
        return np.empty(0, dtype=np.int64), np.full(asked.height, -1, dtype=np.int64)
    if len(on) == 1 and rows.schema[on[0]].is_signed_integer():
        ids = rows[on[0]].cast(pl.Int64).to_numpy()
        low, high = int(ids.min()), int(ids.max())
        if high - low < 4 * rows.height:  # few gaps: the ids themselves
            wanted = asked[on[0]].cast(pl.Int64)
            inside = wanted.is_between(low, high).fill_null(False).to_numpy()
            return ids - low, np.where(inside, wanted.fill_null(low).to_numpy() - low, -1)
    distinct = rows.select(on).unique().with_row_index("__key")
    return _joined(rows, distinct, on), _joined(asked, distinct, on)


def _joined(frame: pl.DataFrame, distinct: pl.DataFrame, on: Sequence[str]) -> np.ndarray:
    numbers = frame.select(on).join(distinct, on=list(on), how="left", maintain_order="left")
    return numbers["__key"].cast(pl.Int64).fill_null(-1).to_numpy()


def _stable_argsort(values: np.ndarray) -> np.ndarray:
    """Order by value, then by place: two fast sorts are faster than one stable one."""
    if bool(np.all(values[:-1] <= values[1:])):
        return np.arange(len(values))
    order = np.argsort(values)
    ordered = values[order]
    number = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])  # of the distinct value
    both = number * len(values) + order
    both.sort()
    stable: np.ndarray = both % len(values)
    return stable


def _count_up_to(ordered: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many of ``ordered`` are <= each wanted value; searched in order, which is faster."""
    order = np.argsort(wanted)
    counts = np.empty(len(wanted), dtype=np.int64)
    counts[order] = np.searchsorted(ordered, wanted[order], side="right")
    return counts
