from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from recsys.simulation.experiment import ExperimentReport, Metric, analyse, report_input
from recsys.simulation.report.page import report_page


def report(*arms: str, better: str = "higher", planned: int | None = 3000) -> ExperimentReport:
    rng = np.random.default_rng(5)
    arm = rng.integers(len(arms), size=3000)
    frame = pl.DataFrame(
        {
            "arm": np.array(arms)[arm],
            "spend": rng.normal(2, 1, 3000) + 0.3 * arm,
            "visits": rng.normal(5, 1, 3000),
            "country": rng.choice(["at", "be", "ch", "dk"], 3000),
        }
    )
    metrics = [
        Metric("spend", "spend", better=better),  # type: ignore[arg-type]
        Metric("visits", "visits", role="guardrail", loss=0.05),
    ]
    return analyse(
        frame,
        name="order",
        shares=dict.fromkeys(arms, 1.0),
        metrics=metrics,
        slices=["country"],
        planned_units=planned,
    )


def test_the_page_says_what_the_report_says() -> None:
    found = report("old", "new")
    shown = report_input(found)
    spend = found.metrics[0]
    assert shown.decision is not None
    assert shown.decision.verdict == "SHIP"
    assert shown.effects[0].value == spend.lift
    assert (shown.effects[0].low, shown.effects[0].percent) == (spend.lift_low, True)
    assert [line.passed for line in shown.diagnostics] == [True, True]
    assert [line.value for line in shown.slices] == [one.shrunk for one in found.slices]
    page = report_page(shown)
    assert "Experiment order" in page
    assert "country = be" in page


def test_what_is_better_points_up() -> None:
    found = report("old", "new", better="lower")
    shown = report_input(found)
    assert found.verdict == "STOP"
    assert shown.effects[0].value == -found.metrics[0].lift
    assert shown.effects[0].high == -found.metrics[0].lift_low
    assert "sign turned" in shown.effects[0].note


def test_the_power_curve_marks_what_is_found_with_80_percent() -> None:
    found = report("old", "new")
    curve = report_input(found).power
    assert curve is not None
    xs, ys = np.array(curve.lines[0].points).T
    assert ys[0] == pytest.approx(0.05)
    assert float(np.interp(curve.marked_x or 0.0, xs, ys)) == pytest.approx(0.8, abs=0.01)


def test_several_arms_and_too_few_units() -> None:
    shown = report_input(report("old", "new", "newest"))
    assert [line.name for line in shown.effects][:2] == ["spend (new)", "spend (newest)"]
    early = report_input(report("old", "new", planned=None))
    assert early.facts["planned units"] == "none planned"
    assert any("no number of units was planned" in one for one in early.cannot_conclude)
