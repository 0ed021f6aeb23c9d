"""What a model loses as it gets older, against a fresh one in the same windows for the same users.

Easy and hard weeks come alike to both, so they cancel. Windows count alike, however many users they
have; an interval draws users with all of their windows, since what one user does in two weeks is
not two independent answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from features.moments import duration_text
from recsys.backtest.origins import Measured
from recsys.evaluation import Difference, paired_difference

__all__ = ["Loss", "Spread", "advice", "losses", "spread"]

Pair = tuple[int, int]
"""Numbers of an origin and of a window, which is that of the same origin or of a later one."""


class Spread(NamedTuple):
    """A metric over the origins, each in its own window.

    Attributes:
        mean: of the origins, which count alike.
        deviation: standard deviation over the origins; None of a single one.
        smallest: of the origins.
        largest: of the origins.
        origins: how many have it.
    """

    mean: float
    deviation: float | None
    smallest: float
    largest: float
    origins: int


class Loss(NamedTuple):
    """A metric of models of one age beside that of fresh ones.

    Attributes:
        age: in steps from one origin to the next.
        windows: in which both were asked.
        aged: mean over the windows, of the older models.
        fresh: the same of the models that were new in them.
        difference: aged minus fresh, with its interval; of how many different users.
    """

    age: int
    windows: int
    aged: float
    fresh: float
    difference: Difference

    @property
    def share(self) -> float | None:
        """The older models' part of what the fresh ones reach; None where these reach nothing."""
        return self.aged / self.fresh if self.fresh else None


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of one value an origin; one or more."""
    found = np.asarray(values, dtype=np.float64)
    deviation = float(found.std(ddof=1)) if found.size > 1 else None
    return Spread(
        float(found.mean()), deviation, float(found.min()), float(found.max()), found.size
    )


def losses(
    measured: Mapping[Pair, Measured],
    system: str,
    column: int,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> list[Loss]:
    """What a system loses at each age above 0, youngest first.

    Args:
        measured: of every origin in its own window and in those of later origins.
        system: a name of them; where one of the two lacks it the pair is left out.
        column: of the metric.
        rng: the draws.
        resamples: of the bootstrap.
    """
    found = []
    for age in range(1, 1 + max(window for _, window in measured)):
        pairs = []
        for origin, window in measured:
            aged, fresh = measured[origin, window], measured[window, window]
            if window - origin == age and system in aged.values and system in fresh.values:
                pairs.append(_paired(aged, fresh, system, column))
        if pairs:
            aged_mean, fresh_mean = (
                float(np.mean([pair[side].mean() for pair in pairs])) for side in (1, 2)
            )
            aged_of, fresh_of = _by_user(pairs)
            difference = paired_difference(aged_of, fresh_of, rng=rng, resamples=resamples)
            found.append(Loss(age, len(pairs), aged_mean, fresh_mean, difference))
    return found


def _paired(
    aged: Measured, fresh: Measured, system: str, column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users of both, with the values of each."""
    users, left, right = np.intersect1d(
        aged.users, fresh.users, assume_unique=True, return_indices=True
    )
    return users, aged.values[system][left, column], fresh.values[system][right, column]


def _by_user(
    pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """[U] values of each different user whose mean is the mean over windows of the windows' means.

    A user's value is the sum over the windows of what they had there, in parts of that window.
    """
    users, row = np.unique(np.concatenate([pair[0] for pair in pairs]), return_inverse=True)
    part = users.size / len(pairs)
    weight = np.concatenate([np.full(pair[0].size, part / pair[0].size) for pair in pairs])
    aged, fresh = (np.concatenate([pair[side] for pair in pairs]) for side in (1, 2))
    return (
        np.bincount(row, weight * aged, minlength=users.size),
        np.bincount(row, weight * fresh, minlength=users.size),
    )


def advice(found: Sequence[Loss], every_us: int, metric: str) -> str:
    """How often to train again, as one sentence.

    Args:
        found: of the funnel, youngest first; at least one.
        every_us: microseconds of a step of age.
        metric: its name.
    """
    worse = next((one for one in found if one.difference.high < 0), None)
    shown = worse or found[-1]
    age = duration_text(shown.age * every_us)
    gap = shown.difference
    share = "" if shown.share is None else f", {shown.share:.1%} of it"
    numbers = (
        f"{metric} {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] against a fresh one{share}, "
        f"{gap.users:,} users"
    )
    if worse is None:
        return (
            f"At no age up to {age} does the interval of the loss leave out zero (at {age} "
            f"{numbers}): these windows do not show that training more often than every {age} pays."
        )
    younger = duration_text((shown.age - 1) * every_us)
    if worse.age == 1:
        then = f"train more often than every {age}; a smaller --every says how much more often"
    else:
        then = f"train every {younger}, the last age at which no loss shows"
    return f"A model of {age} finds less than a fresh one ({numbers}): {then}."
