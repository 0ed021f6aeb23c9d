"""Features that are made of the values of other ones, once these are there."""

from __future__ import annotations

import numpy as np

from features.definitions.columns import Difference, SlateRelative

__all__ = ["difference", "slate_relative"]


def difference(
    _: np.ndarray, values: np.ndarray, others: np.ndarray, definition: Difference
) -> np.ndarray:
    """[R] float64: ``values`` less ``others``, NaN where either is."""
    return np.asarray(values.astype(np.float64) - others)


def slate_relative(
    request_id: np.ndarray, values: np.ndarray, definition: SlateRelative
) -> np.ndarray:
    """[R] float64: each value compared with the others of its request, NaN where it is NaN.

    Args:
        request_id: [R] integer.
        values: [R].
        definition: says how.
    """
    known = np.flatnonzero(~np.isnan(values))
    value = values[known].astype(np.float64)
    relative = np.full(values.shape, np.nan)
    if request_id.size == 0 or not bool((request_id != request_id[0]).any()):  # one slate
        if definition.how == "minus_mean":
            total = np.bincount(np.zeros_like(known), weights=value, minlength=1)  # as below
            relative[known] = value - total[0] / max(value.size, 1)
            return relative
        order = np.argsort(value)  # whichever of equals comes first: they share their place
        differs = value[order[1:]] != value[order[:-1]]
        relative[known[order]] = (_tied(differs, value.size) + 0.5) / max(value.size, 1)
        return relative
    _, slate = np.unique(request_id[known], return_inverse=True)
    count = np.bincount(slate)[slate]
    if definition.how == "minus_mean":
        relative[known] = value - np.bincount(slate, weights=value)[slate] / count
        return relative
    order = np.lexsort((value, slate))
    value, slate = value[order], slate[order]
    differs = (value[1:] != value[:-1]) | (slate[1:] != slate[:-1])
    begin = np.searchsorted(slate, slate, side="left")
    relative[known[order]] = (_tied(differs, value.size) - begin + 0.5) / count[order]
    return relative


def _tied(differs: np.ndarray, size: int) -> np.ndarray:
    """[n] mean place of each of n sorted values among its equals, from where values differ."""
    first = np.flatnonzero(np.concatenate([np.ones(min(1, size), dtype=bool), differs]))
    last = np.append(first[1:], size) - 1
    if first.size == size:
        return first.astype(np.float64)
    return np.repeat((first + last) / 2, last - first + 1)
