"""How many units, and how many days, an experiment needs before it is worth starting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from recsys.lookup import lookup
from recsys.simulation.experiment.effect import normal_quantile
from recsys.simulation.experiment.multiple import dunnett_critical, many_to_one_loadings
from recsys.simulation.experiment.sequential import choose_tau, margin

__all__ = [
    "Design",
    "Plan",
    "days_needed",
    "detectable_effect",
    "plan_mean",
    "plan_proportion",
    "plan_ratio",
    "power_at",
]

Correction = Literal["dunnett", "bonferroni", "none"]


@dataclass(frozen=True, slots=True)
class Design:
    """How an experiment will be run and read.

    Attributes:
        shares: of the units, control first; they are divided by their sum.
        alpha: chance of a false alarm over all arms together.
        power: chance to find the effect in each arm that has it.
        sides: 2, or 1 where only one direction counts.
        correction: for several arms against the control: "dunnett", "bonferroni" or "none".
        covariate_correlation: of the metric with what is known before exposure (CUPED); it
            leaves 1 - rho^2 of the variance.

    Raises:
        ValueError: a value is out of range.
    """

    shares: tuple[float, ...] = (0.5, 0.5)
    alpha: float = 0.05
    power: float = 0.8
    sides: int = 2
    correction: Correction = "dunnett"
    covariate_correlation: float = 0.0

    def __post_init__(self) -> None:
        if len(self.shares) < 2 or not all(0 < share < math.inf for share in self.shares):
            raise ValueError(
                f"shares must be > 0 for the control and at least one arm, got {self.shares}"
            )
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must be above 0 and below 0.5, got {self.alpha}")
        if not self.alpha < self.power < 1:
            raise ValueError(f"power must be above alpha and below 1, got {self.power}")
        if self.sides not in (1, 2):
            raise ValueError(f"sides must be 1 or 2, got {self.sides}")
        if not -1 < self.covariate_correlation < 1:
            raise ValueError(
                "covariate_correlation must be above -1 and below 1, got "
                f"{self.covariate_correlation}"
            )
        lookup(_CRITICAL, self.correction, "correction")

    @property
    def parts(self) -> np.ndarray:
        """[A] shares that sum to 1."""
        shares = np.asarray(self.shares, dtype=np.float64)
        parts: np.ndarray = shares / shares.sum()
        return parts

    @property
    def variance_left(self) -> float:
        """Share of the variance that CUPED leaves."""
        return 1.0 - self.covariate_correlation**2

    def critical(self) -> float:
        """The value that a difference over its standard error must pass."""
        return lookup(_CRITICAL, self.correction, "correction")(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an experiment needs.

    Attributes:
        baseline: the control's mean, rate or ratio.
        effect: absolute difference that is to be found.
        design: how it will be run and read.
        variances: of one unit of the control and of one of an arm, after CUPED.
        units: of each arm, control first.
        critical: value that a difference over its standard error must pass.
    """

    baseline: float
    effect: float
    design: Design
    variances: tuple[float, float]
    units: tuple[int, ...]
    critical: float

    @property
    def lift(self) -> float:
        """The effect over the baseline; NaN for a baseline of 0."""
        return self.effect / self.baseline if self.baseline else math.nan

    @property
    def total(self) -> int:
        """Units of all arms."""
        return sum(self.units)

    @property
    def sequential_units(self) -> tuple[int, ...]:
        """Of each arm, where the experiment is read while it runs (two-sided).

        With the confidence sequence, and Bonferroni over the arms; as many as find the effect by
        the end with the design's power. It ends earlier where the effect is larger.
        """
        alpha = self.design.alpha / (len(self.units) - 1)
        half = float(margin(1.0, tau=choose_tau(1.0, alpha=alpha), alpha=alpha))
        found = normal_quantile(self.design.power)
        times = ((half + found) / (self.critical + found)) ** 2
        return tuple(math.ceil(units * times) for units in self.units)

    def power_for(self, effect: float, *, share: float = 1.0) -> float:
        """Chance to find another effect, in the smallest arm.

        Args:
            effect: absolute.
            share: of the planned units that came, > 0.
        """
        control, arm = self.units[0] * share, min(self.units[1:]) * share
        error = math.sqrt(self.variances[0] / control + self.variances[1] / arm)
        return float(power_at(effect, error, critical=self.critical, sides=self.design.sides))


def plan_proportion(
    baseline: float, lift: float, *, design: Design | None = None, variances: int = 1
) -> Plan:
    """Units to find a relative change of a rate, such as the share of users who buy.

    Per arm, at equal shares: (z_{1-a/2} + z_{power})^2 (v_c + v_a) / (baseline lift)^2, with
    v = p (1 - p).

    Args:
        baseline: rate of the control, above 0 and below 1.
        lift: relative, not 0: 0.05 is five percent up.
        design: None: two equal arms, alpha .05 two-sided, power .8.
        variances: 1: the baseline's in both arms, as the test under no effect has it; 2: each
            arm's own, which a lift makes a bit larger.

    Raises:
        ValueError: a value is out of range.

    Source: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions, 2003, section
    4.3, without continuity correction. p .05, lift 5%: 119,303 per arm.
    """
    raised = baseline * (1 + lift)
    if not 0 < baseline < 1 or not 0 < raised < 1:
        raise ValueError(
            f"baseline and baseline * (1 + lift) must be above 0 and below 1, got {baseline} and "
            f"{raised:g}; a mean that is no rate is planned with plan_mean"
        )
    if variances not in (1, 2):
        raise ValueError(f"variances must be 1 or 2, got {variances}")
    control = baseline * (1 - baseline)
    arm = control if variances == 1 else raised * (1 - raised)
    return _plan(baseline, lift, control, arm, design)


def plan_mean(
    mean: float, standard_deviation: float, lift: float, *, design: Design | None = None
) -> Plan:
    """Units to find a relative change of a mean, such as the sum spent per user.

    Args:
        mean: of the control, not 0.
        standard_deviation: of one unit, > 0; an estimate from earlier weeks.
        lift: relative, not 0.
        design: None: two equal arms, alpha .05 two-sided, power .8.

    Raises:
        ValueError: a value is out of range.
    """
    if not standard_deviation > 0 or mean == 0:
        raise ValueError(
            f"mean must not be 0 and standard_deviation must be > 0, got {mean} and "
            f"{standard_deviation}"
        )
    return _plan(mean, lift, standard_deviation**2, standard_deviation**2, design)


def plan_ratio(
    numerator: np.ndarray, denominator: np.ndarray, lift: float, *, design: Design | None = None
) -> Plan:
    """Units to find a relative change of a ratio of sums, such as clicks per view.

    The variance is that of the delta method over earlier units (`linearised`).

    Args:
        numerator: [n] of earlier units, each unit's sum; n >= 2.
        denominator: [n] of the same units.
        lift: relative, not 0.
        design: None: two equal arms, alpha .05 two-sided, power .8.

    Raises:
        ValueError: a value is out of range.
    """
    from recsys.simulation.experiment.moments import linearised

    values = linearised(numerator, denominator)
    if values.size < 2:
        raise ValueError(f"numerator must be [n] of n >= 2 earlier units, got {values.size}")
    variance = float(values.var(ddof=1))
    return plan_mean(float(values.mean()), math.sqrt(variance), lift, design=design)


def power_at(
    effect: ArrayLike,
    standard_error: ArrayLike,
    *,
    critical: float = 1.959963984540054,
    sides: int = 2,
) -> np.ndarray:
    """Chance that a difference passes ``critical`` standard errors.

    Phi(d / s - z), and for two sides Phi(-d / s - z) as well. Broadcasts, so a power curve is one
    call.

    Args:
        effect: true difference.
        standard_error: of the estimated one, > 0.
        critical: value to pass, see `Design.critical`.
        sides: 2, or 1: above alone.
    """
    from scipy.special import ndtr

    z = np.asarray(effect, dtype=np.float64) / np.asarray(standard_error, dtype=np.float64)
    chance = ndtr(z - critical)
    return np.asarray(chance + ndtr(-z - critical) if sides == 2 else chance)


def detectable_effect(
    units: tuple[int, ...], variance: float, *, design: Design | None = None
) -> float:
    """Smallest absolute effect that so many units find with the design's power.

    Args:
        units: of each arm, control first; they stand for the design's shares.
        variance: of one unit, > 0, before CUPED.
        design: of which alpha, power, sides, correction and correlation are used.

    Raises:
        ValueError: a value is out of range.
    """
    chosen = design or Design()
    chosen = Design(
        tuple(float(count) for count in units),
        chosen.alpha,
        chosen.power,
        chosen.sides,
        chosen.correction,
        chosen.covariate_correlation,
    )
    if not variance > 0:
        raise ValueError(f"variance must be > 0, got {variance}")
    need = chosen.critical() + normal_quantile(chosen.power)
    left = variance * chosen.variance_left
    return need * math.sqrt(left / units[0] + left / min(units[1:]))


def days_needed(
    total: int, units_per_day: float, *, traffic: float = 1.0, whole_weeks: bool = True
) -> int:
    """Days until so many new units came.

    Args:
        total: units of all arms.
        units_per_day: new ones, not returning ones; > 0. Fewer are new every day: take the mean
            over the weeks an earlier experiment ran.
        traffic: share of them that takes part, above 0 and at most 1.
        whole_weeks: round up to weeks, so that every weekday counts alike.

    Raises:
        ValueError: a value is out of range.
    """
    if not units_per_day > 0:
        raise ValueError(f"units_per_day must be > 0, got {units_per_day}")
    if not 0 < traffic <= 1:
        raise ValueError(f"traffic must be above 0 and at most 1, got {traffic}")
    days = math.ceil(total / (units_per_day * traffic))
    return -(-days // 7) * 7 if whole_weeks else days


def _plan(baseline: float, lift: float, control: float, arm: float, design: Design | None) -> Plan:
    if lift == 0 or not math.isfinite(lift):
        raise ValueError(f"lift must be a number other than 0, got {lift}")
    chosen = design or Design()
    parts = chosen.parts
    control, arm = control * chosen.variance_left, arm * chosen.variance_left
    critical, effect = chosen.critical(), baseline * lift
    # Every arm must find the effect, so the smallest one decides.
    spread = control / parts[0] + arm / parts[1:].min()
    total = (critical + normal_quantile(chosen.power)) ** 2 * spread / effect**2
    units = tuple(max(2, math.ceil(total * part - 1e-9)) for part in parts)
    return Plan(baseline, effect, chosen, (control, arm), units, critical)


def _single(design: Design) -> float:
    return normal_quantile(1 - design.alpha / design.sides)


def _bonferroni(design: Design) -> float:
    arms = len(design.shares) - 1
    return normal_quantile(1 - design.alpha / (design.sides * arms))


def _dunnett(design: Design) -> float:
    if len(design.shares) == 2:
        return _single(design)
    parts = design.parts
    loadings = many_to_one_loadings(1 / parts[0], 1 / parts[1:])
    return dunnett_critical(loadings, alpha=design.alpha, sides=design.sides)


_CRITICAL = {"dunnett": _dunnett, "bonferroni": _bonferroni, "none": _single}
