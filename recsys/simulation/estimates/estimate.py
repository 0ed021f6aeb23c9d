"""A value read from a log, with its standard error and interval.

Rounds of one unit (a user, a session) are not independent: give ``unit`` and the standard error
counts units, not rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

__all__ = [
    "Contributions",
    "Estimate",
    "bootstrap_estimates",
    "from_contributions",
    "ratio_estimate",
]

# Memory of one array over a block of draws, [block, U] of 8 bytes; three of them live at once.
BLOCK_BYTES = 32 * 2**20


class Estimate(NamedTuple):
    """What an estimator says, and how sure it is.

    Attributes:
        name: of the estimator.
        value: expected reward of a round under the policy that is judged.
        standard_error: of ``value``; NaN where one unit alone was seen.
        low: lower end of the interval.
        high: upper end.
        num_rounds: rounds of the log it comes from.
    """

    name: str
    value: float
    standard_error: float
    low: float
    high: float
    num_rounds: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.5f} [{self.low:.5f}, {self.high:.5f}]"


def from_contributions(
    name: str,
    contribution: np.ndarray,
    *,
    unit: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """The mean of what every round contributes.

    ::

        value = mean_t c_t
        SE^2  = U / (U - 1) * sum_u (sum_{t of u} (c_t - value))^2 / n^2

    Without units every round is its own. The interval is that of Student's t with U - 1 degrees of
    freedom. Assumes independent units and a mean that is close to normal: few large contributions
    (a small effective sample size) make the interval too short.

    Args:
        name: of the estimator.
        contribution: [n] float64.
        unit: [n] integers, the same number for rounds of one unit. None: every round is one.
        level: share of repetitions in which the interval should hold the value, 0 < level < 1.

    Raises:
        ValueError: shapes disagree, no rounds, a value that is not finite, or ``level`` is out of
            range.

    Source: Liang and Zeger, Longitudinal data analysis using generalized linear models, 1986.
    """
    contribution = _column(contribution, "contribution")
    value = float(contribution.mean())
    return _with_interval(name, value, contribution - value, unit, level)


def ratio_estimate(
    name: str,
    numerator: np.ndarray,
    denominator: np.ndarray,
    *,
    unit: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """The ratio of two sums, by the delta method.

    ::

        value = sum_t a_t / sum_t b_t
        SE    = that of the mean of (a_t - value * b_t) / mean(b), clustered by unit

    Args:
        name: of the estimator.
        numerator: [n] float64 a.
        denominator: [n] float64 b; their sum is not 0.
        unit: [n] integers, see `from_contributions`.
        level: of the interval.

    Raises:
        ValueError: the denominators add up to 0, or as in `from_contributions`.

    Source: Deng, Knoblich and Lu, Applying the delta method in metric analytics, KDD 2018.
    """
    numerator = _column(numerator, "numerator")
    denominator = _column(denominator, "denominator")
    if numerator.shape != denominator.shape:
        raise ValueError(
            f"numerator and denominator must be [n] of one length, got {numerator.shape} and "
            f"{denominator.shape}"
        )
    mean = float(denominator.mean())
    if mean == 0.0:
        raise ValueError(
            f"denominator must not add up to 0, got {denominator.size} values that do; the policy "
            "gives no weight to any round of this log"
        )
    value = float(numerator.mean()) / mean
    return _with_interval(name, value, (numerator - value * denominator) / mean, unit, level)


class Contributions(NamedTuple):
    """An estimator on a log, before its interval: ``mean(plain) + sum(top) / sum(bottom)``.

    Attributes:
        name: of the estimator.
        plain: [n] float64.
        top: [n] float64; None where the estimator is a mean alone.
        bottom: [n] float64; None with ``top``.
    """

    name: str
    plain: np.ndarray
    top: np.ndarray | None = None
    bottom: np.ndarray | None = None

    @property
    def value(self) -> float:
        """The estimate without its interval."""
        mean = float(self.plain.mean())
        if self.top is None or self.bottom is None:
            return mean
        return mean + float(self.top.sum()) / float(self.bottom.sum())

    def estimate(self, *, unit: np.ndarray | None = None, level: float = 0.95) -> Estimate:
        """With the asymptotic interval; see `from_contributions` and `ratio_estimate`.

        Raises:
            ValueError: as in those.
        """
        if self.top is None or self.bottom is None:
            return from_contributions(self.name, self.plain, unit=unit, level=level)
        ratio = ratio_estimate(self.name, self.top, self.bottom, unit=unit, level=level)
        plain = _column(self.plain, "plain")
        mean = float(plain.mean())
        residual = (self.top - ratio.value * self.bottom) / self.bottom.mean() + plain - mean
        return _with_interval(self.name, mean + ratio.value, residual, unit, level)


def bootstrap_estimates(
    contributions: Sequence[Contributions],
    *,
    rng: np.random.Generator,
    unit: np.ndarray | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> list[Estimate]:
    """Percentile bootstrap of several estimators on one log, units drawn with replacement.

    All see the same draws. Where units have different numbers of rounds, so do the resamples. What
    was fitted to the log (a reward model) is not fitted again: the interval leaves out its error.

    Args:
        contributions: M estimators on the same n rounds.
        rng: the draws.
        unit: [n] integers, see `from_contributions`.
        resamples: >= 2. One without any weight counts for none.
        level: of the interval.

    Returns:
        M estimates; the standard error is that of the resampled values.

    Raises:
        ValueError: no rounds, shapes disagree, a value is not finite, or a setting is out of
            range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections 8.3 and 13.3.
    """
    if resamples < 2:
        raise ValueError(f"resamples must be >= 2, got {resamples}")
    _check_level(level)
    if not contributions:
        return []
    n = len(contributions[0].plain)
    ones = np.ones(n)
    columns: list[np.ndarray] = [ones]
    for one in contributions:
        top, bottom = (one.top, one.bottom) if one.top is not None else (np.zeros(n), ones)
        for part in (one.plain, top, bottom):
            column = _column(part if part is not None else ones, f"every part of {one.name!r}")
            if column.size != n:
                raise ValueError(
                    f"{one.name!r} must have {n} rounds like the first, got {len(column)}"
                )
            columns.append(column)
    rows = _unit_rows(unit, n)
    if rows is not None:
        columns = [np.bincount(rows, weights=column) for column in columns]
    sums = _resampled_sums(np.stack(columns, axis=1), rng, resamples)
    found = []
    for place, one in enumerate(contributions):
        plain, top, bottom = sums[:, 1 + 3 * place : 4 + 3 * place].T
        some = bottom != 0.0
        values = plain[some] / sums[some, 0] + top[some] / bottom[some]
        if values.size < 2:
            raise ValueError(f"{one.name!r} gives no weight to any round of this log")
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        value, error = one.value, float(values.std(ddof=1))
        found.append(
            Estimate(one.name, value, error, min(float(low), value), max(float(high), value), n)
        )
    return found


def _resampled_sums(values: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """[R, C] sums of the columns of ``values`` [U, C] over U drawn rows."""
    num_units = len(values)
    sums = np.empty((resamples, values.shape[1]))
    block = max(1, BLOCK_BYTES // (8 * num_units))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(num_units, size=(size, num_units))
        drawn += np.arange(size)[:, None] * num_units
        times = np.bincount(drawn.ravel(), minlength=size * num_units)
        sums[start : start + size] = times.reshape(size, num_units).astype(np.float64) @ values
    return sums


def _with_interval(
    name: str, value: float, residual: np.ndarray, unit: np.ndarray | None, level: float
) -> Estimate:
    """The estimate whose error is that of the mean of ``residual`` [n], which is 0."""
    _check_level(level)
    n = residual.size
    rows = _unit_rows(unit, n)
    totals = residual if rows is None else np.bincount(rows, weights=residual)
    units = totals.size
    if units < 2:
        return Estimate(name, value, float("nan"), float("-inf"), float("inf"), n)
    error = float(np.sqrt(units / (units - 1) * np.square(totals).sum())) / n
    half = float(stdtrit(units - 1, (1 + level) / 2)) * error
    return Estimate(name, value, error, value - half, value + half, n)


def _unit_rows(unit: np.ndarray | None, n: int) -> np.ndarray | None:
    """[n] numbers of units from 0 without gaps; None where every round is its own."""
    if unit is None:
        return None
    unit = np.asarray(unit)
    if unit.shape != (n,):
        raise ValueError(f"unit must be [n] with n = {n}, got shape {unit.shape}")
    rows: np.ndarray = np.unique(unit, return_inverse=True)[1]
    return rows


def _column(values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be [n] with n >= 1, got shape {values.shape}")
    bad = ~np.isfinite(values)
    if bad.any():
        raise ValueError(f"{name} must be finite: {int(bad.sum())} of {values.size} are not")
    return values


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
