"""An experiment's report as a page."""

from __future__ import annotations

import math

from recsys.simulation.experiment.effect import normal_quantile
from recsys.simulation.experiment.power import power_at
from recsys.simulation.experiment.report import ExperimentReport, MetricResult
from recsys.simulation.report.parts import (
    CurveLine,
    CurvePlot,
    DecisionPart,
    DiagnosticLine,
    EffectLine,
    ReasonLine,
    ReportInput,
)

__all__ = ["report_input"]

_CURVE_POINTS = 41
CANNOT_CONCLUDE = (
    "What happens later than the measured time: novelty wears off, habits come slowly.",
    "What users do to each other: an arm that takes stock or attention from the other arm looks "
    "better than it is.",
)


def report_input(report: ExperimentReport) -> ReportInput:
    """What `recsys.simulation.report.page.write_report` makes a page of.

    Effects are relative where the control's mean allows, and signed so that above 0 is better.

    Args:
        report: from `analyse`.
    """
    ratio = report.sample_ratio
    several = len({one.arm for one in report.metrics}) > 1
    checks = [
        DiagnosticLine(
            "units in each arm",
            None if math.isnan(ratio.p) else not ratio.alarm,
            " : ".join(f"{count:,}" for count in ratio.counts),
            "as planned: " + " : ".join(f"{count:,.0f}" for count in ratio.expected),
            "A mismatch means that units were lost, and nothing can be read.",
        )
    ]
    checks += [
        DiagnosticLine(
            f"guardrail {_named(one, several)}",
            {"safe": True, "harmed": False}.get(one.guardrail or ""),
            one.guardrail or "not tested: the control's mean is 0",
            f"a loss of {one.loss or 0:.1%} is ruled out",
        )
        for one in report.metrics
        if one.role == "guardrail"
    ]
    primary = next(one for one in report.metrics if one.role == "primary")
    return ReportInput(
        title=f"Experiment {report.name}",
        decision=DecisionPart(
            report.verdict,
            report.decision[:1].upper() + report.decision[1:] + ".",
            tuple(ReasonLine(reason) for reason in report.reasons),
        ),
        facts={
            "units": report.num_units,
            "planned units": "none planned"
            if report.planned_units is None
            else report.planned_units,
            "control": report.control,
            **{f"units in {arm}": count for arm, count in report.arms.items()},
            "read as": report.reading,
        },
        effects=tuple(_effect(one, several) for one in report.metrics),
        level=1 - report.alpha,
        power=_power(primary),
        slices=tuple(
            EffectLine(
                f"{f'{one.metric}, {one.arm}, ' if several else ''}{one.slice} = {one.value}",
                one.shrunk,
                one.low,
                one.high,
                one.num_control + one.num_arm,
                note=f"alone {one.difference:+.4g}; pulled towards the mean of all slices",
            )
            for one in report.slices
        ),
        diagnostics=tuple(checks),
        cannot_conclude=(*report.warnings, *CANNOT_CONCLUDE),
    )


def _named(one: MetricResult, several: bool) -> str:
    return f"{one.metric} ({one.arm})" if several else one.metric


def _effect(one: MetricResult, several: bool) -> EffectLine:
    relative = math.isfinite(one.lift_low)
    value, low, high = (
        (one.lift, one.lift_low, one.lift_high) if relative else (one.difference, one.low, one.high)
    )
    if one.better == "lower":
        value, low, high = -value, -high, -low
    notes = [one.role, f"{one.control_mean:.4g} to {one.arm_mean:.4g}", f"p {one.p:.2g}"]
    if one.better == "lower":
        notes.append("lower values are better: shown with the sign turned")
    return EffectLine(
        _named(one, several),
        value,
        low if math.isfinite(low) else None,
        high if math.isfinite(high) else None,
        one.num_control + one.num_arm,
        percent=relative,
        note=", ".join(notes),
    )


def _power(one: MetricResult) -> CurvePlot | None:
    """Chance to have found effects of several sizes with these units, read once."""
    if not one.standard_error > 0 or not one.control_mean > 0:
        return None
    top = 6 * one.standard_error
    effects = [top * place / (_CURVE_POINTS - 1) for place in range(_CURVE_POINTS)]
    chances = power_at(effects, one.standard_error)
    points = tuple(
        (100 * effect / one.control_mean, float(chance))
        for effect, chance in zip(effects, chances, strict=True)
    )
    need = (normal_quantile(0.975) + normal_quantile(0.8)) * one.standard_error
    return CurvePlot(
        (CurveLine(one.metric, points),),
        "true change of the primary metric, % of the control",
        title="What could have been found",
        text="The chance of finding a true change with these units, two-sided 5%, read once.",
        percent=True,
        marked_x=100 * need / one.control_mean,
        marked_label="found with 80%",
    )
