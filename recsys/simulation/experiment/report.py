"""What an experiment says: every number with its interval, and a plain decision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from recsys.simulation.experiment.srm import SampleRatio

__all__ = ["ExperimentReport", "MetricResult", "SliceResult"]


class MetricResult(NamedTuple):
    """One metric of one arm against the control.

    Attributes:
        metric: its name.
        role: "primary", "secondary" or "guardrail".
        better: "higher" or "lower".
        arm: which.
        control_mean: mean or ratio of the control, after CUPED.
        arm_mean: of the arm.
        difference: arm minus control.
        standard_error: of the difference.
        low: lower end of its interval, as the experiment may be read now.
        high: upper end.
        p: adjusted for several arms (primary) or for all secondary metrics together.
        lift: difference over the control's mean; NaN where that is near 0.
        lift_low: lower end.
        lift_high: upper end.
        num_control: units.
        num_arm: units.
        variance_ratio: share of the variance that CUPED left; 1 without covariates.
        unadjusted: difference without CUPED.
        unadjusted_error: its standard error.
        loss: relative loss that a guardrail accepts.
        guardrail: "safe", "harmed" or "unclear"; None for other metrics, and where the control's
            mean is 0.
    """

    metric: str
    role: str
    better: str
    arm: str
    control_mean: float
    arm_mean: float
    difference: float
    standard_error: float
    low: float
    high: float
    p: float
    lift: float
    lift_low: float
    lift_high: float
    num_control: int
    num_arm: int
    variance_ratio: float
    unadjusted: float
    unadjusted_error: float
    loss: float | None
    guardrail: str | None

    @property
    def direction(self) -> int:
        """1: better beyond chance, -1: worse beyond chance, 0: neither."""
        sign = 1 if self.better == "higher" else -1
        if self.low > 0:
            return sign
        return -sign if self.high < 0 else 0


class SliceResult(NamedTuple):
    """A primary metric of one arm in one slice, without CUPED.

    Attributes:
        metric: its name.
        arm: which.
        slice: column.
        value: of the column.
        difference: arm minus control in this slice alone.
        standard_error: of it.
        p: adjusted for all slices of the column (Holm).
        shrunk: difference pulled towards that of all slices (`shrink`).
        low: lower end of its 95% interval.
        high: upper end.
        num_control: units.
        num_arm: units.
        heterogeneity_p: chance of so different slices, or more different ones, if all were equal.
    """

    metric: str
    arm: str
    slice: str
    value: str
    difference: float
    standard_error: float
    p: float
    shrunk: float
    low: float
    high: float
    num_control: int
    num_arm: int
    heterogeneity_p: float


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """All of it.

    Attributes:
        name: of the experiment.
        verdict: "SHIP", "STOP", "HOLD", "CONTINUE" or "INVALID".
        decision: a sentence.
        reasons: of the decision, weightiest first.
        warnings: what else a reader must know.
        reading: "planned end", "running" or "no plan".
        alpha: chance of a false alarm, over all arms.
        num_units: of all arms.
        planned_units: as planned; None without a plan.
        control: name of the control.
        arms: units of each arm.
        sample_ratio: whether units reached the arms as planned.
        metrics: each metric of each arm.
        slices: primary metrics in slices.
    """

    name: str
    verdict: str
    decision: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    reading: str
    alpha: float
    num_units: int
    planned_units: int | None
    control: str
    arms: Mapping[str, int]
    sample_ratio: SampleRatio
    metrics: tuple[MetricResult, ...]
    slices: tuple[SliceResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite becomes None."""
        return {
            "format": 1,
            "experiment": self.name,
            "verdict": self.verdict,
            "decision": self.decision,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
            "reading": self.reading,
            "alpha": self.alpha,
            "units": self.num_units,
            "planned_units": self.planned_units,
            "control": self.control,
            "arms": dict(self.arms),
            "sample_ratio": _plain(self.sample_ratio._asdict()),
            "metrics": [_plain(one._asdict()) for one in self.metrics],
            "slices": [_plain(one._asdict()) for one in self.slices],
        }

    def to_text(self) -> str:
        """For a terminal: the verdict, the reasons, the numbers."""
        plan = "" if self.planned_units is None else f" of {self.planned_units:,} planned"
        split = ", ".join(f"{arm} {count:,}" for arm, count in self.arms.items())
        ratio = self.sample_ratio
        lines = [
            f"{self.verdict}: {self.decision}",
            *(f"  - {reason}" for reason in self.reasons),
            "",
            f"experiment {self.name}: {self.num_units:,} units{plan} ({split}); control is "
            f"{self.control}",
            f"sample ratio: p {ratio.p:.3g}{', ALARM' if ratio.alarm else ''}",
        ]
        for one in self.metrics:
            lines.append(_line(one, self.alpha, running=self.reading == "running"))
        if self.slices:
            lines += ["", "by slice (pulled towards the mean of all slices):"]
            lines += [
                f"  {one.metric}, {one.arm}, {one.slice} = {one.value}: {one.shrunk:+.4g} "
                f"[{one.low:+.4g}, {one.high:+.4g}], alone {one.difference:+.4g}, "
                f"{one.num_control + one.num_arm:,} units"
                for one in self.slices
            ]
        if self.warnings:
            lines += ["", *(f"note: {warning}" for warning in self.warnings)]
        return "\n".join(lines)


def _line(one: MetricResult, alpha: float, *, running: bool) -> str:
    kind = "at any time" if running else "interval"
    if math.isfinite(one.low):
        between = f"{one.difference:+.4g}, {1 - alpha:.0%} {kind} [{one.low:+.4g}, {one.high:+.4g}]"
    else:
        between = f"{one.difference:+.4g}, no interval: too few units, or nothing varies"
    lift = ""
    if math.isfinite(one.lift_low):
        lift = f" ({one.lift:+.2%} [{one.lift_low:+.2%}, {one.lift_high:+.2%}])"
    kept = "" if one.guardrail is None else f", {one.guardrail} at a loss of {one.loss:.1%}"
    less = "" if one.variance_ratio == 1 else f", CUPED left {one.variance_ratio:.0%} of variance"
    return (
        f"{one.role} {one.metric}, {one.arm}: {one.control_mean:.4g} -> {one.arm_mean:.4g}, "
        f"{between}{lift}, p {one.p:.3g}{kept}{less}"
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) for name, value in values.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, tuple):
        return [_finite(one) for one in value]
    return value
