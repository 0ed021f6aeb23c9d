"""Estimates of a slate policy side by side, with what to hold against them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.simulation.estimates.estimate import Estimate, from_contributions
from recsys.simulation.slates.estimators import (
    cascade_dr,
    independent_ips,
    independent_weights,
    place_contributions,
    prefix_weights,
    reward_interaction_ips,
    standard_slate_ips,
)
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import SlatePolicy
from recsys.simulation.slates.probabilities import place_probabilities, slot_marginals
from recsys.simulation.slates.rewards import cross_fitted_slot_values

__all__ = ["SlateComparison", "compare_slates"]

# Standard errors between the two estimates from which on users are said to react to what is above.
WIDE = 2.0
# Effective rounds below which that cannot be said: the error of a few large weights is not known.
FEW = 30
WEAK, UNUSABLE = 0.05, 0.01  # effective share of the rounds


class SlateComparison(NamedTuple):
    """What a log of slates says of a policy.

    Attributes:
        estimates: independent, reward interaction, cascade DR and standard, in this order.
        gap: independent minus reward interaction, both self-normalised, of the same rounds.
        interaction: the gap is above 2 of its standard errors: users react to what stands above,
            and the independent estimate is biased. Where nothing interacts this is said in about
            one log of twenty, in more where the effective rounds are few. None: below 30 of them
            it cannot be said.
        mean_weight: [L] mean of the weights down to each place; 1 where the log has support.
        effective_share: [L] effective sample size of these weights over n.
        problems: what speaks against the numbers; empty when nothing was found.
    """

    estimates: tuple[Estimate, ...]
    gap: Estimate
    interaction: bool | None
    mean_weight: np.ndarray
    effective_share: np.ndarray
    problems: tuple[str, ...]

    def __str__(self) -> str:
        times = abs(self.gap.value) / self.gap.standard_error if self.gap.standard_error else 0.0
        word = "interaction present" if self.interaction else "no interaction seen"
        if self.interaction is None:
            word = "too few effective rounds to tell"
        lines = [str(one) for one in self.estimates]
        lines.append(
            f"independent - reward interaction {self.gap.value:+.5f}, {times:.1f} standard errors: "
            f"{word}"
        )
        return "\n".join([*lines, *self.problems])


def compare_slates(
    feedback: SlateFeedback,
    target: SlatePolicy,
    logging: SlatePolicy,
    *,
    rng: np.random.Generator,
    folds: int = 5,
    num_samples: int = 1_000,
    cell: np.ndarray | None = None,
    level: float = 0.95,
) -> SlateComparison:
    """Independent and reward interaction side by side, with cascade DR and standard.

    The independent estimate has the least variance and a bias of unknown sign where users react to
    what stands above; reward interaction has none of that bias under the cascade assumption. Their
    difference over the same rounds has a standard error of its own, and it decides. Weights are
    self-normalised for it: that gives fewer false alarms in short logs, and more true ones.

    Args:
        feedback: n slates of L places.
        target: the policy that is judged.
        logging: the policy that made the log, for the marginals of its places.
        rng: draws folds, and marginals where there are too many to enumerate.
        folds: of the reward model.
        num_samples: slates a round, where marginals are drawn.
        cell: [n] kinds of rounds for the reward model, see `cross_fitted_slot_values`.
        level: of the intervals.

    Raises:
        ValueError: shapes disagree, or as in the estimators.

    Source: the rule of two standard errors is ours, after measurements on three user models.
    """
    chance = place_probabilities(target, feedback.action)
    weight = prefix_weights(feedback, chance)
    marginals = [
        slot_marginals(one, action=feedback.action, rng=rng, num_samples=num_samples)
        for one in (target, logging)
    ]
    model = cross_fitted_slot_values(feedback, target, rng=rng, folds=folds, cell=cell)
    estimates = (
        independent_ips(feedback, *marginals, level=level),
        reward_interaction_ips(feedback, chance, level=level),
        cascade_dr(feedback, chance, model.shown, model.expected, level=level),
        standard_slate_ips(feedback, chance, level=level),
    )
    squares = np.square(weight).sum(axis=0)
    share = np.where(squares > 0, weight.sum(axis=0) ** 2 / np.maximum(squares, 1e-300), 0.0)
    share /= len(feedback)
    gap, interaction = _gap(feedback, independent_weights(feedback, *marginals), weight, level)
    if share.min() * len(feedback) < FEW:
        interaction = None
    return SlateComparison(
        estimates,
        gap,
        interaction,
        weight.mean(axis=0),
        share,
        _problems(feedback, logging, weight, share),
    )


def _gap(
    feedback: SlateFeedback, alone: np.ndarray, beginning: np.ndarray, level: float
) -> tuple[Estimate, bool | None]:
    """Difference of the two estimates, and whether it is wide."""
    normalise = bool(((alone.sum(axis=0) > 0) & (beginning.sum(axis=0) > 0)).all())
    first, second = (
        place_contributions(feedback, weight, self_normalised=normalise)
        for weight in (alone, beginning)
    )
    gap = from_contributions("gap", first - second, unit=feedback.unit, level=level)
    # Rounding alone is no gap: with one place both weights are the same.
    noise = 1e-9 * max(1.0, float(np.abs(first).max()))
    return gap, abs(gap.value) > WIDE * gap.standard_error + noise


def _problems(
    feedback: SlateFeedback, logging: SlatePolicy, weight: np.ndarray, share: np.ndarray
) -> tuple[str, ...]:
    found = []
    logged = place_probabilities(logging, feedback.action)
    drift = (np.abs(logged - feedback.propensity) > 1e-3 * feedback.propensity).any(axis=1)
    if drift.any():
        found.append(
            f"{int(drift.sum())} of {len(feedback)} rounds have propensities that are not those of "
            f"the logging policy, first: round {int(np.nonzero(drift)[0][0])}; the independent "
            "estimate is of no use"
        )
    whole = from_contributions("weight", weight[:, -1], unit=feedback.unit)
    error = whole.standard_error if np.isfinite(whole.standard_error) else 0.0
    if abs(whole.value - 1) > max(0.05, 3 * error):
        found.append(
            f"the mean weight of the slates is {whole.value:.3f} and must be 1 within "
            f"{max(0.05, 3 * error):.3f}: the log lacks slates the target shows, or its "
            "propensities are wrong"
        )
    for slot, one in enumerate(share.tolist(), start=1):
        if one < WEAK:
            word = "unusable" if one < UNUSABLE else "weak"
            found.append(
                f"down to place {slot} the rounds are worth {one:.1%} of their number: what needs "
                f"these weights is {word}; take the beginning of the slates or more rounds"
            )
            break
    return tuple(found)
