"""Value of a policy over slates, from slates that another policy showed.

The value is the expected sum of the rewards of a slate's places. ``a_k`` is the item at
place k, ``r_k`` its reward, ``pi_e`` the policy that is judged and ``pi_0`` the one that made the
log. Every estimator assumes that ``pi_0`` gives some chance to
whatever ``pi_e`` may show (support) and that the propensities are right; what it assumes of users
is said with each::

    standard            prod_{j <= L} w_j      nothing             largest variance
    reward interaction  prod_{j <= k} w_j      cascade: r_k depends on a_1..a_k
    independent         w_k of the marginals   r_k depends on a_k  smallest variance

``target`` everywhere is ``pi_e(a_k | a_1..a_{k-1})`` of the items that were shown
(`place_probabilities`); marginals are those of `slot_marginals`.
"""

from __future__ import annotations

import numpy as np

from recsys.simulation.estimates.estimate import Estimate, from_contributions, ratio_estimate
from recsys.simulation.slates.feedback import SlateFeedback

__all__ = [
    "cascade_dr",
    "independent_ips",
    "prefix_weights",
    "reward_interaction_ips",
    "standard_slate_ips",
]


def prefix_weights(feedback: SlateFeedback, target: np.ndarray) -> np.ndarray:
    """How much more likely the beginning of a slate is under the target policy.

    ::

        w_{1:k} = prod_{j <= k} pi_e(a_j | a_1..a_{j-1}) / pi_0(a_j | a_1..a_{j-1})

    Their mean over rounds is about 1 at every place where the log supports the target policy.

    Args:
        feedback: n slates of L places.
        target: [n, L] probabilities of the shown items under the target policy.

    Returns:
        [n, L] float64; below the end of a slate that of its last place.

    Raises:
        ValueError: ``target`` has another shape or is not in [0, 1].
    """
    target = _probabilities(feedback, target, "target")
    return np.cumprod(target / feedback.propensity, axis=1)


def standard_slate_ips(
    feedback: SlateFeedback,
    target: np.ndarray,
    *,
    self_normalised: bool = False,
    level: float = 0.95,
) -> Estimate:
    """Whole slates are weighted; nothing is assumed of users.

    ::

        V = mean_t w_{1:L} sum_k r_k        self-normalised: sum_t w_{1:L} R_t / sum_t w_{1:L}

    Args:
        feedback: n slates of L places.
        target: [n, L] probabilities of the shown items under the target policy.
        self_normalised: divide by the sum of the weights; a small bias for less variance.
        level: of the interval.

    Raises:
        ValueError: as in `prefix_weights`, or all weights are 0.

    Source: Horvitz and Thompson, 1952, over slates; Swaminathan and Joachims, The self-normalized
    estimator for counterfactual learning, NeurIPS 2015.
    """
    weight = prefix_weights(feedback, target)[:, -1]
    total = feedback.reward.sum(axis=1)
    if self_normalised:
        name = "self-normalised standard"
        return ratio_estimate(name, weight * total, weight, unit=feedback.unit, level=level)
    return from_contributions("standard", weight * total, unit=feedback.unit, level=level)


def reward_interaction_ips(
    feedback: SlateFeedback,
    target: np.ndarray,
    *,
    self_normalised: bool = False,
    level: float = 0.95,
) -> Estimate:
    """Every place is weighted by the slate down to it.

    ::

        V = mean_t sum_k w_{1:k} r_k
        self-normalised: sum_k (sum_t w_{1:k} r_k / sum_t w_{1:k})

    Unbiased under the cascade assumption: the reward of a place depends on the items at it and
    above it, not on those below.

    Args:
        feedback: n slates of L places.
        target: [n, L] probabilities of the shown items under the target policy.
        self_normalised: divide by the sum of the weights, place by place; a small bias for less
            variance.
        level: of the interval.

    Raises:
        ValueError: as in `prefix_weights`, or all weights of a place are 0.

    Source: McInerney et al., Counterfactual evaluation of slate recommendations with sequential
    reward interactions, KDD 2020, section 4.
    """
    weight = prefix_weights(feedback, target)
    return _by_place("reward interaction", feedback, weight, self_normalised, level)


def independent_ips(
    feedback: SlateFeedback,
    target_marginal: np.ndarray,
    logging_marginal: np.ndarray,
    *,
    self_normalised: bool = False,
    level: float = 0.95,
) -> Estimate:
    """Every place is weighted on its own.

    ::

        w_k = pi_e(a_k at k) / pi_0(a_k at k)       whatever stands above
        V   = mean_t sum_k w_k r_k                  self-normalised: place by place

    Unbiased if the reward of a place depends on its item alone. The sign of its bias is not known
    otherwise; print `reward_interaction_ips` beside it (`compare_slates`).

    Args:
        feedback: n slates of L places.
        target_marginal: [n, L] of the shown items, `slot_marginals` with ``action``.
        logging_marginal: the same of the logging policy, above 0. The logged propensities are not
            these, except at the first place and where places draw on their own.
        self_normalised: divide by the sum of the weights, place by place.
        level: of the interval.

    Raises:
        ValueError: an array has another shape or is not in [0, 1], or a logging marginal is 0.

    Source: Li et al., Offline evaluation of ranking policies with click models, KDD 2018, the
    item-position model.
    """
    weight = independent_weights(feedback, target_marginal, logging_marginal)
    return _by_place("independent", feedback, weight, self_normalised, level)


def independent_weights(
    feedback: SlateFeedback, target_marginal: np.ndarray, logging_marginal: np.ndarray
) -> np.ndarray:
    """[n, L] weights of `independent_ips`."""
    target_marginal = _probabilities(feedback, target_marginal, "target_marginal")
    logging_marginal = _probabilities(feedback, logging_marginal, "logging_marginal")
    unseen = (logging_marginal == 0).any(axis=1)
    if unseen.any():
        raise ValueError(
            f"logging_marginal must be above 0 for what was shown; it is 0 in {int(unseen.sum())} "
            f"of {len(feedback)} rounds, first: round {int(np.nonzero(unseen)[0][0])}; sample more "
            "slates for the marginals, or check that this policy made the log"
        )
    weight: np.ndarray = target_marginal / logging_marginal
    return weight


def cascade_dr(
    feedback: SlateFeedback,
    target: np.ndarray,
    shown_value: np.ndarray,
    expected_value: np.ndarray,
    *,
    level: float = 0.95,
) -> Estimate:
    """Reward interaction with a model of rewards that takes variance away.

    ::

        V = mean_t sum_k [ w_{1:k} (r_k - Q_k(a_k))
                           + w_{1:k-1} sum_a pi_e(a | a_1..a_{k-1}) Q_k(a) ]

    with ``w_{1:0} = 1``. Unbiased under the cascade assumption whatever Q is, as long as Q of a
    round was not fitted on it. The variance is least where Q_k is the expected reward of place k
    and of all below it.

    Args:
        feedback: n slates of L places.
        target: [n, L] probabilities of the shown items under the target policy.
        shown_value: [n, L] Q_k of the item that was shown; see `cross_fitted_slot_values`.
        expected_value: [n, L] mean of Q_k over the target policy, given the items above.
        level: of the interval.

    Raises:
        ValueError: as in `prefix_weights`, or a value has another shape or is not finite.

    Source: Kiyohara et al., Doubly robust off-policy evaluation for ranking policies under the
    cascade behavior model, WSDM 2022, section 4.
    """
    weight = prefix_weights(feedback, target)
    shown = feedback.shown
    values = []
    for name, value in (("shown_value", shown_value), ("expected_value", expected_value)):
        if value.shape != feedback.action.shape:
            raise ValueError(f"{name} must be [n, L] = {feedback.action.shape}, got {value.shape}")
        if not np.isfinite(value[shown]).all():
            raise ValueError(f"{name} must be finite where an item was shown")
        values.append(np.where(shown, value, 0.0))
    above = np.ones_like(weight)
    above[:, 1:] = weight[:, :-1]  # w_{1:k-1}
    correction = weight * (feedback.reward - values[0])
    contribution = (correction + above * values[1]).sum(axis=1)
    return from_contributions("cascade DR", contribution, unit=feedback.unit, level=level)


def place_contributions(
    feedback: SlateFeedback, weight: np.ndarray, *, self_normalised: bool
) -> np.ndarray:
    """[n] whose mean is the sum over places of the weighted rewards; weights [n, L].

    Self-normalised, it is a sum of ratios, linearised at its value: the mean is that sum and the
    spread that of the delta method.
    """
    if not self_normalised:
        plain: np.ndarray = (weight * feedback.reward).sum(axis=1)
        return plain
    mean = weight.mean(axis=0)  # [L]
    if (mean == 0).any():
        raise ValueError(
            f"the weights of place {int(np.nonzero(mean == 0)[0][0]) + 1} must not all be 0: "
            "the target policy shows nothing that was logged there"
        )
    place = (weight * feedback.reward).mean(axis=0) / mean  # [L]
    linear: np.ndarray = place.sum() + (weight * (feedback.reward - place) / mean).sum(axis=1)
    return linear


def _by_place(
    name: str, feedback: SlateFeedback, weight: np.ndarray, self_normalised: bool, level: float
) -> Estimate:
    contribution = place_contributions(feedback, weight, self_normalised=self_normalised)
    name = f"self-normalised {name}" if self_normalised else name
    return from_contributions(name, contribution, unit=feedback.unit, level=level)


def _probabilities(feedback: SlateFeedback, values: np.ndarray, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != feedback.action.shape:
        raise ValueError(f"{name} must be [n, L] = {feedback.action.shape}, got {values.shape}")
    values = np.where(feedback.shown, values, 1.0)
    # Sums over what stands above may pass 1 by rounding.
    wrong = ~((values >= 0) & (values <= 1 + 1e-9)).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"{name} must be 0..1; it is not in {int(wrong.sum())} of {len(values)} rounds, first: "
            f"round {int(np.nonzero(wrong)[0][0])}"
        )
    return values
