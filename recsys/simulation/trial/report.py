"""What the report of a simulation says, in the parts of `recsys.simulation.report.parts`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from recsys.simulation.experiment.power import Design, plan_mean
from recsys.simulation.report.parts import (
    DecisionPart,
    DiagnosticLine,
    EffectLine,
    ReasonLine,
    ReportInput,
    TablePart,
)
from recsys.simulation.trial.estimate_tables import clip_table, estimate_lines, policy_table
from recsys.simulation.trial.experiment import Trial
from recsys.simulation.trial.guardrail_options import guardrail_table

__all__ = ["simulation_report"]

CANNOT = (
    "People here click as a model fitted to the log says. Whom the log does not hold, what was "
    "launched after it, prices, seasons and the look of the page are not in it.",
    "An item that nobody met in the log is as unattractive as its factors say, whoever shows it: "
    "arms that find such items are judged too low.",
    "Half of an item's attraction is whether the person met it later in the log: an arm that finds "
    "what was held out does well here too. This is no second proof of what `recsys evaluate` says.",
    "An estimate from one arm's log says nothing of items that arm never shows at a place.",
    "How people come back is assumed, not fitted: read the differences in clicks, not in returns.",
    "How fast an arm answers, and what people complain of, are not simulated.",
)


def simulation_report(trial: Trial, facts: Mapping[str, str | int | float]) -> ReportInput:
    """The report of a trial."""
    control = trial.results[0]
    others = [one.name for one in trial.results[1:]]
    summary = {
        "PROMOTE": f"{trial.winner} gets more clicks than {control.name} in this world.",
        "HOLD": f"No arm surely gets more clicks than {control.name} in this world and keeps "
        "every guardrail.",
        "SUSPICIOUS": "A check of the simulation failed; no winner is named.",
    }[trial.verdict]
    return ReportInput(
        title=f"Simulation: {', '.join(others)} against {control.name}",
        decision=DecisionPart(
            trial.verdict, summary, tuple(ReasonLine(text) for text in trial.reasons)
        ),
        facts=facts,
        level=0.95,
        effects=tuple(
            EffectLine(
                f"{metric} per session, {name}",
                *trial.lift(name, metric)[3:],
                num_units=trial.result(name).num_people,
                percent=True,
                note=f"interval {trial.level:.1%}: 95% over {len(others)} comparisons",
            )
            for metric in ("clicks", "conversions")
            for name in others
        ),
        estimates=estimate_lines(trial),
        diagnostics=tuple(_checks(trial)),
        tables=(
            _arms(trial),
            _pairs(trial),
            guardrail_table(trial),
            policy_table(trial),
            clip_table(trial),
            *_deciles(trial),
            _planned(trial),
        ),
        cannot_conclude=CANNOT,
    )


def _checks(trial: Trial) -> list[DiagnosticLine]:
    found = [
        DiagnosticLine(
            "people per arm",
            not trial.split.alarm,
            f"p {trial.split.p:.3g}",
            "p at least .001",
            "Arms have the numbers of people that were planned.",
        )
    ]
    for one in trial.estimates:
        health = one.diagnostics
        found.append(
            DiagnosticLine(
                f"weights of {one.arm} on the log of {one.logging}",
                health.verdict != "unusable",
                f"mean {health.mean.value:.3f} [{health.mean.low:.3f}, {health.mean.high:.3f}], "
                f"largest {health.largest:.1f}, effective {health.effective_share:.2%}",
                "mean 1 +- .05, effective at least 1%",
                "; ".join(reason.text for reason in health.reasons),
            )
        )
        if one.arm == one.logging:
            away = one.errors_from_truth(one.ips) or 0.0
            found.append(
                DiagnosticLine(
                    "A/A: the logging arm on its own log",
                    abs(away) <= 4.0,
                    f"{away:+.2f} standard errors from its true value",
                    "at most 4",
                )
            )
    for one in trial.refused:
        found.append(
            DiagnosticLine(
                f"{one.arm} from the log of {one.logging}, which never draws",
                one.diagnostics.verdict != "unusable",
                f"mean weight {one.diagnostics.mean.value:.3f}",
                "mean 1 +- .05",
                "A log without exploration says nothing of what it does not show.",
            )
        )
    if trial.honesty is not None:
        for kind, deciles in (
            ("clicks", trial.honesty.clicks),
            ("conversions", trial.honesty.conversions),
        ):
            if deciles:
                close = sum(one.within() for one in deciles)
                told = sum(one.explained() for one in deciles)
                found.append(
                    DiagnosticLine(
                        f"simulated {kind} against logged, by decile",
                        told >= 8,
                        f"{close} of 10 within 10%, {told} of 10 within 10% or two standard errors",
                        "at least 8 of 10",
                    )
                )
    return found


def _arms(trial: Trial) -> TablePart:
    head = ("arm", "people", "sessions", "clicks a session", "interval", "clicks a place",
            "conversions a session", "sessions a person", "catalogue shown")  # fmt: skip
    rows = [
        (
            one.name,
            f"{one.num_people:,}",
            f"{one.num_sessions:,}",
            f"{one.clicks.value:.4f}",
            f"{one.clicks.low:.4f} to {one.clicks.high:.4f}",
            f"{one.click_rate.value:.4f}",
            f"{one.conversions.value:.4f}",
            f"{one.returns.value:.3f}",
            f"{one.coverage:.1%}",
        )
        for one in trial.results
    ]
    return TablePart("Arms", (head, *rows), "Intervals count people, not sessions.")


def _pairs(trial: Trial) -> TablePart:
    head = ("arm", "against", "metric", "lift", "low", "high")
    rows = [
        (one.arm, one.against, one.metric, *(f"{v:+.2%}" for v in one[3:])) for one in trial.lifts
    ]
    return TablePart("All pairs", (head, *rows), f"Intervals of {trial.level:.1%}.")


def _deciles(trial: Trial) -> list[TablePart]:
    if trial.honesty is None:
        return []
    head = ("decile", "pairs", "logged", "simulated", "simulated / logged", "logged's error")
    tables = []
    for title, deciles in (
        ("Simulated against logged: clicks", trial.honesty.clicks),
        ("Simulated against logged: conversions", trial.honesty.conversions),
    ):
        rows = [
            (
                str(number),
                f"{one.num_pairs:,}",
                f"{one.logged:.5f}",
                f"{one.simulated:.5f}",
                f"{one.ratio:.3f}" if np.isfinite(one.ratio) else "-",
                f"{one.logged_error:.5f}",
            )
            for number, one in enumerate(deciles, start=1)
        ]
        if rows:
            tables.append(TablePart(title, (head, *rows), "Maps from the other half of the users."))
    return tables


def _planned(trial: Trial) -> TablePart:
    control = trial.results[0].clicks
    # Errors are of people: what one person adds to the variance of the mean.
    spread = control.standard_error * math.sqrt(trial.results[0].num_people)
    design = Design(shares=(1.0,) * len(trial.results))
    head = ("lift to find", "people an arm")
    rows = [
        (f"{lift:.0%}", f"{max(plan_mean(control.value, spread, lift, design=design).units):,}")
        for lift in (0.01, 0.02, 0.05, 0.1)
    ]
    text = (
        "For a real experiment on clicks per session with people as noisy as here: power 80%, "
        "alpha 5% over all arms, read once at the planned size."
    )
    return TablePart("A planned experiment", (head, *rows), text)
