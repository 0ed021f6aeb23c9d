"""Value of a policy from the log of another: one action a round.

Symbols, everywhere in this module:

- ``p_t`` = pi_0(a_t | x_t), the propensity; ``w_t`` = pi_e(a_t | x_t) / p_t, the ``weight``,
- ``q_t`` = Q(x_t, a_t), a reward model at the logged action (``predicted``),
- ``v_t`` = sum_a pi_e(a | x_t) Q(x_t, a), its expected reward under the target (``expected``).

Every weighted estimator assumes that the log shows what the target would show (support), that the
propensities are those of the draws, and that nothing else chose actions by their reward. Models
must not have seen the round they predict (`recsys.simulation.cross_fit`): else the residual
vanishes and DR becomes DM.

Each function returns the `Contributions` of the rounds: ``.value``, ``.estimate(unit=...)``.

Sources are given with each; the forms follow Saito et al., Open Bandit Dataset and Pipeline,
NeurIPS 2021, appendix.
"""

from __future__ import annotations

import numpy as np

from recsys.simulation.estimates.estimate import Contributions

__all__ = [
    "clipped_ips",
    "dm",
    "dr",
    "dr_os",
    "importance_weights",
    "ips",
    "mips",
    "replay",
    "sg_dr",
    "sg_ips",
    "sndr",
    "snips",
    "snmips",
    "switch_dr",
]


def importance_weights(chosen: np.ndarray, propensity: np.ndarray) -> np.ndarray:
    """``w_t = pi_e(a_t | x_t) / p_t``.

    Args:
        chosen: [n] float64, probability of the logged action under the target policy, 0..1.
        propensity: [n] float64 in (0, 1].

    Returns:
        [n] float64 >= 0.

    Raises:
        ValueError: shapes disagree, or a probability is out of range.
    """
    _same_length(chosen=chosen, propensity=propensity)
    wrong = ~((propensity > 0) & (propensity <= 1))
    if wrong.any():
        raise ValueError(
            f"propensity must be in (0, 1]: {int(wrong.sum())} rows are not, first row "
            f"{int(wrong.argmax())} with {propensity[wrong.argmax()]}; drop those rows"
        )
    wrong = ~((chosen >= 0) & (chosen <= 1 + 1e-9))
    if wrong.any():
        raise ValueError(
            f"chosen must be 0..1: {int(wrong.sum())} rows are not, first row "
            f"{int(wrong.argmax())} with {chosen[wrong.argmax()]}"
        )
    return np.asarray(chosen / propensity, dtype=np.float64)


def replay(agrees: np.ndarray, reward: np.ndarray) -> Contributions:
    """``sum_t m_t r_t / sum_t m_t``, m_t = 1 where the target would have done the same.

    Assumes a log drawn uniformly over the actions and a target that is deterministic. Unbiased
    then; the share of accepted rounds is about 1 / K.

    Args:
        agrees: [n] bool.
        reward: [n] float64.

    Raises:
        ValueError: shapes disagree.

    Source: Li et al., Unbiased offline evaluation of contextual-bandit-based news article
        recommendation algorithms, WSDM 2011.
    """
    match = np.asarray(agrees, dtype=np.float64)
    _same_length(agrees=match, reward=reward)
    return Contributions("replay", np.zeros(len(match)), match * reward, match)


def dm(expected: np.ndarray) -> Contributions:
    """Direct method: ``mean_t v_t``.

    No weights, so a small variance; as wrong as the model is where the target goes. A model that
    ranks well (AUC) need not have the right level.

    Args:
        expected: [n] float64 v.

    Source: Beygelzimer and Langford, The offset tree for learning with partial labels, KDD 2009.
    """
    return Contributions("dm", np.asarray(expected, dtype=np.float64))


def ips(weight: np.ndarray, reward: np.ndarray) -> Contributions:
    """Inverse propensity score: ``mean_t w_t r_t``.

    Unbiased with support and right propensities; variance grows with the largest weights.

    Args:
        weight: [n] float64.
        reward: [n] float64.

    Raises:
        ValueError: shapes disagree.

    Source: Horvitz and Thompson, A generalization of sampling without replacement, 1952.
    """
    _same_length(weight=weight, reward=reward)
    return Contributions("ips", weight * reward)


def clipped_ips(weight: np.ndarray, reward: np.ndarray, *, limit: float) -> Contributions:
    """``mean_t min(w_t, limit) r_t``; biased towards 0 for rewards >= 0, choose by `choose_slope`.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        limit: largest weight, > 0; inf is `ips`.

    Raises:
        ValueError: shapes disagree, or ``limit`` is not positive.

    Source: Ionides, Truncated importance sampling, 2008.
    """
    _same_length(weight=weight, reward=reward)
    _positive(limit=limit)
    return Contributions("clipped_ips", np.minimum(weight, limit) * reward)


def snips(weight: np.ndarray, reward: np.ndarray) -> Contributions:
    """Self-normalised IPS: ``sum_t w_t r_t / sum_t w_t``.

    Bias of order 1/n, smaller variance, never outside the range of the rewards, and the same
    answer whatever constant is added to them.

    Args:
        weight: [n] float64.
        reward: [n] float64.

    Raises:
        ValueError: shapes disagree.

    Source: Swaminathan and Joachims, The self-normalized estimator for counterfactual learning,
        NeurIPS 2015.
    """
    _same_length(weight=weight, reward=reward)
    return Contributions("snips", np.zeros(len(weight)), weight * reward, weight)


def dr(
    weight: np.ndarray, reward: np.ndarray, predicted: np.ndarray, expected: np.ndarray
) -> Contributions:
    """Doubly robust: ``mean_t [v_t + w_t (r_t - q_t)]``.

    Right where the propensities or the model are.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        predicted: [n] float64 q.
        expected: [n] float64 v.

    Raises:
        ValueError: shapes disagree.

    Source: Dudik, Langford and Li, Doubly robust policy evaluation and learning, ICML 2011.
    """
    _same_length(weight=weight, reward=reward, predicted=predicted, expected=expected)
    return Contributions("dr", expected + weight * (reward - predicted))


def sndr(
    weight: np.ndarray, reward: np.ndarray, predicted: np.ndarray, expected: np.ndarray
) -> Contributions:
    """``mean_t v_t + sum_t w_t (r_t - q_t) / sum_t w_t``; arguments as in `dr`.

    Raises:
        ValueError: shapes disagree.

    Source: Thomas and Brunskill, Data-efficient off-policy policy evaluation, ICML 2016 (weighted
        doubly robust, one step).
    """
    _same_length(weight=weight, reward=reward, predicted=predicted, expected=expected)
    plain = np.asarray(expected, dtype=np.float64)
    return Contributions("sndr", plain, weight * (reward - predicted), weight)


def switch_dr(
    weight: np.ndarray,
    reward: np.ndarray,
    predicted: np.ndarray,
    expected: np.ndarray,
    *,
    limit: float,
) -> Contributions:
    """``mean_t [v_t + w_t 1{w_t <= limit} (r_t - q_t)]``: the model alone where weights are large.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        predicted: [n] float64 q.
        expected: [n] float64 v.
        limit: >= 0; 0 is `dm` (unless weights are 0), inf is `dr`.

    Raises:
        ValueError: shapes disagree, or ``limit`` is negative.

    Source: Wang, Agarwal and Dudik, Optimal and adaptive off-policy evaluation in contextual
        bandits, ICML 2017.
    """
    _same_length(weight=weight, reward=reward, predicted=predicted, expected=expected)
    if not limit >= 0:
        raise ValueError(f"limit must be >= 0, got {limit}")
    kept = np.where(weight <= limit, weight, 0.0)
    return Contributions("switch_dr", expected + kept * (reward - predicted))


def dr_os(
    weight: np.ndarray,
    reward: np.ndarray,
    predicted: np.ndarray,
    expected: np.ndarray,
    *,
    shrinkage: float,
) -> Contributions:
    """DR with optimistic shrinkage: `dr` with ``lambda w / (w^2 + lambda)`` for the weight.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        predicted: [n] float64 q.
        expected: [n] float64 v.
        shrinkage: lambda >= 0; 0 is `dm`, inf is `dr`.

    Raises:
        ValueError: shapes disagree, or ``shrinkage`` is negative.

    Source: Su, Dimakopoulou, Krishnamurthy and Dudik, Doubly robust off-policy evaluation with
        shrinkage, ICML 2020.
    """
    _same_length(weight=weight, reward=reward, predicted=predicted, expected=expected)
    if not shrinkage >= 0:
        raise ValueError(f"shrinkage must be >= 0, got {shrinkage}")
    if shrinkage == 0:
        shrunk = np.zeros(len(weight))
    else:
        shrunk = weight / (np.square(weight) / shrinkage + 1.0)
    return Contributions("dr_os", expected + shrunk * (reward - predicted))


def sg_ips(weight: np.ndarray, reward: np.ndarray, *, strength: float) -> Contributions:
    """Sub-Gaussian IPS: `ips` with ``w / (1 - lambda + lambda w)`` for the weight.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        strength: lambda in [0, 1]; 0 is `ips`, 1 weighs every action the target may choose alike.

    Raises:
        ValueError: shapes disagree, or ``strength`` is out of range.

    Source: Metelli, Russo and Restelli, Subgaussian and differentiable importance sampling for
        off-policy evaluation and learning, NeurIPS 2021.
    """
    _same_length(weight=weight, reward=reward)
    return Contributions("sg_ips", _subgaussian(weight, strength) * reward)


def sg_dr(
    weight: np.ndarray,
    reward: np.ndarray,
    predicted: np.ndarray,
    expected: np.ndarray,
    *,
    strength: float,
) -> Contributions:
    """Sub-Gaussian DR: `dr` with the weights of `sg_ips`.

    Args:
        weight: [n] float64.
        reward: [n] float64.
        predicted: [n] float64 q.
        expected: [n] float64 v.
        strength: lambda in [0, 1]; 0 is `dr`.

    Raises:
        ValueError: shapes disagree, or ``strength`` is out of range.

    Source: as `sg_ips`.
    """
    _same_length(weight=weight, reward=reward, predicted=predicted, expected=expected)
    kept = _subgaussian(weight, strength)
    return Contributions("sg_dr", expected + kept * (reward - predicted))


def mips(marginal_weight: np.ndarray, reward: np.ndarray) -> Contributions:
    """Marginalised IPS: ``mean_t w(x_t, e_t) r_t``, e_t the embedding of the logged action.

    Unbiased where an action moves the reward through its embedding alone, and the log shows every
    embedding the target does; then its weights vary less than those of single actions. Weights
    come from `recsys.simulation.marginal_weights`.

    Args:
        marginal_weight: [n] float64.
        reward: [n] float64.

    Raises:
        ValueError: shapes disagree.

    Source: Saito and Joachims, Off-policy evaluation for large action spaces via embeddings, ICML
        2022.
    """
    _same_length(marginal_weight=marginal_weight, reward=reward)
    return Contributions("mips", marginal_weight * reward)


def snmips(marginal_weight: np.ndarray, reward: np.ndarray) -> Contributions:
    """Self-normalised `mips`: ``sum_t w(x_t, e_t) r_t / sum_t w(x_t, e_t)``.

    Raises:
        ValueError: shapes disagree.

    Source: as `mips`.
    """
    _same_length(marginal_weight=marginal_weight, reward=reward)
    zeros = np.zeros(len(reward))
    return Contributions("snmips", zeros, marginal_weight * reward, marginal_weight)


def _subgaussian(weight: np.ndarray, strength: float) -> np.ndarray:
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be 0..1, got {strength}")
    below = 1.0 - strength + strength * weight
    kept: np.ndarray = np.divide(weight, below, out=np.zeros(len(weight)), where=below > 0)
    return kept


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")


def _same_length(**arrays: np.ndarray) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    first = next(iter(shapes.values()))
    if len(first) != 1 or any(shape != first for shape in shapes.values()):
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"arrays must be [n] of one length, got {listed}")
