"""The loops of the sparse item-item model, compiled; each takes a range of items.

``users`` and ``items`` are the matrix X in compressed rows and in compressed columns; ``gram`` is
X'X in compressed rows, each row sorted, perhaps cut to its largest entries.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["count_pairs", "fill_pairs", "solve_items"]

_SCANS = 16
"""Up to so many entries a neighbour a row of the squares is read whole, not searched."""


@numba.njit(nogil=True, cache=True)
def count_pairs(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    first, last, user_start, user_item, item_start, item_user, count
):
    """``count`` [N + 1]: different items that the users of each item of the range met."""
    seen = np.full(count.size, -1, np.int64)
    for item in range(first, last):
        found = 0
        for at in range(item_start[item], item_start[item + 1]):
            user = item_user[at]
            for place in range(user_start[user], user_start[user + 1]):
                other = user_item[place]
                if seen[other] != item:
                    seen[other] = item
                    found += 1
        count[item] = found


@numba.njit(nogil=True, cache=True)
def fill_pairs(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    first, last, users, items, damping, start, index, value
):
    """Rows of X'X: the item itself and the others with the largest ``value * damping``."""
    user_start, user_item, user_value = users
    item_start, item_user, item_value = items
    width = damping.size
    total = np.empty(width, np.float32)
    seen = np.full(width, -1, np.int64)
    met = np.empty(width, np.int32)
    for item in range(first, last):
        found = 0
        for at in range(item_start[item], item_start[item + 1]):
            user, own = item_user[at], item_value[at]
            for place in range(user_start[user], user_start[user + 1]):
                other = user_item[place]
                if seen[other] != item:
                    seen[other] = item
                    met[found] = other
                    total[other] = 0.0
                    found += 1
                total[other] += own * user_value[place]
        room = start[item + 1] - start[item]
        row = np.sort(met[:found])
        if found > room:
            rank = np.empty(found, np.float32)
            for place in range(found):
                other = row[place]
                rank[place] = -np.inf if other == item else -total[other] * damping[other]
            kept = np.sort(np.argsort(rank, kind="mergesort")[:room])
            row_kept = row[kept]
        else:
            row_kept = row
        for place in range(room):
            index[start[item] + place] = row_kept[place]
            value[start[item] + place] = total[row_kept[place]]


@numba.njit(nogil=True, cache=True)
def _neighbours(item, most, gram, damping):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Places in the row of ``item`` of its ``most`` best neighbours, rising."""
    start, index, value = gram
    first, last = start[item], start[item + 1]
    rank = np.empty(last - first, np.float32)
    for place in range(first, last):
        other = index[place]
        rank[place - first] = np.inf if other == item else -value[place] * damping[other]
    size = min(most, last - first - 1)
    return first + np.sort(np.argsort(rank, kind="mergesort")[:size])


@numba.njit(nogil=True, cache=True)
def _gather(chosen, place_of, gram, square):  # type: ignore[no-untyped-def]  # pragma: no cover
    """The lower half of X'X among the ``chosen`` items into ``square``.

    ``place_of`` [N + 1] says where each item goes; of all others that is the last column, which
    takes what is not wanted: to ask first is slower.
    """
    start, index, value = gram
    size = chosen.size
    for row in range(size):
        own = square[row]
        own[:] = 0.0
        first, last = start[chosen[row]], start[chosen[row] + 1]
        if last - first < _SCANS * size:
            for place in range(first, last):
                own[place_of[index[place]]] = value[place]
        else:
            low = first
            for column in range(size):
                wanted, high = chosen[column], last
                while low < high:
                    middle = (low + high) // 2
                    if index[middle] < wanted:
                        low = middle + 1
                    else:
                        high = middle
                if low < last and index[low] == wanted:
                    own[column] = value[low]
    for row in range(size):
        for column in range(row):
            square[row, column] = max(square[row, column], square[column, row])


@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _solve(square, floor, right):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """``right`` becomes ``square^-1 right``, by Cholesky's method.

    No pivot can be below the penalty of its row, unless squares were left out of X'X.
    """
    size = right.size
    for row in range(size):
        own = square[row]
        for column in range(row):
            other = square[column]
            known = 0.0
            for at in range(column):
                known += own[at] * other[at]
            own[column] = (own[column] - known) / other[column]
        norm, known = 0.0, 0.0
        for at in range(row):
            norm += own[at] * own[at]
            known += own[at] * right[at]
        own[row] = np.sqrt(max(own[row] - norm, floor[row]))
        right[row] = (right[row] - known) / own[row]
    for row in range(size - 1, -1, -1):
        own = square[row]
        right[row] /= own[row]
        for at in range(row):
            right[at] -= own[at] * right[row]


@numba.njit(nogil=True, cache=True)
def solve_items(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    first, last, most, gram, damping, penalty, start, index, value
):
    """Columns of B: the equations of each item among its own ``most`` neighbours."""
    _, gram_index, gram_value = gram
    place_of = np.full(penalty.size, most, np.int32)
    square = np.empty((most, most + 1))
    for item in range(first, last):
        if start[item + 1] == start[item]:
            continue
        place = _neighbours(item, most, gram, damping)
        chosen, right = gram_index[place], gram_value[place].astype(np.float64)
        floor = penalty[chosen]
        for at in range(chosen.size):
            place_of[chosen[at]] = at
        _gather(chosen, place_of, gram, square)
        for at in range(chosen.size):
            place_of[chosen[at]] = most
            square[at, at] += floor[at]
        _solve(square, floor, right)
        for at in range(chosen.size):
            index[start[item] + at] = chosen[at]
            value[start[item] + at] = right[at]
