"""Guardrails of a simulation: how they are asked for, and the table of the report."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.errors import ConfigError
from recsys.simulation.estimates.estimate import Estimate
from recsys.simulation.report.parts import TablePart
from recsys.simulation.trial.experiment import Trial
from recsys.simulation.trial.guardrails import Guardrail, Kept, with_margins

__all__ = ["TITLE", "guardrail_table", "parse_guardrails"]

TITLE = "Guardrails"


def parse_guardrails(texts: Sequence[str]) -> tuple[Guardrail, ...]:
    """All guardrails, those of ``texts`` ("diversity=0.3") with other margins.

    Raises:
        ConfigError: a text is no NAME=LOSS, a name is unknown, or a margin is out of range.
    """
    margins = {}
    for text in texts:
        name, _, margin = text.partition("=")
        try:
            margins[name] = float(margin)
        except ValueError:
            raise ConfigError(
                f"guardrail must be NAME=LOSS such as diversity=0.3, got {text!r}"
            ) from None
    return with_margins(margins)


def guardrail_table(trial: Trial) -> TablePart:
    """One row an arm and guardrail."""
    head = ("arm", "guardrail", "control", "arm's value", "change", "low", "high", "harm", "margin",
            "verdict")  # fmt: skip
    rows = [
        (
            one.arm,
            one.guardrail.name,
            _value(one.control),
            _value(one.value),
            *_change(one),
            one.guardrail.harm,
            f"{one.guardrail.margin:.0%}",
            one.verdict,
        )
        for one in trial.guardrails
    ]
    measured = dict.fromkeys(f"{one.guardrail.name}: {one.guardrail.measures}"
                             for one in trial.guardrails)  # fmt: skip
    text = (
        "An arm is promoted only where a loss of the margin is ruled out for every line. "
        f"Relative changes against {trial.results[0].name} with intervals of {trial.level:.1%}; "
        f"coverage is known without error. {'; '.join(measured)}."
    )
    return TablePart(TITLE, (head, *rows), text)


def _value(one: Estimate) -> str:
    return f"{one.value:.4f}"


def _change(one: Kept) -> tuple[str, str, str]:
    if one.lift is None or one.low is None or one.high is None:
        return "-", "-", "-"
    return f"{one.lift:+.2%}", f"{one.low:+.2%}", f"{one.high:+.2%}"
