"""What an arm of a simulation must not make worse, while it gets more clicks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import ndtri

from recsys.errors import ConfigError
from recsys.lookup import lookup
from recsys.simulation.estimates.estimate import Estimate, ratio_estimate
from recsys.simulation.experiment.effect import Effect
from recsys.simulation.experiment.guardrails import Better, non_inferior
from recsys.simulation.world.sessions import People

__all__ = ["GUARDRAILS", "Guardrail", "Kept", "guarded_values", "judge_guardrails", "with_margins"]


class Guardrail(NamedTuple):
    """One of them.

    Attributes:
        name: in settings and reports.
        measures: what the number is.
        better: "higher": a fall does harm; "lower": a rise does.
        margin: relative loss that is still accepted.
    """

    name: str
    measures: str
    better: Better
    margin: float

    @property
    def harm(self) -> str:
        """What does harm, in two words."""
        return "a fall" if self.better == "higher" else "a rise"


GUARDRAILS = (
    Guardrail("conversions", "conversions a session", "higher", 0.05),
    Guardrail("no-click", "sessions without a click", "lower", 0.05),
    Guardrail("coverage", "catalogue on first places of anybody's list", "higher", 0.2),
    Guardrail("head-share", "places that the most popular tenth takes", "lower", 0.2),
    Guardrail("diversity", "distance of two items of a slate, by who likes them", "higher", 0.5),
    Guardrail("new-items", "places of items that nobody met yet", "higher", 0.2),
)
"""What people do has the margin of the gate's `max_value_drop`, what they are shown that of its
`max_coverage_drop`. Slates that know a person's taste are less diverse by it: that has more."""


@dataclass(frozen=True)
class Kept:
    """A guardrail of an arm, against the control.

    Attributes:
        arm: judged.
        guardrail: which one.
        control: value of the control, with its interval.
        value: that of the arm.
        lift: relative difference. None: the control has none of it.
        low: lower end of its interval. None likewise.
        high: upper end.
        verdict: "safe": a loss of the margin or more is ruled out; "harmed": not safe, and worse
            than the control beyond chance; "unclear": more sessions are needed.
    """

    arm: str
    guardrail: Guardrail
    control: Estimate
    value: Estimate
    lift: float | None
    low: float | None
    high: float | None
    verdict: Literal["safe", "harmed", "unclear"]

    @property
    def safe(self) -> bool:
        """Whether it holds no arm back."""
        return self.verdict == "safe"

    @property
    def says(self) -> str:
        """A clause for a reason, such as "diversity -30.0% [-31.0%, -29.0%] got worse"."""
        change = f"{self.control.value:.4f} to {self.value.value:.4f}"
        if self.lift is not None:
            change = f"{self.lift:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"
        found = {
            "safe": f"a loss of {self.guardrail.margin:.0%} is ruled out",
            "harmed": "it got worse",
            "unclear": f"a loss of {self.guardrail.margin:.0%} is not ruled out: simulate more",
        }[self.verdict]
        return f"{self.guardrail.name} {change}, {found}"


def with_margins(margins: Mapping[str, float]) -> tuple[Guardrail, ...]:
    """`GUARDRAILS` with other margins.

    Args:
        margins: name to relative loss that is accepted, > 0.

    Raises:
        ConfigError: an unknown name, or a margin that is not above 0 and finite.
    """
    known = {one.name: one for one in GUARDRAILS}
    for name, margin in margins.items():
        known[name] = lookup(known, name, "guardrail")._replace(margin=margin)
        if not 0 < margin < math.inf:
            raise ConfigError(
                f"guardrail {name} must have a margin > 0, a share of the control's value such as "
                f"0.05, got {margin:g}"
            )
    return tuple(known.values())


def guarded_values(people: People, *, k: int, coverage: float) -> dict[str, Estimate]:
    """The value of every guardrail over the people of one arm, errors clustered by person.

    Coverage is that of the lists of all users, which is known without error; diversity is left
    out where ``k`` is 1.

    Args:
        people: of the arm, with traits.
        k: places.
        coverage: share of the catalogue, 0..1.
    """
    sessions = people.sessions.astype(np.float64)
    totals: dict[str, np.ndarray] = {
        "conversions": people.conversions.astype(np.float64),
        "no-click": people.empty.astype(np.float64),
        "head-share": people.traits[:, 0],
        "new-items": people.traits[:, 1],
    }
    if k > 1:
        totals["diversity"] = people.traits[:, 2]
    found = {name: ratio_estimate(name, total, sessions) for name, total in totals.items()}
    found["coverage"] = Estimate("coverage", coverage, 0.0, coverage, coverage, len(sessions))
    return {one.name: found[one.name] for one in GUARDRAILS if one.name in found}


def judge_guardrails(
    arm: str,
    value: Mapping[str, Estimate],
    control: Mapping[str, Estimate],
    *,
    rules: tuple[Guardrail, ...] = GUARDRAILS,
    level: float = 0.95,
) -> tuple[Kept, ...]:
    """Every guardrail of an arm.

    Args:
        arm: its name.
        value: `guarded_values` of the arm.
        control: the same of the control.
        rules: with their margins.
        level: of the intervals, and of the tests.
    """
    return tuple(
        _judge(arm, one, value[one.name], control[one.name], float(ndtri((1 + level) / 2)))
        for one in rules
        if one.name in value and one.name in control
    )


def _judge(arm: str, rule: Guardrail, new: Estimate, old: Estimate, critical: float) -> Kept:
    if not old.value > 0:
        # No relative margin: what is not there cannot fall, and whatever comes is a rise.
        surely = new.value - critical * new.standard_error > 0
        verdict: Literal["safe", "harmed", "unclear"] = "safe"
        if rule.better == "lower" and new.value > 0:
            verdict = "harmed" if surely else "unclear"
        return Kept(arm, rule, old, new, None, None, None, verdict)
    error = math.hypot(new.standard_error, old.standard_error)
    difference = new.value - old.value
    effect = Effect(
        old.value, new.value, difference, error, difference - critical * error,
        difference + critical * error, math.nan, old.num_rounds, new.num_rounds,
        old.standard_error,
    )  # fmt: skip
    ratio = new.value / old.value
    half = critical * math.hypot(new.standard_error, ratio * old.standard_error) / old.value
    verdict = non_inferior(
        effect, margin=rule.margin, better=rule.better, critical=critical
    ).verdict
    return Kept(arm, rule, old, new, ratio - 1, ratio - 1 - half, ratio - 1 + half, verdict)
