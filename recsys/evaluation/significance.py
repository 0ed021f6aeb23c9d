"""How sure a mean over users is, and whether two systems really differ."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Difference", "Interval", "bootstrap_mean", "bootstrap_means", "paired_difference"]

# Memory of one array over a block of draws, [block, U] of 8 bytes; three of them live at once.
BLOCK_BYTES = 32 * 2**20


class Interval(NamedTuple):
    """A mean over users and the range that holds it.

    Attributes:
        mean: of the users' values.
        low: lower end of the interval.
        high: upper end.
        users: how many values the mean is over.
    """

    mean: float
    low: float
    high: float
    users: int

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


class Difference(NamedTuple):
    """Mean of system a minus that of system b over the same users.

    Attributes:
        mean: of the users' differences; above 0 where a is better.
        low: lower end of its interval.
        high: upper end.
        p: two-sided; the chance of so large a difference, or a larger one, if there were none.
        users: how many users both were judged on.
    """

    mean: float
    low: float
    high: float
    p: float
    users: int


def bootstrap_means(
    values: np.ndarray, *, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> list[Interval]:
    """Percentile bootstrap intervals of several means over the same users.

    Users are drawn with replacement; all columns see the same draws. Of one user there is nothing
    to draw from: the interval is the value itself.

    Args:
        values: [U, M] float, one row per user, U >= 1.
        rng: the draws.
        resamples: number of draws of U users, >= 1.
        level: share of the resampled means the interval holds, 0 < level < 1.

    Returns:
        M intervals.

    Raises:
        ValueError: no users, a value that is not finite, or a setting out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"values must be [U, M], got shape {values.shape}")
    means = _resampled_means(values, rng, resamples, level)  # [R, M]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    centre = values.mean(axis=0)
    # Rounding in the weighted sums may put the mean of equal values a bit outside.
    low, high = np.minimum(low, centre), np.maximum(high, centre)
    users = values.shape[0]
    return [
        Interval(float(m), float(lo), float(hi), users)
        for m, lo, hi in zip(centre, low, high, strict=True)
    ]


def bootstrap_mean(
    values: np.ndarray, *, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean of ``values`` [U]; see `bootstrap_means`.

    Raises:
        ValueError: not flat, or as in `bootstrap_means`.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values must be [U], one per user, got shape {values.shape}")
    return bootstrap_means(values[:, None], rng=rng, resamples=resamples, level=level)[0]


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    rng: np.random.Generator,
    resamples: int = 10_000,
    level: float = 0.95,
) -> Difference:
    """Bootstrap of the mean of a - b over the same users.

    p inverts the percentile interval: twice the smaller share of resampled means on either side
    of zero (those at zero count for both, plus one of each for the data themselves), at most 1.
    It is below 1 - level just where the interval leaves out zero, up to the resolution of the
    resamples.

    Args:
        a: [U] values of system a.
        b: [U] values of system b, of the same users in the same order.
        rng: the draws.
        resamples: number of draws of U users, >= 1; p is at least 2 / (resamples + 1).
        level: of the interval, 0 < level < 1.

    Raises:
        ValueError: not two flat arrays of one length, or as in `bootstrap_means`.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections 13.3 and 15.4.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(
            f"a and b must be [U] values of the same users, got shapes {a.shape} and {b.shape}"
        )
    gap = a - b
    means = _resampled_means(gap[:, None], rng, resamples, level)[:, 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    below, above = (means <= 0).sum() + 1, (means >= 0).sum() + 1
    p = min(1.0, 2.0 * float(min(below, above)) / (resamples + 1))
    mean = float(gap.mean())
    return Difference(mean, min(float(low), mean), max(float(high), mean), p, gap.size)


def _resampled_means(
    values: np.ndarray, rng: np.random.Generator, resamples: int, level: float
) -> np.ndarray:
    """[R, M] means of ``resamples`` draws of U rows of ``values`` [U, M]."""
    if resamples < 1:
        raise ValueError(f"resamples must be >= 1, got {resamples}")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    num_users = values.shape[0]
    if num_users == 0:
        raise ValueError("values must hold at least one user; nobody has a relevant item")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"values must be finite: {int(bad.sum())} of {num_users} users are not")
    means = np.empty((resamples, values.shape[1]))
    block = max(1, BLOCK_BYTES // (8 * num_users))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(num_users, size=(size, num_users))
        drawn += np.arange(size)[:, None] * num_users
        times = np.bincount(drawn.ravel(), minlength=size * num_users)
        weight = times.reshape(size, num_users).astype(np.float64)  # how often each user came
        means[start : start + size] = weight @ values / num_users
    return means
