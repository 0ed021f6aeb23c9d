"""The gate's decision as a report."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.config.gate_rules import GateRules
from recsys.simulation.gate.decide import GateDecision
from recsys.simulation.gate.evidence import Evidence
from recsys.simulation.report.parts import (
    CurvePlot,
    DecisionPart,
    DiagnosticLine,
    EstimateLine,
    ReasonLine,
    ReportInput,
    WeightsPart,
)

__all__ = ["gate_report"]


def gate_report(
    decision: GateDecision,
    candidate: Evidence,
    incumbent: Evidence | None,
    rules: GateRules,
    *,
    weights: Sequence[WeightsPart] = (),
    notes: Sequence[str] = (),
    power: CurvePlot | None = None,
) -> ReportInput:
    """What `recsys.simulation.report.page.write_report` makes a page of.

    Args:
        decision: of `recsys.simulation.gate.decide.decide`.
        candidate: as it was given there.
        incumbent: likewise.
        rules: likewise.
        weights: of the log that the estimates come from.
        notes: what else cannot be concluded.
        power: of an experiment that would settle it.
    """
    against = "nothing" if incumbent is None else incumbent.name
    facts: dict[str, str | int | float] = {
        "candidate": candidate.name,
        "incumbent": against,
        "users judged": candidate.users.num_users,
        "data fingerprint": candidate.data,
        "held out": candidate.split,
        "cutoff": candidate.k,
    }
    return ReportInput(
        title="May this bundle take over?",
        decision=DecisionPart(
            verdict=decision.verdict,
            summary=f"Bundle {candidate.name} against {against}.",
            reasons=tuple(
                ReasonLine(one.says, one.rule, one.verdict, one.value, one.bound, one.slice)
                for one in decision.reasons
            ),
        ),
        facts=facts,
        effects=decision.effects,
        level=rules.level,
        slices=decision.slices,
        estimates=_both(candidate, incumbent),
        diagnostics=_guardrails(candidate, incumbent, decision),
        weights=tuple(weights),
        power=power,
        cannot_conclude=(*decision.unsaid, *notes),
    )


def _both(candidate: Evidence, incumbent: Evidence | None) -> tuple[EstimateLine, ...]:
    return (*candidate.estimates, *(() if incumbent is None else incumbent.estimates))


def _guardrails(
    candidate: Evidence, incumbent: Evidence | None, decision: GateDecision
) -> tuple[DiagnosticLine, ...]:
    failed = {reason.rule for reason in decision.reasons if reason.verdict != "PROMOTE"}
    table = (
        ("coverage", "coverage_drop", "share of the catalogue that is recommended to anybody"),
        ("head_share", "head_share_rise", "share of places the most popular tenth takes"),
        ("exposure_gap", "exposure_gap_rise", "distance of recommended from wanted popularity"),
        ("calibration_error", "calibration_rise", "distance of predicted from observed rates"),
        ("latency_p99_ms", "latency_rise", "milliseconds, one request in a hundred is slower"),
    )
    lines = []
    for name, rule, says in table:
        ours = getattr(candidate, name)
        theirs = None if incumbent is None else getattr(incumbent, name)
        if ours is None and theirs is None:
            continue
        before = "" if theirs is None else f"incumbent {theirs:.4g}"
        value = "not measured" if ours is None else ours
        passed = None if theirs is None else rule not in failed
        lines.append(DiagnosticLine(name.replace("_", " "), passed, value, before, says))
    found = "; ".join(candidate.leakage) or "nothing found"
    lines.append(
        DiagnosticLine(
            "leakage", not candidate.leakage, found, "nothing", "the answer among the inputs"
        )
    )
    return tuple(lines)
