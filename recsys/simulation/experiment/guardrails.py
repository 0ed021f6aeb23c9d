"""Whether an arm keeps what must not get worse (non-inferiority)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from recsys.simulation.experiment.effect import Effect, two_sided_p

__all__ = ["Better", "NonInferiority", "non_inferior"]

Better = Literal["higher", "lower"]


class NonInferiority(NamedTuple):
    """A guardrail's answer.

    Attributes:
        margin: relative loss that is still accepted.
        p: one-sided; the chance of so good a value, or a better one, if the loss were the margin.
        verdict: "safe": a loss of the margin or more is ruled out; "harmed": not safe, and worse
            than the control beyond chance; "unclear": more units are needed.
    """

    margin: float
    p: float
    verdict: Literal["safe", "harmed", "unclear"]


def non_inferior(
    effect: Effect, *, margin: float, better: Better = "higher", critical: float = 1.959963984540054
) -> NonInferiority:
    """Test that an arm is at most a margin worse than the control.

    For a metric whose higher values are better, a - (1 - m) c > 0, with variance
    v_a + (1 - m)^2 v_c; for one whose lower values are better, (1 + m) c - a > 0. No difference
    found is no proof that nothing got worse: too few units find nothing. All guardrails must be
    safe together, so each is tested at its full level.

    Args:
        effect: of the arm; the control's mean must be above 0.
        margin: relative, > 0: 0.02 accepts a loss of 2%.
        better: which values of the metric are good.
        critical: standard errors to pass; 1.96 is 2.5% one-sided. While the experiment runs:
            `margin` of the confidence sequence over the standard error.

    Raises:
        ValueError: margin is not positive, or the control's mean is not.

    Source: Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2010,
    section 4.3 (relative margins as linear contrasts).
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin must be > 0, a share of the control's mean, got {margin}")
    if not effect.control_mean > 0:
        raise ValueError(
            "the control's mean must be > 0 for a relative margin, got "
            f"{effect.control_mean:g}; choose another metric as the guardrail"
        )
    sign = 1.0 if better == "higher" else -1.0
    kept = 1 - sign * margin
    control = effect.control_error**2
    arm = max(effect.standard_error**2 - control, 0.0)
    gap = sign * (effect.arm_mean - kept * effect.control_mean)
    z = _over(gap, math.sqrt(arm + kept**2 * control))
    worse = _over(sign * effect.difference, effect.standard_error)
    verdict: Literal["safe", "harmed", "unclear"] = "unclear"
    if z >= critical:
        verdict = "safe"
    elif worse <= -critical:
        verdict = "harmed"
    p = two_sided_p(z) / 2
    return NonInferiority(margin, p if z > 0 else 1 - p, verdict)


def _over(gap: float, error: float) -> float:
    if error > 0:
        return gap / error
    return math.copysign(math.inf, gap) if gap else 0.0
