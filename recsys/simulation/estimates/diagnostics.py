"""Can this log carry an estimate of that policy? Answered from the weights, before any reward."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from recsys.simulation.estimates.estimate import Estimate, from_contributions

__all__ = [
    "Reason",
    "Verdict",
    "WeightDiagnostics",
    "disagreement",
    "errors_apart",
    "support_coverage",
    "weight_diagnostics",
]

Verdict = Literal["ok", "weak", "unusable"]

# Share of the rounds that the effective sample size is: below the first weak, the second unusable.
WEAK_SIZE, UNUSABLE_SIZE = 0.05, 0.01
# Effective rounds below which a normal interval means little, and nothing.
WEAK_ROUNDS, UNUSABLE_ROUNDS = 100.0, 10.0
MEAN_TOLERANCE, MEAN_ERRORS = 0.05, 3.0
# A mean weight this wrong is no matter of luck or a few rounds.
MEAN_UNUSABLE = 0.2
# Standard errors between the direct method and `snips`.
MOST_APART = 2.0


class Reason(NamedTuple):
    """Why a verdict is not ``ok``.

    Attributes:
        kind: ``support`` or ``effective_size``, or what a caller adds.
        text: in words with numbers.
        verdict: what this alone would make of it.
    """

    kind: str
    text: str
    verdict: Verdict


class WeightDiagnostics(NamedTuple):
    """What the weights say.

    Attributes:
        effective_size: (sum w)^2 / sum w^2, rounds.
        effective_share: that by the number of rounds.
        largest: weight.
        mean: weight with its interval; 1 where the log shows what the target would.
        top_share: of all weight in the largest 1% of the rounds.
        coverage: share of the target's probability on actions that the logger gives any; None
            where the logging policy is not known for all actions.
        verdict: the worst of the reasons.
        reasons: none where the verdict is ``ok``.
    """

    effective_size: float
    effective_share: float
    largest: float
    mean: Estimate
    top_share: float
    coverage: float | None
    verdict: Verdict
    reasons: tuple[Reason, ...]


def weight_diagnostics(
    weight: np.ndarray, *, unit: np.ndarray | None = None, coverage: float | None = None
) -> WeightDiagnostics:
    """Effective size, mean and concentration of importance weights, and a verdict.

    - effective size: below 5% of the rounds, or 100 rounds, ``weak``; below 1%, or 10 rounds,
      ``unusable``,
    - support: ``|mean w - 1| > max(.05, 3 SE)`` is ``weak``, and ``unusable`` where the mean is
      more than .2 away; so is less than 95% (80%) of the target's probability where the logger
      has any. A mean below 1 says that the target goes where the log has nothing, and every
      weighted estimate of rewards >= 0 is too low.

    Args:
        weight: [n] float64 `importance_weights`.
        unit: [n] integers, see `from_contributions`.
        coverage: from `support_coverage`, if known.

    Raises:
        ValueError: no rounds, or a weight that is negative or not finite.

    Source: Kong, A note on importance sampling using standardized weights, 1992 (effective size);
        Lefortier et al., Large-scale validation of counterfactual learning methods, 2016 (mean of
        the weights as a check).
    """
    if bool((weight < 0).any()):
        raise ValueError(f"weight must be >= 0, got {weight.min()}")
    mean = from_contributions("mean weight", weight, unit=unit)
    n, total = weight.size, float(weight.sum())
    square = float(np.square(weight).sum())
    size = total**2 / square if square > 0 else 0.0
    share = size / n
    count = max(1, n // 100)
    top = float(np.partition(weight, n - count)[n - count :].sum()) / total if total > 0 else 0.0
    reasons: list[Reason] = []
    text = f"effective sample size {size:.1f} of {n} rounds ({share:.2%})"
    if share < UNUSABLE_SIZE or size < UNUSABLE_ROUNDS:
        reasons.append(Reason("effective_size", text, "unusable"))
    elif share < WEAK_SIZE or size < WEAK_ROUNDS:
        reasons.append(Reason("effective_size", text, "weak"))
    away = abs(mean.value - 1.0)
    error = mean.standard_error if np.isfinite(mean.standard_error) else 0.0
    if away > max(MEAN_TOLERANCE, MEAN_ERRORS * error):
        side = "goes where this log has no rounds" if mean.value < 1 else "propensities are too low"
        text = f"mean weight {mean.value:.3f} (SE {error:.3f}) is not 1: the target {side}"
        if mean.value > 1:
            text = f"mean weight {mean.value:.3f} (SE {error:.3f}) is not 1: {side}"
        reasons.append(Reason("support", text, "unusable" if away > MEAN_UNUSABLE else "weak"))
    if coverage is not None and coverage < 1.0 - MEAN_TOLERANCE:
        text = f"{1 - coverage:.1%} of the target's choices have no chance under the logger"
        worst: Verdict = "unusable" if coverage < 1.0 - MEAN_UNUSABLE else "weak"
        reasons.append(Reason("support", text, worst))
    verdict: Verdict = "ok"
    if reasons:
        verdict = "unusable" if any(one.verdict == "unusable" for one in reasons) else "weak"
    return WeightDiagnostics(
        size, share, float(weight.max()), mean, top, coverage, verdict, tuple(reasons)
    )


def support_coverage(logging: np.ndarray, target: np.ndarray) -> float:
    """``mean_t sum_a pi_e(a | x_t) 1{pi_0(a | x_t) > 0}`` for policies [n, K] or [K]."""
    return float(np.where(logging > 0, target, 0.0).sum(axis=-1).mean())


def errors_apart(model: Estimate, weighted: Estimate) -> float:
    """How many standard errors the direct method is above ``snips``; 0 where there is no error."""
    error = float(np.hypot(model.standard_error, weighted.standard_error))
    return (model.value - weighted.value) / error if error > 0 else 0.0


def disagreement(model: Estimate, weighted: Estimate) -> list[Reason]:
    """DM and SNIPS further apart than chance allows: the model or the weights are wrong."""
    gap = abs(errors_apart(model, weighted))
    if not gap > MOST_APART:
        return []
    return [Reason("disagreement", f"dm and snips are {gap:.1f} SE apart", "weak")]
