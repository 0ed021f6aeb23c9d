"""Whether units reached the arms in the shares that were planned (sample-ratio mismatch).

A mismatch means that what is compared is not what was assigned: a lost log, a redirect that fails,
a bot filter that sees the arm. No effect of such an experiment can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from recsys.simulation.experiment.multiple import holm

__all__ = ["SampleRatio", "sample_ratio", "sample_ratio_by_slice", "sample_ratio_p"]

ALARM = 0.001
# The chi-square distribution is close from five expected units an arm on (Cochran 1954).
MIN_EXPECTED = 5.0


class SampleRatio(NamedTuple):
    """Counts against the plan.

    Attributes:
        counts: units of each arm.
        expected: units of each arm by the planned shares.
        chi_square: sum of (count - expected)^2 / expected.
        p: chance of so large a value, or a larger one, under the plan; adjusted where several
            slices were looked at. NaN where an arm expects too few units to say.
        alarm: p is below the alarm level.
    """

    counts: tuple[int, ...]
    expected: tuple[float, ...]
    chi_square: float
    p: float
    alarm: bool


def sample_ratio_p(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """p-values of many tables at once.

    Args:
        counts: [..., A] units of each arm.
        shares: [A] planned, > 0; divided by their sum.

    Returns:
        [...] float64, chi-square with A - 1 degrees of freedom; 1 where there are no units.

    Raises:
        ValueError: shapes disagree, a count is negative, or a share is not above 0.
    """
    found, planned = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if planned.ndim != 1 or planned.size < 2 or found.shape[-1:] != planned.shape:
        raise ValueError(
            f"counts must be [..., A] and shares [A] with A >= 2 arms, got shapes {found.shape} "
            f"and {planned.shape}"
        )
    if not (planned > 0).all() or (found < 0).any():
        raise ValueError(f"shares must be > 0 and counts >= 0, got shares {planned}")
    from scipy.special import chdtrc

    return np.asarray(chdtrc(planned.size - 1, _chi_square(found, planned)[0]))


def sample_ratio(
    counts: Mapping[str, int], shares: Mapping[str, float], *, alarm: float = ALARM
) -> SampleRatio:
    """Chi-square of the arms' counts against the planned split.

    Args:
        counts: units of each arm; an arm that is not there has 0.
        shares: planned, > 0, of each arm.
        alarm: level below which the experiment is not to be read.

    Raises:
        ValueError: an arm was not planned, or as in `sample_ratio_p`.

    Source: Fabijan et al., KDD 2019 (diagnosing sample ratio mismatch).
    """
    unknown = sorted(set(counts) - set(shares))
    if unknown:
        raise ValueError(
            f"counts must be of planned arms ({', '.join(shares)}), got {', '.join(unknown)} too"
        )
    found = np.array([counts.get(name, 0) for name in shares], dtype=np.float64)
    planned = np.array(list(shares.values()), dtype=np.float64)
    p = float(sample_ratio_p(found, planned))
    chi_square, expected = _chi_square(found, planned)
    if expected.min() < MIN_EXPECTED:
        p = float("nan")
    return SampleRatio(
        tuple(int(count) for count in found),
        tuple(float(one) for one in expected),
        float(chi_square),
        p,
        p < alarm,
    )


def sample_ratio_by_slice(
    arm: np.ndarray, part: np.ndarray, shares: Mapping[str, float], *, alarm: float = ALARM
) -> dict[str, SampleRatio]:
    """The check in each slice, p-values adjusted by Holm over the slices.

    A mismatch in one slice, such as one platform, tells where to look. Slices must not follow
    from the arm.

    Args:
        arm: [n] names of arms.
        part: [n] names of slices.
        shares: planned, of each arm.
        alarm: level.

    Raises:
        ValueError: as in `sample_ratio`, or the arrays differ in length.
    """
    arm, part = np.asarray(arm), np.asarray(part)
    if arm.shape != part.shape:
        raise ValueError(f"arm and part must be [n], got shapes {arm.shape} and {part.shape}")
    found: dict[str, SampleRatio] = {}
    for name in np.unique(part):
        names, counts = np.unique(arm[part == name], return_counts=True)
        table = {str(one): int(count) for one, count in zip(names, counts, strict=True)}
        found[str(name)] = sample_ratio(table, shares, alarm=alarm)
    able = [name for name, one in found.items() if not np.isnan(one.p)]
    adjusted = holm(np.array([found[name].p for name in able]))
    for name, p in zip(able, adjusted, strict=True):
        found[name] = found[name]._replace(p=float(p), alarm=bool(p < alarm))
    return found


def _chi_square(found: np.ndarray, planned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    expected = found.sum(axis=-1, keepdims=True) * (planned / planned.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = np.where(expected > 0, (found - expected) ** 2 / expected, 0.0)
    return parts.sum(axis=-1), expected
