"""The plain decision of an experiment, and its reasons."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.simulation.experiment.report import MetricResult
from recsys.simulation.experiment.srm import SampleRatio

__all__ = ["VERDICTS", "decide"]

VERDICTS: dict[str, str] = {
    "SHIP": "an arm is better, and no guardrail is broken",
    "STOP": "every arm does harm: keep the control",
    "HOLD": "keep the control; the experiment is over and shows no arm that may be shipped",
    "CONTINUE": "too early to say",
    "INVALID": "units did not reach the arms as planned: nothing can be read",
}
"""Verdict -> what it means."""


def decide(
    results: Sequence[MetricResult],
    ratio: SampleRatio,
    *,
    reading: str,
    num_units: int,
    planned_units: int | None,
) -> tuple[str, str, list[str]]:
    """One verdict for all arms.

    An arm may be shipped when a primary metric is better, none is worse, and every guardrail is
    safe. Of several such arms the one with the largest relative gain of the first primary metric
    is named. An arm does harm when a primary metric is worse or a guardrail is harmed.

    Args:
        results: of all arms and metrics.
        ratio: the sample-ratio check.
        reading: "planned end", "running" or "no plan".
        num_units: so far.
        planned_units: as planned.

    Returns:
        Verdict, sentence, reasons.
    """
    if ratio.alarm:
        counts = " : ".join(f"{count:,}" for count in ratio.counts)
        expected = " : ".join(f"{count:,.0f}" for count in ratio.expected)
        return (
            "INVALID",
            "units did not reach the arms as planned, so no effect can be read; find out why and "
            "start again",
            [f"{counts} units instead of {expected} (p {ratio.p:.1g})"],
        )
    arms = list(dict.fromkeys(one.arm for one in results))
    reasons = [_reason(one) for one in results if one.role != "secondary" and _tells(one)]
    good = [arm for arm in arms if _may_ship(arm, results)]
    if good:
        best = max(good, key=lambda arm: _gain(arm, results))
        return "SHIP", f"{best} is better than the control and breaks no guardrail", reasons
    harmful = [arm for arm in arms if _harms(arm, results)]
    if len(harmful) == len(arms):
        return "STOP", f"{', '.join(harmful)} does harm; keep the control", reasons
    if reading == "running" and planned_units is not None:
        left = f"{num_units:,} of {planned_units:,} planned units came"
        if harmful:
            left += f"; take {', '.join(harmful)} out, which does harm"
        return "CONTINUE", f"nothing can be said yet: {left}", reasons
    better = [one.arm for one in results if one.role == "primary" and one.direction > 0]
    if better:
        names = ", ".join(dict.fromkeys(better))
        return "HOLD", f"{names} is better, but another metric does not allow to ship it", reasons
    first = next(one for one in results if one.role == "primary")
    return (
        "HOLD",
        f"no arm is better than the control; with these {num_units:,} units a change of "
        f"{first.metric} outside [{first.low:+.3g}, {first.high:+.3g}] ({first.arm}) is ruled out",
        reasons,
    )


def _may_ship(arm: str, results: Sequence[MetricResult]) -> bool:
    mine = [one for one in results if one.arm == arm]
    primary = [one.direction for one in mine if one.role == "primary"]
    kept = all(one.guardrail == "safe" for one in mine if one.role == "guardrail")
    return kept and max(primary) > 0 and min(primary) >= 0


def _harms(arm: str, results: Sequence[MetricResult]) -> bool:
    return any(
        one.guardrail == "harmed" or (one.role == "primary" and one.direction < 0)
        for one in results
        if one.arm == arm
    )


def _gain(arm: str, results: Sequence[MetricResult]) -> float:
    first = next(one for one in results if one.arm == arm and one.role == "primary")
    sign = 1 if first.better == "higher" else -1
    return sign * first.difference


def _tells(one: MetricResult) -> bool:
    return one.role == "guardrail" or one.direction != 0


def _reason(one: MetricResult) -> str:
    words = {1: "better", -1: "worse", 0: "no different"}[one.direction]
    size = f"{one.difference:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"
    if one.role == "guardrail":
        kept = {
            "safe": f"a loss of {one.loss:.1%} is ruled out",
            "harmed": "it got worse",
            "unclear": f"a loss of {one.loss:.1%} is not ruled out yet",
            None: "its mean in the control is 0, so no relative loss can be tested",
        }[one.guardrail]
        return f"{one.arm}: guardrail {one.metric}: {kept} ({size})"
    return f"{one.arm}: {one.metric} is {words} ({size}, p {one.p:.2g})"
