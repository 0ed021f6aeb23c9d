"""Several questions at once: p-values that keep their meaning.

For the false share among what is told, `scipy.stats.false_discovery_control` serves.
"""

from __future__ import annotations

import numpy as np

__all__ = ["dunnett", "dunnett_critical", "holm", "many_to_one_loadings"]

# A trapezoid rule on a normal weight: steps of .05 hold it to 1e-12 unless a loading nears 1.
_GRID = np.linspace(-8.5, 8.5, 341)


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p-values; all of them below alpha are false with chance <= alpha together.

    Holds under any dependence. p_(i) becomes the largest of (m - j + 1) p_(j) over j <= i.

    Args:
        p: [m] in 0..1.

    Returns:
        [m] in 0..1, in the order of ``p``.

    Raises:
        ValueError: not flat, or a value outside 0..1.

    Source: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"p must be [m] values in 0..1, got {values}")
    order = np.argsort(values, kind="stable")
    factors = values.size - np.arange(values.size)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return adjusted


def many_to_one_loadings(control_variance: float, arm_variances: np.ndarray) -> np.ndarray:
    """How much each comparison leans on the shared control: sqrt(v_c / (v_c + v_i)).

    Two comparisons i and j have correlation b_i b_j. With equal arms it is 1/2.

    Args:
        control_variance: of the control's mean, > 0.
        arm_variances: [m] of the arms' means, > 0.
    """
    loadings: np.ndarray = np.sqrt(
        control_variance / (control_variance + np.asarray(arm_variances, dtype=np.float64))
    )
    return loadings


def dunnett(z: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Adjusted two-sided p-values of several arms against one control.

    1 - P(max |Z_j| <= |z_i|), Z normal with correlations b_i b_j: less strict than Bonferroni,
    since all comparisons share the control. For many units (normal instead of t).

    Args:
        z: [m] differences over their standard errors.
        loadings: [m] from `many_to_one_loadings`.

    Returns:
        [m] in 0..1.

    Raises:
        ValueError: the shapes differ, or a loading is outside 0 <= b < 1.

    Source: Dunnett, JASA 50, 1955; the one-dimensional integral is from Dunnett and Sobel, 1955.
    """
    b = _loadings(loadings)
    z = np.asarray(z, dtype=np.float64)
    if z.shape != b.shape:
        raise ValueError(f"z and loadings must have one shape, got {z.shape} and {b.shape}")
    return np.clip(1.0 - _inside(np.abs(z), b), 0.0, 1.0)


def dunnett_critical(loadings: np.ndarray, *, alpha: float = 0.05, sides: int = 2) -> float:
    """The value that max |Z|, or for one side max Z, passes with chance ``alpha``; see `dunnett`.

    Args:
        loadings: [m], one for each arm beside the control.
        alpha: 0 < alpha < 1.
        sides: 1 or 2.

    Raises:
        ValueError: alpha or a loading is out of range.
    """
    b = _loadings(loadings)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be above 0 and below 1, got {alpha}")
    low, high = 0.0, 12.0
    for _ in range(48):
        middle = (low + high) / 2
        if 1.0 - float(_inside(np.array([middle]), b, sides)[0]) > alpha:
            low = middle
        else:
            high = middle
    return high


def _inside(limits: np.ndarray, b: np.ndarray, sides: int = 2) -> np.ndarray:
    """[L] chance that all |Z_j| <= limit, or for one side all Z_j <= limit."""
    from scipy.special import ndtr

    shift = _GRID[:, None] * b  # [G, m]
    rest = np.sqrt(1.0 - b**2)
    weight = np.exp(-(_GRID**2) / 2) * (_GRID[1] - _GRID[0]) / np.sqrt(2 * np.pi)
    chances = np.empty(limits.size)
    for place, limit in enumerate(limits):
        each = ndtr((limit - shift) / rest)  # [G, m]
        if sides == 2:
            each = each - ndtr((-limit - shift) / rest)
        chances[place] = weight @ each.prod(axis=1)
    return chances


def _loadings(values: np.ndarray) -> np.ndarray:
    b = np.asarray(values, dtype=np.float64)
    if b.ndim != 1 or b.size == 0 or not np.all((b >= 0) & (b < 1)):
        raise ValueError(f"loadings must be [m] in 0 <= b < 1, got {b}")
    return b
