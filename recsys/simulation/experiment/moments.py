"""Sums over units, and what they say of a mean, of a ratio, and of two arms.

Everything here takes arrays of any shape, so that all looks of many experiments are one call. The
unit is what was assigned to an arm, such as a user: sum a user's sessions first (`sums_by_unit`),
or the standard error is too small.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = [
    "Gap",
    "RatioSums",
    "Sums",
    "gap",
    "linearised",
    "mean_and_variance",
    "running_ratio_sums",
    "running_sums",
    "sums_by_unit",
]


class Sums(NamedTuple):
    """Of one metric over the units of one arm; arrays of one shape.

    Attributes:
        num_units: so many.
        total: sum of their values.
        squares: sum of their squares.
    """

    num_units: np.ndarray
    total: np.ndarray
    squares: np.ndarray


class RatioSums(NamedTuple):
    """Of a metric that is a sum over a sum, such as clicks per view; arrays of one shape.

    Attributes:
        num_units: so many.
        numerator: sum of y.
        denominator: sum of x.
        numerator_squares: sum of y^2.
        denominator_squares: sum of x^2.
        products: sum of x y.
    """

    num_units: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray
    numerator_squares: np.ndarray
    denominator_squares: np.ndarray
    products: np.ndarray


class Gap(NamedTuple):
    """One arm minus the control.

    Attributes:
        difference: of the means or ratios.
        standard_error: of the difference; NaN where an arm has fewer than two units.
    """

    difference: np.ndarray
    standard_error: np.ndarray


def mean_and_variance(sums: Sums | RatioSums) -> tuple[np.ndarray, np.ndarray]:
    """The metric, and the variance of one unit's part in it.

    The variance of the metric itself is this one divided by the number of units. For a ratio
    R = sum y / sum x the part of a unit is (y - R x) / mean x (delta method).

    Args:
        sums: of an arm.

    Returns:
        Mean or ratio, and the variance (n - 1 below); NaN where there is nothing to divide by.

    Source: Deng, Knoblich and Lu, KDD 2018, section 2.2 (delta method); sums of squares lose
    digits where a metric's mean is 1e6 times its spread: subtract a constant first.
    """
    count = np.asarray(sums.num_units, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        if isinstance(sums, Sums):
            mean = sums.total / count
            spread = sums.squares - count * mean**2
        else:
            mean = sums.numerator / sums.denominator
            centre = sums.denominator / count
            spread = (
                sums.numerator_squares
                - 2 * mean * sums.products
                + mean**2 * sums.denominator_squares
            ) / centre**2
        variance = np.where(count > 1, np.maximum(spread, 0.0) / (count - 1), np.nan)
    return np.asarray(mean), variance


def gap(control: Sums | RatioSums, arm: Sums | RatioSums) -> Gap:
    """Difference of two arms of any sizes: var_c / n_c + var_a / n_a.

    Args:
        control: its sums.
        arm: those of the other arm, of the same shape.
    """
    mean_c, variance_c = mean_and_variance(control)
    mean_a, variance_a = mean_and_variance(arm)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(variance_c / control.num_units + variance_a / arm.num_units)
    return Gap(mean_a - mean_c, error)


def running_sums(values: np.ndarray, looks: np.ndarray) -> Sums:
    """Sums over the first units, at each look.

    Args:
        values: [..., n] float, in the order in which units came.
        looks: [L] int64, how many units each look has, 1..n.

    Returns:
        Arrays [..., L].

    Raises:
        ValueError: a look is before the first or behind the last unit.
    """
    values = np.asarray(values, dtype=np.float64)
    at = _places(looks, values.shape[-1])
    shape = (*values.shape[:-1], at.size)
    return Sums(np.broadcast_to(at + 1.0, shape), *_running(at, values, values**2))


def running_ratio_sums(
    numerator: np.ndarray, denominator: np.ndarray, looks: np.ndarray
) -> RatioSums:
    """As `running_sums`, of a ratio; both arguments are [..., n].

    Raises:
        ValueError: the two shapes differ, or as in `running_sums`.
    """
    y, x = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if y.shape != x.shape:
        raise ValueError(
            f"numerator and denominator must have one shape, got {y.shape} and {x.shape}"
        )
    at = _places(looks, y.shape[-1])
    count = np.broadcast_to(at + 1.0, (*y.shape[:-1], at.size))
    return RatioSums(count, *_running(at, y, x, y**2, x**2, x * y))


def linearised(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A ratio metric as one value for each unit: R + (y - R x) / mean x.

    Their mean is the ratio, and their variance over n is its variance by the delta method, so what
    works for means works for ratios. Linearise each arm by itself.

    Args:
        numerator: [n] float, such as the clicks of each user.
        denominator: [n] float, such as the views of each user; the sum must be above 0.

    Returns:
        [n] float64.

    Raises:
        ValueError: the arrays differ in length, or the denominators sum to 0 or less.

    Source: Budylin et al., WSDM 2018, section 3; Deng, Knoblich and Lu, KDD 2018.
    """
    y, x = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if y.ndim != 1 or y.shape != x.shape:
        raise ValueError(
            f"numerator and denominator must be [n] of the same units, got {y.shape} and {x.shape}"
        )
    total = float(x.sum())
    if not total > 0:
        raise ValueError(f"denominator must sum to more than 0 over the units, got {total}")
    ratio = float(y.sum()) / total
    part: np.ndarray = ratio + (y - ratio * x) * (x.size / total)
    return part


def sums_by_unit(values: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row for each unit from rows of sessions, requests or places.

    Args:
        values: [n] or [n, M] float.
        unit: [n] ids of any sortable type.

    Returns:
        The distinct units [U], sorted, and the sums of their rows, [U] or [U, M] float64.

    Raises:
        ValueError: not one unit for each row.
    """
    values, unit = np.asarray(values, dtype=np.float64), np.asarray(unit)
    if unit.shape != values.shape[:1]:
        raise ValueError(
            f"unit must have one entry for each row: got {unit.shape} for {values.shape[0]} rows"
        )
    units, place = np.unique(unit, return_inverse=True)
    flat = values.reshape(values.shape[0], -1)
    sums = np.stack(
        [
            np.bincount(place, weights=flat[:, column], minlength=units.size)
            for column in range(flat.shape[1])
        ],
        axis=1,
    )
    return units, sums.reshape(units.size, *values.shape[1:])


def _places(looks: np.ndarray, num_units: int) -> np.ndarray:
    at = np.asarray(looks, dtype=np.int64) - 1
    if at.ndim != 1 or at.size == 0 or at.min() < 0 or at.max() >= num_units:
        raise ValueError(
            f"looks must be [L] numbers of units in 1..{num_units}, got {np.asarray(looks)}"
        )
    return at


def _running(at: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [np.cumsum(array, axis=-1)[..., at] for array in arrays]
