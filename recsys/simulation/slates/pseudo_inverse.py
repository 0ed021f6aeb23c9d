"""Value of a slate policy when the reward of a slate is a sum of unknown parts of its places."""

from __future__ import annotations

import numpy as np

from recsys.simulation.estimates.estimate import Estimate, from_contributions, ratio_estimate
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import FactoredPolicy, SlatePolicy
from recsys.simulation.slates.probabilities import (
    enumerate_slates,
    place_probabilities,
    slot_marginals,
)

__all__ = ["factored_pseudo_inverse", "pseudo_inverse", "pseudo_inverse_weights"]

BLOCK_BYTES = 64 * 2**20
# Eigenvalues of the second moment below this share of the largest count as 0.
SMALLEST = 1e-11
# Logged propensities are float32.
SAME = 1e-4


def factored_pseudo_inverse(
    feedback: SlateFeedback,
    target: SlatePolicy,
    logging: SlatePolicy,
    *,
    self_normalised: bool = False,
    level: float = 0.95,
) -> Estimate:
    """The short formula, for logs whose places were drawn each on its own.

    ::

        V = mean_t (sum_k w_k - L + 1) R        w_k = pi_e(a_k at k) / pi_0(a_k at k)

    Assumes that the expected reward of a slate is a sum over places of something that depends on
    place and item alone, and that the logging policy is factored. Without the second it is biased:
    such logs are refused. A log counts as factored when ``logging`` is a `FactoredPolicy`, the
    logged propensities are its probabilities, and slates repeat items as often as it would.

    Args:
        feedback: n slates of L places, all filled.
        target: the policy that is judged, factored or not.
        logging: the policy that made the log.
        self_normalised: divide by the sum of the weights.
        level: of the interval.

    Raises:
        ValueError: the log is not factored, a slate has an empty place, or the policies have
            another shape than the log.

    Source: Swaminathan et al., Off-policy evaluation for slate recommendation, NeurIPS 2017,
    section 3, example of product distributions.
    """
    _check(feedback, target, logging)
    if not isinstance(logging, FactoredPolicy):
        raise ValueError(
            "logging must be a FactoredPolicy for the short formula, got "
            f"{type(logging).__name__}: its places depend on each other and the formula is biased; "
            "use pseudo_inverse"
        )
    expected = place_probabilities(logging, feedback.action)
    apart = (np.abs(feedback.propensity - expected) > SAME * expected).any(axis=1)
    if apart.any():
        raise ValueError(
            "propensity must be the probability of the logging policy at its place for the short "
            f"formula; it is not in {int(apart.sum())} of {len(feedback)} rounds, first: round "
            f"{int(np.nonzero(apart)[0][0])}: the log was drawn from another policy, perhaps "
            "without replacement; use pseudo_inverse with that policy"
        )
    _check_repeats(feedback, logging)
    ratio = slot_marginals(target, action=feedback.action) / expected
    weight = ratio.sum(axis=1) - feedback.num_slots + 1
    return _estimate("short pseudo-inverse", feedback, weight, self_normalised, level)


def pseudo_inverse(
    feedback: SlateFeedback,
    target: SlatePolicy,
    logging: SlatePolicy,
    *,
    self_normalised: bool = False,
    level: float = 0.95,
) -> Estimate:
    """The general formula, for logs whose places may depend on each other.

    ::

        s       [L K] 1 for every (place, item) of a slate, else 0
        Gamma_0 = E_{pi_0}[s s']        q = E_{pi_e}[s]
        V       = mean_t  q' Gamma_0^+ s_t  R_t

    Assumes that the expected reward of a slate is a sum over places of something that depends on
    place and item alone, and that q lies in the range of Gamma_0 (what the target shows at a place
    was shown there). Slates are enumerated: for short ones. Rounds with the same probabilities
    share one inverse.

    Args:
        feedback: n slates of L places, all filled.
        target: the policy that is judged.
        logging: the policy that made the log; its probabilities must be the logged propensities.
        self_normalised: divide by the sum of the weights.
        level: of the interval.

    Raises:
        ValueError: there are too many slates, q is not in the range of Gamma_0, a slate has an
            empty place, the propensities are not those of ``logging``, or shapes disagree.

    Source: Swaminathan et al., Off-policy evaluation for slate recommendation, NeurIPS 2017,
    equation 3.
    """
    weight = pseudo_inverse_weights(feedback, target, logging)
    return _estimate("pseudo-inverse", feedback, weight, self_normalised, level)


def pseudo_inverse_weights(
    feedback: SlateFeedback, target: SlatePolicy, logging: SlatePolicy
) -> np.ndarray:
    """[n] float64 weights of the slates in `pseudo_inverse`; some are negative, their mean is 1."""
    _check(feedback, target, logging)
    expected = place_probabilities(logging, feedback.action)
    apart = (np.abs(feedback.propensity - expected) > SAME * expected).any(axis=1)
    if apart.any():
        raise ValueError(
            "propensity must be the probability of the logging policy given the items above; it "
            f"is not in {int(apart.sum())} of {len(feedback)} rounds, first: round "
            f"{int(np.nonzero(apart)[0][0])}: pass the policy that made the log"
        )
    slates, chance = enumerate_slates(logging)
    n, slots, items = logging.shape
    width = slots * items
    wanted = slot_marginals(target).reshape(n, width)
    places = np.arange(slots) * items
    indicator = np.zeros((len(slates), width))  # [S, L K]
    np.put_along_axis(indicator, slates + places, 1.0, axis=1)
    distinct, round_of = _distinct_rows(np.concatenate([chance, wanted], axis=1))
    solved = np.empty((len(distinct), width))
    block = max(1, BLOCK_BYTES // (8 * width * max(width, len(slates))))
    for start in range(0, len(distinct), block):
        part = distinct[start : start + block]
        share, q = part[:, : len(slates)], part[:, len(slates) :]
        moment = (indicator.T[None] * share[:, None, :]) @ indicator  # [b, L K, L K]
        inverse = np.linalg.pinv(moment, rcond=SMALLEST, hermitian=True)
        found = (inverse @ q[:, :, None])[:, :, 0]
        missed = np.abs((moment @ found[:, :, None])[:, :, 0] - q).max(axis=1) > 1e-6
        if missed.any():
            first = int(np.nonzero(np.isin(round_of, start + np.nonzero(missed)[0]))[0][0])
            raise ValueError(
                "logging must show, place by place, what the target shows; it does not in round "
                f"{first} and perhaps others: the estimate would lack that part of the reward"
            )
        solved[start : start + block] = found
    weight: np.ndarray = np.take_along_axis(solved[round_of], feedback.action + places, axis=1)
    total: np.ndarray = weight.sum(axis=1)
    return total


def _distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that differ, and [n] which of them each row is."""
    # One number a row sorts far faster than whole rows; two rows with one number are told apart.
    key = rows @ np.cos(np.arange(rows.shape[1]))
    _, first, row_of = np.unique(key, return_index=True, return_inverse=True)
    if not np.array_equal(rows[first][row_of], rows):
        distinct, row_of = np.unique(rows, axis=0, return_inverse=True)
        return distinct, row_of.ravel()
    return rows[first], row_of


def _estimate(
    name: str, feedback: SlateFeedback, weight: np.ndarray, self_normalised: bool, level: float
) -> Estimate:
    total = feedback.reward.sum(axis=1)
    if self_normalised:
        name = f"self-normalised {name}"
        return ratio_estimate(name, weight * total, weight, unit=feedback.unit, level=level)
    return from_contributions(name, weight * total, unit=feedback.unit, level=level)


def _check(feedback: SlateFeedback, target: SlatePolicy, logging: SlatePolicy) -> None:
    shape = (*feedback.action.shape, feedback.num_actions)
    for name, policy in (("target", target), ("logging", logging)):
        if policy.shape != shape:
            raise ValueError(
                f"{name} must have the rounds, places and items of the log, {shape}, got "
                f"{policy.shape}"
            )
    short = ~feedback.shown.all(axis=1)
    if short.any():
        raise ValueError(
            f"every slate must fill its {feedback.num_slots} places; {int(short.sum())} of "
            f"{len(feedback)} do not, first: round {int(np.nonzero(short)[0][0])}; take the "
            "beginning of the slates, or leave the short ones out"
        )


def _check_repeats(feedback: SlateFeedback, logging: FactoredPolicy) -> None:
    """Places that draw on their own show an item twice as often as chance says."""
    action, chance = feedback.action, logging.probability
    surplus = np.zeros(len(feedback))
    wanted = 0.0
    for later in range(1, feedback.num_slots):
        for earlier in range(later):
            meet = (chance[:, earlier] * chance[:, later]).sum(axis=1)
            surplus += (action[:, earlier] == action[:, later]) - meet
            wanted += float(meet.sum())
    spread = max(float(np.square(surplus).sum()), wanted)
    if abs(float(surplus.sum())) > 5 * np.sqrt(spread):
        raise ValueError(
            f"places must be drawn each on its own for the short formula; items repeat within a "
            f"slate {wanted + float(surplus.sum()):,.0f} times where {wanted:,.0f} are expected: "
            "the log was drawn without replacement; use pseudo_inverse"
        )
