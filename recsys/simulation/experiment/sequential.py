"""Reading an experiment while it runs: intervals that hold at all times at once.

The mixture test puts a normal weight of variance tau^2 on the effect. With a difference d and its
standard error s::

    Lambda = sqrt(s^2 / (s^2 + tau^2)) exp(d^2 tau^2 / (2 s^2 (s^2 + tau^2)))

The chance that Lambda ever passes 1 / alpha without an effect is at most alpha. For pairs with
variance V of one difference s^2 = V / n, and this is the usual sqrt(V / (V + n tau^2))
exp(n^2 tau^2 d^2 / (2 V (V + n tau^2))). Here s comes from two arms of any sizes, or from a ratio
by the delta method (`gap`), so the level holds asymptotically: begin to look once each arm has
`MIN_UNITS` units and several of the rare events, not before.

A unit counts once its value is complete. Values that grow after the unit was counted, such as a
user's clicks so far, are another sequence at every look; fix a window for each unit.

Source: Johari, Koomen, Pekelis and Walsh, Operations Research 70, 2022 (mSPRT, always valid p);
Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Annals of Statistics 52, 2024, theorem 2.2 and
appendix B.2 (asymptotic confidence sequences and the choice of their parameter).
"""

from __future__ import annotations

import math

import numpy as np

from recsys.simulation.experiment.effect import normal_quantile

__all__ = [
    "MIN_UNITS",
    "always_valid_p",
    "choose_tau",
    "confidence_sequence",
    "log_likelihood_ratio",
    "margin",
    "planned_error",
]

MIN_UNITS = 100
"""Fewest units of an arm at the first look."""


def log_likelihood_ratio(
    difference: np.ndarray | float, standard_error: np.ndarray | float, *, tau: float
) -> np.ndarray:
    """Log Lambda of the mixture test of no effect; reject where it is >= log(1 / alpha).

    Args:
        difference: of two arms, [...].
        standard_error: of each, [...]; NaN or 0 (nothing varies yet) gives 0.
        tau: > 0, fixed before the first look (`choose_tau`).

    Returns:
        [...] float64.

    Raises:
        ValueError: tau is not positive.
    """
    ratio, squared = _parts(standard_error, tau)
    with np.errstate(invalid="ignore", divide="ignore"):
        z2 = np.asarray(difference, dtype=np.float64) ** 2 / squared
        found = 0.5 * (z2 * ratio / (1 + ratio) - np.log1p(ratio))
    return np.where(squared > 0, found, 0.0)


def always_valid_p(difference: np.ndarray, standard_error: np.ndarray, *, tau: float) -> np.ndarray:
    """p-values that may be read at every look: the smallest 1 / Lambda so far, at most 1.

    Args:
        difference: [..., L] at each look, earliest first.
        standard_error: [..., L].
        tau: > 0, fixed before the first look.

    Returns:
        [..., L] float64, never rising along the looks.
    """
    log_ratio = log_likelihood_ratio(difference, standard_error, tau=tau)
    return np.exp(-np.maximum(np.maximum.accumulate(log_ratio, axis=-1), 0.0))


def confidence_sequence(
    difference: np.ndarray | float,
    standard_error: np.ndarray | float,
    *,
    tau: float,
    alpha: float = 0.05,
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that hold the true difference at all looks together with chance 1 - alpha.

    0 is outside at a look exactly where Lambda >= 1 / alpha there.

    Args:
        difference: [...].
        standard_error: [...]; NaN or 0 gives an interval without ends.
        tau: > 0, fixed before the first look.
        alpha: 0 < alpha < 1.

    Returns:
        Lower and upper ends, [...] float64.

    Raises:
        ValueError: tau or alpha is out of range.
    """
    half = margin(standard_error, tau=tau, alpha=alpha)
    centre = np.asarray(difference, dtype=np.float64)
    return centre - half, centre + half


def margin(standard_error: np.ndarray | float, *, tau: float, alpha: float = 0.05) -> np.ndarray:
    """Half the width of `confidence_sequence`.

    s sqrt((s^2 + tau^2) / tau^2 (2 log(1 / alpha) + log((s^2 + tau^2) / s^2))).
    """
    _check_alpha(alpha)
    ratio, squared = _parts(standard_error, tau)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.sqrt(squared * (1 + 1 / ratio) * (np.log1p(ratio) - 2 * math.log(alpha)))
    return np.where(squared > 0, half, np.inf)


def choose_tau(planned_standard_error: float, *, alpha: float = 0.05) -> float:
    """Tau that makes the interval narrowest when the planned number of units has come.

    It must not be chosen from the running experiment's effect. The rule solves w - log w =
    1 + 2 log(1 / alpha) and gives tau = s sqrt(w - 1), which for alpha .05 is 2.9 standard errors:
    nearly the effect (2.8) that a fixed test of power .8 is planned for. So with a planned effect
    and no plan of units, tau is that effect.

    Args:
        planned_standard_error: of the difference at the planned end, > 0 (`planned_error`).
        alpha: 0 < alpha < 1.

    Raises:
        ValueError: a value is out of range.
    """
    _check_alpha(alpha)
    if not 0 < planned_standard_error < math.inf:
        raise ValueError(f"planned_standard_error must be > 0, got {planned_standard_error}")
    target = 1 - 2 * math.log(alpha)
    w = target + math.log(target)
    for _ in range(100):  # a contraction with factor 1 / w < 1
        w = target + math.log(w)
    return planned_standard_error * math.sqrt(w - 1)


def planned_error(
    effect: float, variances: tuple[float, float], *, alpha: float = 0.05, power: float = 0.8
) -> tuple[float, float]:
    """What a sequential test needs at its planned end to have found an effect by then.

    Args:
        effect: absolute, not 0.
        variances: of one unit of the control and of the arm, for two equal arms.
        alpha: 0 < alpha < 1.
        power: at the planned end at least; crossings before add to it.

    Returns:
        Standard error at the planned end, and units of each arm. A fixed test needs fewer; this
        one ends early where the effect is larger.

    Raises:
        ValueError: a value is out of range.
    """
    _check_alpha(alpha)
    if effect == 0 or not 0 < power < 1:
        raise ValueError(f"effect must not be 0 and power be in 0..1, got {effect} and {power}")
    # The margin at the end is a fixed number of standard errors whatever their size.
    half = float(margin(1.0, tau=choose_tau(1.0, alpha=alpha), alpha=alpha))
    error = abs(effect) / (half + normal_quantile(power))
    return error, math.ceil(sum(variances) / error**2)


def _parts(standard_error: np.ndarray | float, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """tau^2 / s^2, and s^2."""
    if not 0 < tau < math.inf:
        raise ValueError(f"tau must be > 0, got {tau}; see choose_tau")
    squared = np.asarray(standard_error, dtype=np.float64) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return tau**2 / squared, squared


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be above 0 and below 1, got {alpha}")
