"""Effects in slices of the units, pulled together as far as chance explains their spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.simulation.experiment.effect import normal_quantile

__all__ = ["Shrunk", "heterogeneity_p", "shrink"]


class Shrunk(NamedTuple):
    """Effects of slices after shrinkage.

    Attributes:
        mean: of the slices' true effects, weighted by what is known of each.
        spread: standard deviation of the true effects beyond chance; 0: chance explains all.
        value: [S] effects.
        low: [S] lower ends of their intervals.
        high: [S] upper ends.
        weight: [S] how much of each slice's own effect stays, 0..1.
        heterogeneity_p: chance of so different effects, or more different ones, if all were equal.
    """

    mean: float
    spread: float
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    heterogeneity_p: float


def shrink(effect: np.ndarray, standard_error: np.ndarray, *, level: float = 0.95) -> Shrunk:
    """Empirical-Bayes estimates of the effects in slices.

    d_i ~ N(theta_i, s_i^2), theta_i ~ N(mu, A). A solves sum (d_i - mu)^2 / (s_i^2 + A) = S - 1
    (0 where that has no solution), and theta_i = (1 - B_i) d_i + B_i mu with
    B_i = (S - 3) / (S - 1) s_i^2 / (s_i^2 + A). The variance is
    s_i^2 (1 - B_i (S - 1) / S) + 2 / (S - 3) B_i^2 (d_i - mu)^2 (v + A) / (s_i^2 + A), v the mean
    s_i^2: it counts that mu and A are estimated. Three slices or fewer stay as they are.

    The best of many slices is mostly luck, and shrinkage takes most of the luck away.

    Args:
        effect: [S] differences, such as of an arm against the control in each slice.
        standard_error: [S], > 0.
        level: of the intervals, 0 < level < 1.

    Raises:
        ValueError: shapes disagree, no slice, a value that is not finite, or an error not above 0.

    Source: Morris, JASA 78, 1983, section 5; Paule and Mandel, 1982 (the equation for A).
    """
    d = np.asarray(effect, dtype=np.float64)
    s2 = np.asarray(standard_error, dtype=np.float64) ** 2
    if d.ndim != 1 or d.size == 0 or d.shape != s2.shape:
        raise ValueError(
            "effect and standard_error must be [S] with S >= 1, got shapes "
            f"{d.shape} and {s2.shape}"
        )
    if not (np.isfinite(d).all() and np.isfinite(s2).all() and (s2 > 0).all()):
        raise ValueError("effect must be finite and standard_error > 0 in every slice")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    size = d.size
    between = _between(d, s2)
    centre = _centre(d, s2, between)
    pull = np.zeros(size)
    variance = s2.copy()
    if size > 3:
        pull = (size - 3) / (size - 1) * s2 / (s2 + between)
        variance = s2 * (1 - pull * (size - 1) / size)
        wide = (s2.mean() + between) / (s2 + between)
        variance += 2 / (size - 3) * pull**2 * (d - centre) ** 2 * wide
    value = (1 - pull) * d + pull * centre
    half = normal_quantile(0.5 + level / 2) * np.sqrt(variance)
    return Shrunk(
        centre,
        float(np.sqrt(between)),
        value,
        value - half,
        value + half,
        1 - pull,
        heterogeneity_p(d, np.sqrt(s2)),
    )


def heterogeneity_p(effect: np.ndarray, standard_error: np.ndarray) -> float:
    """Cochran's Q: chance of so different effects, or more different ones, if all were equal.

    Args:
        effect: [S].
        standard_error: [S], > 0.

    Returns:
        From chi-square with S - 1 degrees of freedom; 1 for a single slice.

    Source: Cochran, Biometrics 10, 1954.
    """
    d = np.asarray(effect, dtype=np.float64)
    s2 = np.asarray(standard_error, dtype=np.float64) ** 2
    if d.size < 2:
        return 1.0
    from scipy.special import chdtrc

    return float(chdtrc(d.size - 1, ((d - _centre(d, s2, 0.0)) ** 2 / s2).sum()))


def _centre(d: np.ndarray, s2: np.ndarray, between: float) -> float:
    weight = 1 / (s2 + between)
    return float((weight * d).sum() / weight.sum())


def _between(d: np.ndarray, s2: np.ndarray) -> float:
    def excess(between: float) -> float:
        gap = d - _centre(d, s2, between)
        return float((gap**2 / (s2 + between)).sum()) - (d.size - 1)

    if d.size < 2 or excess(0.0) <= 0:
        return 0.0
    low, high = 0.0, float(d.var() * d.size + s2.max())
    for _ in range(80):
        middle = (low + high) / 2
        if excess(middle) > 0:
            low = middle
        else:
            high = middle
    return high
