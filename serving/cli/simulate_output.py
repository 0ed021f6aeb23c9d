"""The print-out of a simulation: every check before any winner."""

from __future__ import annotations

from pathlib import Path

from recsys.simulation.report.parts import TablePart
from recsys.simulation.trial.estimate_tables import BY_ESTIMATOR, CLIPPING, REWARD_MODEL, refusals
from recsys.simulation.trial.guardrail_options import TITLE as GUARDRAILS
from recsys.simulation.trial.rounds import TITLE as ROUNDS
from serving.cli.output import table
from serving.jobs.simulate import Simulation

__all__ = ["simulation_text"]


def simulation_text(found: Simulation) -> str:
    """What a terminal shows; the last two lines are the report's path and the verdict."""
    report, trial = found.report, found.trial
    parts = ["1 data and run", _facts(found)]
    parts += ["", "2 checks"]
    parts.append(
        table(
            ["check", "passed", "value"],
            [[one.name, "yes" if one.passed else "NO", one.value] for one in report.diagnostics],
        )
    )
    named = {one.title: one for one in report.tables}
    parts += ["", f"3 clicks a session by the log of {trial.logging}, beside the truth"]
    parts += [_table(named[BY_ESTIMATOR]), f"the model of dm and dr: {REWARD_MODEL}"]
    parts += refusals(trial)
    for number, title in enumerate((CLIPPING, "Arms", "All pairs", "A planned experiment"), 4):
        parts += ["", f"{number} {title[0].lower()}{title[1:]}", _table(named[title])]
    others = len(trial.results) - 1
    compared = f"arms compared with the control: {others}, each at {1 - trial.level:.4f}"
    parts += ["", f"8 guardrails; {compared}", _table(named[GUARDRAILS])]
    parts += ["", "9 what this cannot say", *(f"- {line}" for line in report.cannot_conclude)]
    if ROUNDS in named:
        parts += ["", "10 trained again on its own log", _table(named[ROUNDS])]
    path = found.report_path
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    parts += ["", f"report: {shown}", _verdict(found)]
    return "\n".join(parts)


def _verdict(found: Simulation) -> str:
    winner = f" {found.trial.winner}" if found.trial.winner else ""
    return f"verdict: {found.trial.verdict}{winner}; {'; '.join(found.trial.reasons)}"


def _facts(found: Simulation) -> str:
    width = max(map(len, found.facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in found.facts.items())


def _table(part: TablePart) -> str:
    return table(list(part.rows[0]), [list(row) for row in part.rows[1:]])
