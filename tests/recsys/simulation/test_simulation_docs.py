"""docs/simulation.md lists the guardrails as they are."""

from __future__ import annotations

from pathlib import Path

from recsys.simulation.estimates.slope import LIMITS
from recsys.simulation.trial.guardrails import GUARDRAILS

PAGE = (Path(__file__).resolve().parents[3] / "docs/simulation.md").read_text()


def test_guardrails() -> None:
    part = PAGE.split("## Guardrails")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    assert rows == [
        [f"`{one.name}`", one.measures, one.harm, f"{one.margin:.0%}"] for one in GUARDRAILS
    ]


def test_limits() -> None:
    said = PAGE.split("no limit, ")[1].split(". The values")[0].replace(" and", ",")
    assert [float(limit) for limit in said.split(",") if limit.strip()] == list(LIMITS[1:])
