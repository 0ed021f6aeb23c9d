"""Expected rewards of places, fitted without the rounds they are used on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import SlatePolicy

__all__ = ["SlotValues", "cross_fitted_slot_values"]


class SlotValues(NamedTuple):
    """What a model expects of every place and of all below it.

    Attributes:
        shown: [n, L] float64, of the item that was shown.
        expected: [n, L] float64, mean over the target policy given the items above.
    """

    shown: np.ndarray
    expected: np.ndarray


def cross_fitted_slot_values(
    feedback: SlateFeedback,
    target: SlatePolicy,
    *,
    rng: np.random.Generator,
    folds: int = 5,
    shrinkage: float = 10.0,
    cell: np.ndarray | None = None,
) -> SlotValues:
    """A table of items by place, for `cascade_dr`.

    From the last place up, with ``Q_{L+1} = 0``::

        y_k    = r_k + sum_a pi_e(a | a_1..a_k) Q_{k+1}(a)
        Q_k(a) = (sum of y_k where a was at place k + shrinkage * mean y_k) / (count + shrinkage)

    The table of a round comes from the folds that do not hold it; rounds of one unit share a fold.
    What stood above enters through the target policy alone, as the log had it: good enough to take
    variance away, and no estimate by itself.

    Args:
        feedback: n slates of L places.
        target: the policy that is judged.
        rng: draws the folds.
        folds: >= 2, at most the number of units.
        shrinkage: rounds that the mean of the place counts for, > 0.
        cell: [n] int64 >= 0 what kind of round it is, such as a segment of users; each kind then
            has its own table, shrunken towards that of all. None: one kind.

    Raises:
        ValueError: a number is out of range or a shape wrong.

    Source: Kiyohara et al., WSDM 2022, section 4.2 (recursive regression); the table is ours.
    """
    n, slots, items = target.shape
    if (n, slots, items) != (*feedback.action.shape, feedback.num_actions):
        raise ValueError(
            f"target must have the rounds, places and items of the log, "
            f"{(*feedback.action.shape, feedback.num_actions)}, got {target.shape}"
        )
    if not shrinkage > 0:
        raise ValueError(f"shrinkage must be > 0, got {shrinkage}")
    if cell is not None and (cell.shape != (n,) or cell.dtype != np.int64 or cell.min() < 0):
        raise ValueError(f"cell must be [n] int64 >= 0 with n = {n}, got {cell.dtype} {cell.shape}")
    fold = _folds(feedback, folds, rng)
    kind = np.zeros(n, dtype=np.int64) if cell is None else np.unique(cell, return_inverse=True)[1]
    kinds = int(kind.max()) + 1
    values = SlotValues(np.zeros((n, slots)), np.zeros((n, slots)))
    below = np.zeros((folds, n))  # sum_a pi_e(a) Q_{k+1}(a), by the tables of each fold
    for slot in range(slots - 1, -1, -1):
        item = feedback.action[:, slot]
        chance = target.next_probabilities(feedback.action[:, :slot])  # [n, K]
        shown = item >= 0
        for held in range(folds):
            fitted = np.nonzero(shown & (fold != held))[0]
            y = feedback.reward[fitted, slot] + below[held, fitted]
            table = _table(kind[fitted], item[fitted], y, (kinds, items), shrinkage)
            expected = np.where(shown, np.einsum("nk,nk->n", chance, table[kind]), 0.0)
            below[held] = expected
            rows = np.nonzero(shown & (fold == held))[0]
            values.shown[rows, slot] = table[kind[rows], item[rows]]
            values.expected[rows, slot] = expected[rows]
    return values


def _table(
    kind: np.ndarray, item: np.ndarray, y: np.ndarray, shape: tuple[int, int], shrinkage: float
) -> np.ndarray:
    """[kinds, K] means of y, shrunken towards the item's, and that towards the mean of all."""
    kinds, items = shape
    mean = float(y.mean()) if y.size else 0.0
    count, total = np.bincount(item, minlength=items), np.bincount(item, y, minlength=items)
    of_item = (total + shrinkage * mean) / (count + shrinkage)  # [K]
    if kinds == 1:
        return of_item[None, :]
    place = kind * items + item
    count = np.bincount(place, minlength=kinds * items).reshape(shape)
    total = np.bincount(place, y, minlength=kinds * items).reshape(shape)
    table: np.ndarray = (total + shrinkage * of_item) / (count + shrinkage)
    return table


def _folds(feedback: SlateFeedback, folds: int, rng: np.random.Generator) -> np.ndarray:
    """[n] int64 fold of every round, one for all rounds of a unit."""
    unit = np.arange(len(feedback)) if feedback.unit is None else feedback.unit
    units, row = np.unique(unit, return_inverse=True)
    if not 2 <= folds <= units.size:
        raise ValueError(f"folds must be 2 to the number of units, {units.size}, got {folds}")
    of_unit: np.ndarray = rng.permutation(np.arange(units.size) % folds)
    return of_unit[row]
