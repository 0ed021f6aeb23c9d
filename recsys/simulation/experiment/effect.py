"""What an arm did to one metric, and the plain test at the end of an experiment."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from recsys.simulation.experiment.moments import linearised

__all__ = ["Effect", "normal_quantile", "ratio_effect", "two_sided_p", "welch", "welch_from"]


class Effect(NamedTuple):
    """An arm against the control on one metric.

    Attributes:
        control_mean: mean or ratio over the control's units.
        arm_mean: the same of the arm.
        difference: arm minus control.
        standard_error: of the difference.
        low: lower end of its interval.
        high: upper end.
        p: two-sided; the chance of so large a difference, or a larger one, if there were none.
        num_control: units of the control.
        num_arm: units of the arm.
        control_error: standard error of the control's mean.
    """

    control_mean: float
    arm_mean: float
    difference: float
    standard_error: float
    low: float
    high: float
    p: float
    num_control: int
    num_arm: int
    control_error: float

    def lift(self, *, level: float = 0.95) -> tuple[float, float, float]:
        """Difference over the control's mean, with its interval by the delta method.

        The variance of the lift is (v_a + (a / c)^2 v_c) / c^2. It is NaN where the control's
        mean is not clearly (4 standard errors) away from 0.

        Args:
            level: of the interval, 0 < level < 1.

        Returns:
            Lift, lower and upper end.
        """
        centre = self.control_mean
        if not abs(centre) > 4 * self.control_error:
            return math.nan, math.nan, math.nan
        arm_variance = max(self.standard_error**2 - self.control_error**2, 0.0)
        share = self.arm_mean / centre
        error = math.sqrt(arm_variance + share**2 * self.control_error**2) / abs(centre)
        half = normal_quantile(0.5 + level / 2) * error
        return share - 1, share - 1 - half, share - 1 + half


def welch(control: np.ndarray, arm: np.ndarray, *, level: float = 0.95) -> Effect:
    """Difference of two means, variances and sizes as they are (Welch).

    Assumes independent units, each counted once; approximate for few units of skewed values.

    Args:
        control: [n] float, one value for each unit of the control.
        arm: [m] float, one for each unit of the arm.
        level: of the interval, 0 < level < 1.

    Raises:
        ValueError: fewer than two units in an arm, a value that is not finite, or a level out of
            range.

    Source: Welch, Biometrika 34, 1947; degrees of freedom by Satterthwaite.
    """
    moments = []
    for name, values in (("control", control), ("arm", arm)):
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 1 or values.size < 2:
            raise ValueError(f"{name} must be [n] with n >= 2 units, got shape {values.shape}")
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{name} must be finite: {bad} of {values.size} units are not")
        moments.append((values.size, float(values.mean()), float(values.var(ddof=1))))
    return welch_from(moments[0], moments[1], level=level)


def welch_from(
    control: tuple[int, float, float], arm: tuple[int, float, float], *, level: float = 0.95
) -> Effect:
    """As `welch`, from the number of units, the mean and the variance of one unit of each arm.

    Where no unit differs from another in either arm the interval is the difference itself.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    from scipy.special import stdtr, stdtrit

    (n, mean_c, variance_c), (m, mean_a, variance_a) = control, arm
    part_c, part_a = variance_c / n, variance_a / m
    error = math.sqrt(part_c + part_a)
    gap = mean_a - mean_c
    if error > 0:
        freedom = (part_c + part_a) ** 2 / (part_c**2 / (n - 1) + part_a**2 / (m - 1))
        half = float(stdtrit(freedom, 0.5 + level / 2)) * error
        p = 2 * float(stdtr(freedom, -abs(gap) / error))
    else:
        half, p = 0.0, 1.0 if gap == 0 else 0.0
    return Effect(mean_c, mean_a, gap, error, gap - half, gap + half, p, n, m, math.sqrt(part_c))


def ratio_effect(
    control_numerator: np.ndarray,
    control_denominator: np.ndarray,
    arm_numerator: np.ndarray,
    arm_denominator: np.ndarray,
    *,
    level: float = 0.95,
) -> Effect:
    """Difference of two ratios of sums, such as clicks per view, clustered by unit.

    Args:
        control_numerator: [n] sum of each unit of the control.
        control_denominator: [n] the same of what stands below.
        arm_numerator: [m] of the arm.
        arm_denominator: [m] of the arm.
        level: of the interval.

    Raises:
        ValueError: as in `linearised` and `welch`.
    """
    return welch(
        linearised(control_numerator, control_denominator),
        linearised(arm_numerator, arm_denominator),
        level=level,
    )


def normal_quantile(share: float) -> float:
    """The value below which ``share`` of a standard normal lies, 0 < share < 1."""
    return NormalDist().inv_cdf(share)


def two_sided_p(z: float) -> float:
    """Chance that a standard normal is as far from 0 as ``z``."""
    return math.erfc(abs(z) / math.sqrt(2))
