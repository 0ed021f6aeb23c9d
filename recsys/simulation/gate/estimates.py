"""What the gate makes of values that were estimated from a log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy.special import ndtri

from recsys.config.gate_rules import GateRules
from recsys.simulation.gate.reason import HOLD, PROMOTE, SUSPICIOUS, Reason
from recsys.simulation.report.parts import EstimateLine

__all__ = ["judge_estimates"]

USABLE = ("ok", "weak")


def judge_estimates(
    candidate: Sequence[EstimateLine], incumbent: Sequence[EstimateLine], rules: GateRules
) -> Iterator[Reason]:
    """Reasons from the estimated values of both systems on one log.

    An estimate is compared with the incumbent's by the same estimator, the intervals taken as if
    they were independent, which is careful where both come from one log. Estimates whose verdict is
    neither "ok" nor "weak", or that have no interval, count as unusable; a log that gives no usable
    estimate is HOLD, because somebody wanted to know.
    """
    if not candidate:
        if incumbent:
            says = "The incumbent's value was estimated from a log, the candidate's was not."
            yield Reason("value_unknown", HOLD, says)
        return
    usable = [one for one in candidate if _is_usable(one)]
    if not usable:
        why = "; ".join(sorted({one.note for one in candidate if one.note}))
        says = "The log cannot say what the candidate is worth" + (f": {why}." if why else ".")
        yield Reason("value_unknown", HOLD, says, 0, 1)
        return
    theirs = {one.estimator: one for one in incumbent if _is_usable(one)}
    held = []
    for one in usable:
        base = theirs.get(one.estimator)
        if base is None or one.high is None or one.value is None or base.value is None:
            continue
        bound = base.value - rules.max_value_drop * abs(base.value)
        if one.high < bound:
            says = (
                f"By {one.estimator} the log puts the candidate's value at {one.value:.4g}, "
                f"surely below the incumbent's {base.value:.4g}."
            )
            yield Reason("value_drop", HOLD, says, one.high, bound)
        else:
            held.append(one.estimator)
    yield from _disagreement(usable, rules)
    if held:
        says = f"The log shows no sure loss of value (by {', '.join(held)})."
        yield Reason("value_held", PROMOTE, says)


def _disagreement(usable: Sequence[EstimateLine], rules: GateRules) -> Iterator[Reason]:
    """The two usable estimates that are furthest apart, in standard errors of the wider one."""
    spread = float(ndtri(0.5 + rules.level / 2))
    worst: tuple[float, EstimateLine, EstimateLine] | None = None
    for place, one in enumerate(usable):
        for other in usable[place + 1 :]:
            error = max(_width(one), _width(other)) / (2 * spread)
            gap = abs((one.value or 0.0) - (other.value or 0.0))
            apart = gap / error if error > 0 else 0.0
            if worst is None or apart > worst[0]:
                worst = (apart, one, other)
    if worst is not None and worst[0] > rules.max_disagreement:
        apart, one, other = worst
        says = (
            f"{one.estimator} says {one.value:.4g} and {other.estimator} {other.value:.4g}, "
            f"{apart:.1f} standard errors apart: the reward model or the propensities are wrong."
        )
        yield Reason("estimates_disagree", SUSPICIOUS, says, apart, rules.max_disagreement)


def _is_usable(one: EstimateLine) -> bool:
    known = one.value is not None and one.low is not None and one.high is not None
    return known and one.verdict in USABLE


def _width(one: EstimateLine) -> float:
    return (one.high or 0.0) - (one.low or 0.0)
