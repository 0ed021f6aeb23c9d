"""A threshold, a shrinkage or a depth chosen by the log itself.

Candidates come in the order of their bias, least biased first: clipping and `switch_dr` from inf
down, `dr_os` from large shrinkage values down, `sg_ips` strengths from 0 up, `mips` from the
deepest prefix (every item its own cell) to the shortest. The choice must not be made after seeing
which policy wins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.simulation.estimates.estimate import Contributions, Estimate
from recsys.simulation.estimates.estimators import snips

__all__ = [
    "LIMITS",
    "SHOWN_LIMITS",
    "choose_clip",
    "choose_least_error",
    "choose_lepski",
    "choose_slope",
    "sampled_spread",
    "weight_spread",
]

LIMITS = (np.inf, 200.0, 100.0, 50.0, 20.0, 10.0, 5.0)
"""Of weights, least biased first."""
SHOWN_LIMITS = (5.0, 10.0, 50.0, np.inf)
"""At which the sensitivity to clipping is shown."""


def choose_slope(candidates: Sequence[Estimate]) -> int:
    """SLOPE: the last candidate whose interval agrees with all less biased ones before it.

    ``theta_i`` with half-width ``c_i`` is kept while, for every earlier j,

    ::

        |theta_i - theta_j| <= c_i + (sqrt(6) - 1) c_j

    and the walk stops at the first that is not. Among those kept the narrowest wins, the earlier
    one where two are as narrow. It needs nothing but intervals, and takes the candidates for
    independent of each other: on a small log it tolerates a bias of about three standard errors.
    `choose_lepski` compares them on the same rounds.

    Args:
        candidates: one or more, least biased first.

    Returns:
        Place of the choice in ``candidates``.

    Raises:
        ValueError: there is none.

    Source: Su, Srinath and Krishnamurthy, Adaptive estimator selection for off-policy evaluation,
        ICML 2020; the constant of Tucker and Lee, Improved estimator selection for off-policy
        evaluation, 2021 (SLOPE++).
    """
    if not candidates:
        raise ValueError("candidates must hold at least one estimate")
    value = np.array([one.value for one in candidates])
    half = np.array([(one.high - one.low) / 2 for one in candidates])
    kept = 1
    while kept < len(candidates):
        gap = np.abs(value[:kept] - value[kept])
        if bool((gap > half[kept] + (np.sqrt(6.0) - 1.0) * half[:kept]).any()):
            break
        kept += 1
    return int(np.argmin(half[:kept]))


def choose_lepski(value: np.ndarray, spread: np.ndarray) -> int:
    """The candidate with the least estimated squared error.

    ::

        b_i = max over j before i of max(0, (theta_i - theta_j)^2 - Var(theta_i - theta_j))
        choice = argmin_i  b_i + Var(theta_i)

    ``b`` estimates the squared bias from what the candidates say of the same rounds; SLOPE with
    the variance of a difference in place of two half-widths.

    Args:
        value: [C] float64, least biased first.
        spread: [C, C] float64, variance of ``theta_i - theta_j`` beside the diagonal and of
            ``theta_i`` on it: `weight_spread` where both policies are known for all actions, or
            else `sampled_spread`.

    Returns:
        Place of the choice; the earlier one of equals.

    Raises:
        ValueError: shapes disagree or there is no candidate.

    Source: Goldenshluger and Lepski, Bandwidth selection in kernel density estimation, 2011,
        section 3, with a variance for the majorant.
    """
    if value.ndim != 1 or value.size == 0 or spread.shape != (value.size, value.size):
        raise ValueError(
            f"value must be [C] with C >= 1 and spread [C, C], got {value.shape} and {spread.shape}"
        )
    gap = np.square(value[:, None] - value) - spread
    bias = np.where(np.tril(np.ones_like(spread), -1) > 0, gap, 0.0).max(axis=1).clip(min=0.0)
    return int(np.argmin(bias + np.diag(spread)))


def sampled_spread(
    candidates: Sequence[Contributions], *, unit: np.ndarray | None = None
) -> np.ndarray:
    """[C, C] variances of `choose_lepski` from the contributions of the rounds.

    Too small where large weights exist that the log has not met.

    Args:
        candidates: means on the same n rounds.
        unit: [n] integers, the same number for rounds of one unit. None: every round is one.

    Raises:
        ValueError: no candidate, or one that is a ratio.
    """
    if not candidates or any(one.top is not None for one in candidates):
        raise ValueError("candidates must be one or more means; ratios have no contributions alone")
    table = np.stack([one.plain for one in candidates])
    table -= table.mean(axis=1, keepdims=True)
    n = table.shape[1]
    if unit is not None:
        rows = np.unique(unit, return_inverse=True)[1]
        table = np.stack([np.bincount(rows, weights=one) for one in table])
    units = table.shape[1]
    covariance = table @ table.T * (units / max(units - 1, 1)) / n**2
    own = np.diag(covariance)
    spread: np.ndarray = own[:, None] + own - 2 * covariance
    np.fill_diagonal(spread, own)
    found: np.ndarray = np.maximum(spread, 0.0)
    return found


def weight_spread(
    weights: np.ndarray, probability: np.ndarray, *, mean_square_reward: float, num_rounds: int
) -> np.ndarray:
    """[C, C] variances of `choose_lepski` from the policies: large weights count before they come.

    ``E_{pi_0}[(w_i - w_j)^2] m / n`` with m the mean square reward, an upper bound where rewards
    and weights do not go together.

    Args:
        weights: [C, R] float64 weight of every outcome (context and action) for each candidate.
        probability: [R] float64 of the outcomes under the logging policy, sums to 1.
        mean_square_reward: under the target; ``snips(weight, reward ** 2)`` estimates it.
        num_rounds: n.

    Raises:
        ValueError: shapes disagree or no round.
    """
    if weights.ndim != 2 or probability.shape != weights.shape[1:] or num_rounds < 1:
        raise ValueError(
            f"weights must be [C, R], probability [R] and num_rounds >= 1, got {weights.shape}, "
            f"{probability.shape} and {num_rounds}"
        )
    gram = (weights * probability) @ weights.T
    own = np.diag(gram)
    spread: np.ndarray = own[:, None] + own - 2 * gram
    np.fill_diagonal(spread, own)
    found: np.ndarray = np.maximum(spread, 0.0) * mean_square_reward / num_rounds
    return found


def choose_least_error(
    weights: np.ndarray,
    probability: np.ndarray,
    *,
    mean_reward: float,
    mean_square_reward: float,
    num_rounds: int,
) -> int:
    """The limit of clipping (or another shrinkage of weights) by its expected squared error.

    ``argmin_i (m E_{pi_0}[w_0 - w_i])^2 + s E_{pi_0}[w_i^2] / n``, m and s the mean and the mean
    square of rewards. The weights decide, not how the rewards of this log fell out, so no luck
    with one large weight moves the choice, and the policy that is judged does not win by it.
    Assumes rewards that do not go together with the weights. Not for cells (`mips`), where weight
    moves between actions and the first term is no measure of bias.

    Args:
        weights: [C, R] float64, ``w_0`` first: the weights not shrunk. R are the outcomes (context
            and action) where both policies are known for all actions, or else the log's rounds.
        probability: [R] float64 of the outcomes under the logging policy, sums to 1.
        mean_reward: m, under the target; `snips` estimates it.
        mean_square_reward: s.
        num_rounds: n.

    Returns:
        Place of the choice; the earlier one of equals.

    Raises:
        ValueError: as `weight_spread`.

    Source: Su et al., Doubly robust off-policy evaluation with shrinkage, ICML 2020, section 4.2
        (bias and variance in place of their bounds).
    """
    variance = np.diag(
        weight_spread(
            weights, probability, mean_square_reward=mean_square_reward, num_rounds=num_rounds
        )
    )
    bias = mean_reward * ((weights[0] - weights) @ probability)
    return int(np.argmin(np.square(bias) + variance))


def choose_clip(weight: np.ndarray, reward: np.ndarray) -> float:
    """The one of `LIMITS` for `clipped_ips` that `choose_least_error` chooses on a log's rounds.

    Args:
        weight: [n] float64 `importance_weights`, not all 0.
        reward: [n] float64.

    Raises:
        ValueError: shapes disagree, or no round has a weight.
    """
    if not bool((weight > 0).any()):
        raise ValueError(
            f"weight must be above 0 somewhere, got {weight.size} without; the policy shows "
            "nothing of this log"
        )
    n = weight.size
    place = choose_least_error(
        np.stack([np.minimum(weight, limit) for limit in LIMITS]),
        np.full(n, 1.0 / n),
        mean_reward=snips(weight, reward).value,
        mean_square_reward=snips(weight, np.square(reward)).value,
        num_rounds=n,
    )
    return LIMITS[place]
