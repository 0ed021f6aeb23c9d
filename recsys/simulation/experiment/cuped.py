"""Less noise from what was known of a unit before it was exposed (CUPED)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.errors import LeakageError

__all__ = ["Adjusted", "check_before_exposure", "cuped"]


class Adjusted(NamedTuple):
    """A metric without what its covariates explain.

    Attributes:
        values: [n] float64, y - theta (x - mean x); its mean over all units is that of y.
        theta: [D] float64, one for each column used: the covariates, then one for each covariate
            with missing values that says where they are.
        variance_ratio: variance of the values over that of y, within arms; 1 - rho^2.
    """

    values: np.ndarray
    theta: np.ndarray
    variance_ratio: float


def cuped(
    outcome: np.ndarray,
    covariates: np.ndarray,
    *,
    arm: np.ndarray | None = None,
    measured_until: np.ndarray | float,
    exposed_at: np.ndarray | float,
) -> Adjusted:
    """Take out of a metric what covariates from before exposure explain.

    theta = cov(x)^-1 cov(x, y) within arms, one for all arms: the difference of two arms keeps
    its expectation, since the covariates' means differ by chance alone. A covariate that is
    measured after exposure carries the effect, and adjusting for it takes the effect away: that
    is refused. theta comes from the same units; the bias is of order D / n.

    A missing covariate (NaN, such as a new user's) becomes the mean of the known ones, and a
    column says which were missing.

    Args:
        outcome: [n] float; a ratio metric goes through `linearised` first, arm by arm.
        covariates: [n] or [n, D] float, NaN where unknown.
        arm: [n] of any type. None: one theta without regard to arms.
        measured_until: seconds since the epoch of the last event that a unit's covariates count,
            [n] or one for all.
        exposed_at: seconds since the epoch of a unit's first exposure, [n] or one for all.

    Raises:
        LeakageError: a covariate counts something at or after the exposure.
        ValueError: shapes disagree, fewer than two units, or a value is not finite.

    Source: Deng, Xu, Kohavi and Walker, WSDM 2013, sections 3.2 and 3.5.
    """
    y = np.asarray(outcome, dtype=np.float64)
    x = np.asarray(covariates, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if y.ndim != 1 or y.size < 2 or x.ndim != 2 or x.shape[0] != y.size:
        raise ValueError(
            "outcome must be [n] with n >= 2 and covariates [n, D] of the same units, got shapes "
            f"{y.shape} and {np.shape(covariates)}"
        )
    if not np.isfinite(y).all() or np.isinf(x).any():
        raise ValueError("outcome must be finite, and covariates finite or NaN for unknown")
    check_before_exposure(measured_until, exposed_at, num_units=y.size)
    x = _filled(x)
    place = np.zeros(y.size, dtype=np.int64)
    if arm is not None:
        if np.shape(arm) != y.shape:
            raise ValueError(f"arm must be [n] = {y.shape}, got shape {np.shape(arm)}")
        place = np.unique(np.asarray(arm), return_inverse=True)[1]
    within_y, within_x = _within(y[:, None], place)[:, 0], _within(x, place)
    # A constant column explains nothing; the least-norm solution gives it 0.
    theta = np.linalg.lstsq(within_x, within_y, rcond=1e-10)[0]
    values = y - (x - x.mean(axis=0)) @ theta
    before = float(within_y @ within_y)
    left = within_y - within_x @ theta
    return Adjusted(values, theta, float(left @ left) / before if before > 0 else 1.0)


def check_before_exposure(
    measured_until: np.ndarray | float, exposed_at: np.ndarray | float, *, num_units: int
) -> None:
    """Refuse covariates that count something at or after a unit's exposure.

    Args:
        measured_until: seconds since the epoch, [n] or one for all.
        exposed_at: seconds since the epoch, [n] or one for all.
        num_units: n.

    Raises:
        LeakageError: for some unit measured_until >= exposed_at.
        ValueError: a time is not finite, or not one for each unit.
    """
    times = []
    for name, value in (("measured_until", measured_until), ("exposed_at", exposed_at)):
        seconds = np.asarray(value, dtype=np.float64)
        if seconds.shape not in ((), (num_units,)):
            raise ValueError(f"{name} must be one time or [{num_units}], got {seconds.shape}")
        if not np.isfinite(seconds).all():
            raise ValueError(f"{name} must be finite seconds since the epoch")
        times.append(np.broadcast_to(seconds, (num_units,)))
    late = int((times[0] >= times[1]).sum())
    if late:
        raise LeakageError(
            f"covariates must be measured before exposure: for {late} of {num_units} units they "
            "count what happened at or after it, which would take the effect away; end them "
            "before the first exposure or leave them out"
        )


def _filled(x: np.ndarray) -> np.ndarray:
    """Covariates without NaN; one more column for each that had any."""
    missing = np.isnan(x)
    if not missing.any():
        return x
    known = (~missing).sum(axis=0)
    means = np.where(missing, 0.0, x).sum(axis=0) / np.maximum(known, 1)
    marked = missing[:, missing.any(axis=0)].astype(np.float64)
    return np.hstack([np.where(missing, means, x), marked])


def _within(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Values less the mean of their arm."""
    count = np.bincount(place)
    means = np.stack([np.bincount(place, weights=column) / count for column in values.T], axis=1)
    centred: np.ndarray = values - means[place]
    return centred
