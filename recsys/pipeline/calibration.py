"""How far the ranker's scores are from probabilities: the calibration error that the gate reads.

A score of the ranker is no probability, but it compares between users. While the ranker is trained,
a map from its scores to rates is fitted to candidates that it did not see; it lies in the bundle,
for whoever needs a bid or a threshold. An evaluation says how far that map is off for what came
later.

```
ranking/calibration.json    format, score and rate: the knots of the map
```
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import ndtri

from recsys.errors import ArtifactError
from recsys.evaluation import Interval
from recsys.files.headers import read_header, write_header
from recsys.simulation.world.calibration import RateCurve

__all__ = ["CALIBRATION", "LEAST_WANTED", "calibration_error", "fit_map", "read_map", "write_map"]

CALIBRATION = "calibration.json"
FORMAT = 1
LEAST_WANTED = 50
"""Wanted candidates; below it a map, and an error, is mostly luck."""
TENTHS = 10
_DRAWS_AT_ONCE = 4_000_000


def fit_map(score: np.ndarray, wanted: np.ndarray) -> RateCurve | None:
    """The share of wanted candidates by score; never falling.

    Args:
        score: [R] of candidates that the ranker was not trained on.
        wanted: [R] bool or counts, above 0 where the user wanted the candidate.

    Returns:
        None where fewer than `LEAST_WANTED` are wanted, or all.

    Raises:
        ValueError: shapes disagree.
    """
    label = wanted > 0
    if int(label.sum()) < LEAST_WANTED or bool(label.all()):
        return None
    return RateCurve.fit(score, label)


def write_map(directory: Path, curve: RateCurve) -> None:
    """Write `CALIBRATION` into the ranker's directory."""
    values = {"score": curve.score.tolist(), "rate": curve.rate.tolist()}
    write_header(directory / CALIBRATION, FORMAT, values, indent=None)


def read_map(directory: Path) -> RateCurve | None:
    """What `write_map` wrote; None where there is no map.

    Raises:
        ArtifactError: the file is damaged or of another format.
    """
    path = directory / CALIBRATION
    if not path.is_file():
        return None
    values = read_header(path, FORMAT, remedy="train again")
    try:
        curve = RateCurve(*(np.asarray(values[key], np.float64) for key in ("score", "rate")))
        score, rate = curve
        rising = bool((np.diff(score) > 0).all()) and bool((np.diff(rate) >= 0).all())
        sound = score.ndim == 1 and score.shape == rate.shape and score.size > 0
        if not sound or not rising:
            raise ValueError(f"scores and rates must rise together, got {score.size} knots")
        if not (np.isfinite(score).all() and (rate > 0).all() and (rate < 1).all()):
            raise ValueError("rates must be in (0, 1)")
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); train again") from error
    return curve


def calibration_error(
    curve: RateCurve | None,
    score: np.ndarray,
    wanted: np.ndarray,
    request_index: np.ndarray,
    *,
    rng: np.random.Generator,
    resamples: int = 500,
    level: float = 0.95,
) -> Interval | None:
    """Mean distance of predicted from observed rates over tenths of the candidates by score.

    ::

        error = sum_c |sum_{r of c} (wanted_r - p_r)| / R

    The interval is that of the bootstrap's standard error over users, cut at 0. Luck alone makes
    the error positive: compare two systems on the same users.

    Args:
        curve: score to rate. None: not measured.
        score: [R] of candidates.
        wanted: [R] bool or counts, above 0 where the user wanted the candidate.
        request_index: [R] int64 number of the user.
        rng: draws the resamples.
        resamples: >= 2.
        level: of the interval.

    Returns:
        None without a curve, or where fewer than `LEAST_WANTED` candidates are wanted.

    Raises:
        ValueError: shapes disagree.

    Source: Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian
        binning, AAAI 2015 (expected calibration error).
    """
    if score.ndim != 1 or not score.shape == wanted.shape == request_index.shape:
        raise ValueError(
            "score, wanted and request_index must be [R], got shapes "
            f"{score.shape}, {wanted.shape} and {request_index.shape}"
        )
    label = wanted > 0
    if curve is None or int(label.sum()) < LEAST_WANTED:
        return None
    user = np.unique(request_index, return_inverse=True)[1]
    users, rows = int(user.max()) + 1, np.arange(score.size)
    cell = np.empty(score.size, dtype=np.int64)
    cell[np.argsort(score, kind="stable")] = rows * TENTHS // score.size
    away = np.bincount(
        user * TENTHS + cell, weights=label - curve(score), minlength=users * TENTHS
    ).reshape(users, TENTHS)
    size = np.bincount(user).astype(np.float64)
    value = float(np.abs(away.sum(axis=0)).sum() / size.sum())
    values = np.empty(resamples)
    step = max(1, _DRAWS_AT_ONCE // users)
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        times = rng.multinomial(users, np.full(users, 1 / users), size=count)
        values[first : first + count] = np.abs(times @ away).sum(axis=1) / (times @ size)
    half = float(ndtri((1 + level) / 2)) * float(values.std(ddof=1))
    return Interval(value, max(value - half, 0.0), value + half, users)
