from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.errors import LeakageError
from recsys.simulation.experiment import (
    ExperimentReport,
    Metric,
    analyse,
    cuped,
    dunnett,
    linearised,
    many_to_one_loadings,
    welch,
)

EVEN = {"control": 1.0, "new": 1.0}
SPEND = Metric("spend", "spend")
GUARD = Metric("visits", "visits", role="guardrail", loss=0.05)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def units(
    rng: np.random.Generator,
    num: int = 4000,
    *,
    effect: float = 0.0,
    visits: float = 0.0,
    arms: tuple[str, ...] = ("control", "new"),
) -> pl.DataFrame:
    arm = np.arange(num) % len(arms)
    before = rng.normal(size=num)
    views = rng.poisson(9, num) + 1
    start = datetime(2026, 5, 1)
    return pl.DataFrame(
        {
            "arm": np.array(arms)[arm],
            "before": before,
            "spend": 2 + 0.8 * before + 0.6 * rng.normal(size=num) + effect * (arm > 0),
            "visits": rng.normal(5, 1, num) + visits * (arm > 0),
            "views": views,
            "clicks": rng.binomial(views, 0.1),
            "country": rng.choice(["at", "be", "ch", "dk", "es"], num),
        }
    ).with_columns(
        pl.lit(start).alias("exposed_at"),
        pl.lit(start - timedelta(seconds=1)).alias("measured_until"),
    )


def read(frame: pl.DataFrame, *metrics: Metric, **values: Any) -> ExperimentReport:
    given = {"name": "order", "shares": EVEN, "planned_units": frame.height}
    return analyse(frame, metrics=metrics or (SPEND, GUARD), **{**given, **values})


def test_every_number_is_that_of_the_pieces(rng: np.random.Generator) -> None:
    frame = units(rng, effect=0.1)
    report = read(
        frame,
        Metric("spend", "spend", covariates=("before",)),
        Metric("ctr", "clicks", "views", role="secondary"),
    )
    spend, ctr = report.metrics
    arm = frame["arm"].to_numpy()
    found = cuped(
        frame["spend"].to_numpy(),
        frame["before"].to_numpy(),
        arm=arm,
        measured_until=0.0,
        exposed_at=1.0,
    )
    want = welch(found.values[arm == "control"], found.values[arm == "new"])
    assert (spend.difference, spend.standard_error) == (want.difference, want.standard_error)
    assert spend.p == want.p
    assert (spend.low, spend.high) == pytest.approx((want.low, want.high), rel=1e-9)
    assert spend.variance_ratio == pytest.approx(0.36, abs=0.03)
    assert spend.unadjusted_error > 1.5 * spend.standard_error
    assert spend.lift == pytest.approx(want.difference / want.control_mean)
    one, two = (
        linearised(part["clicks"].to_numpy(), part["views"].to_numpy())
        for part in (frame.filter(pl.col("arm") == name) for name in EVEN)
    )
    assert ctr.difference == pytest.approx(welch(one, two).difference)
    assert ctr.p == pytest.approx(welch(one, two).p)
    assert report.arms == {"control": 2000, "new": 2000}
    json.dumps(report.to_dict(), allow_nan=False)


def test_another_alpha_is_the_level_of_the_interval(rng: np.random.Generator) -> None:
    frame = units(rng, 60)
    arm = frame["arm"].to_numpy()
    spend = frame["spend"].to_numpy()
    want = welch(spend[arm == "control"], spend[arm == "new"], level=0.8)
    found = read(frame, SPEND, alpha=0.2).metrics[0]
    assert (found.low, found.high) == pytest.approx((want.low, want.high), rel=1e-9)


def test_better_and_safe_ships(rng: np.random.Generator) -> None:
    report = read(units(rng, effect=0.2))
    assert report.verdict == "SHIP"
    assert report.decision == "new is better than the control and breaks no guardrail"
    assert [one.guardrail for one in report.metrics] == [None, "safe"]
    text = report.to_text()
    assert text.startswith("SHIP: new is better")
    assert "4,000 units of 4,000 planned (control 2,000, new 2,000)" in text


def test_better_with_a_broken_guardrail_does_not(rng: np.random.Generator) -> None:
    report = read(units(rng, effect=0.2, visits=-0.6))
    assert report.verdict == "STOP"
    assert any("guardrail visits: it got worse" in reason for reason in report.reasons)


def test_better_with_an_unclear_guardrail_is_held(rng: np.random.Generator) -> None:
    strict = Metric("visits", "visits", role="guardrail", loss=0.001)
    report = read(units(rng, effect=0.2), SPEND, strict)
    assert report.verdict == "HOLD"
    assert "another metric does not allow to ship it" in report.decision


def test_worse_stops_in_both_directions(rng: np.random.Generator) -> None:
    frame = units(rng, effect=0.2)
    assert read(frame, Metric("cost", "spend", better="lower")).verdict == "STOP"
    assert read(units(rng, effect=-0.2), Metric("cost", "spend", better="lower")).verdict == "SHIP"


def test_nothing_found_says_what_is_ruled_out(rng: np.random.Generator) -> None:
    report = read(units(rng))
    low, high = report.metrics[0].low, report.metrics[0].high
    assert report.verdict == "HOLD"
    assert f"outside [{low:+.3g}, {high:+.3g}] (new) is ruled out" in report.decision


def test_while_it_runs_intervals_are_wider(rng: np.random.Generator) -> None:
    frame = units(rng)
    end, now = read(frame), read(frame, planned_units=8000)
    assert (end.reading, now.reading) == ("planned end", "running")
    assert now.verdict == "CONTINUE"
    assert "4,000 of 8,000 planned units came" in now.decision
    one, other = end.metrics[0], now.metrics[0]
    assert other.high - other.low > 1.3 * (one.high - one.low)
    assert other.p >= one.p
    assert read(units(rng, effect=0.3), planned_units=8000).verdict == "SHIP"


def test_a_harmful_arm_is_named_while_the_others_go_on(rng: np.random.Generator) -> None:
    names = ("control", "a", "b")
    frame = units(rng, 3000, arms=names).with_columns(
        pl.col("spend") - pl.when(pl.col("arm") == "b").then(0.8).otherwise(0.0)
    )
    report = read(frame, SPEND, shares=dict.fromkeys(names, 1.0), planned_units=6000)
    assert report.verdict == "CONTINUE"
    assert report.decision.endswith("take b out, which does harm")


def test_a_guardrail_of_nothing_cannot_be_kept(rng: np.random.Generator) -> None:
    frame = units(rng, effect=0.2).with_columns(broken=pl.lit(0.0))
    report = read(frame, SPEND, Metric("broken", "broken", role="guardrail", loss=0.05))
    assert report.verdict == "HOLD"
    assert any("its mean in the control is 0" in reason for reason in report.reasons)
    json.dumps(report.to_dict(), allow_nan=False)
    running = read(frame, SPEND, Metric("broken", "broken", role="secondary"), planned_units=9000)
    assert running.to_dict()["metrics"][1]["low"] is None
    assert "no interval: too few units, or nothing varies" in running.to_text()


def test_looking_often_with_the_report_alarms_rarely(rng: np.random.Generator) -> None:
    """Ten looks at experiments without an effect, through the whole report."""
    trials, wrong, peeking = 120, 0, 0
    for _ in range(trials):
        frame = units(rng, 2000)
        looks = [frame.head(look) for look in range(200, 2000, 200)]
        metric = Metric("spend", "spend", covariates=("before",))
        found = [read(look, metric, planned_units=2000).metrics[0] for look in looks]
        wrong += any(one.direction for one in found)
        peeking += any(
            read(look, metric, planned_units=None).metrics[0].direction for look in looks
        )
    assert wrong / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5
    assert peeking / trials > 0.1


def test_too_few_units_to_look(rng: np.random.Generator) -> None:
    report = read(units(rng, 100, effect=5.0), planned_units=8000)
    assert report.verdict == "CONTINUE"
    assert report.metrics[0].p == 1.0
    assert report.to_dict()["metrics"][0]["low"] is None
    assert "no interval: too few units, or nothing varies" in report.to_text()


def test_without_a_plan_it_warns(rng: np.random.Generator) -> None:
    report = read(units(rng), planned_units=None)
    assert report.reading == "no plan"
    assert any("no number of units was planned" in one for one in report.warnings)
    assert not read(units(rng)).warnings


def test_a_lost_arm_is_invalid_whatever_it_shows(rng: np.random.Generator) -> None:
    frame = units(rng, effect=1.0)
    kept = frame.filter((pl.col("arm") == "control") | (pl.Series(rng.random(4000)) < 0.8))
    report = read(kept, planned_units=4000)
    assert report.verdict == "INVALID"
    assert "instead of" in report.reasons[0]
    assert read(kept, shares={"control": 1.0, "new": 0.8}).verdict == "SHIP"


def test_several_arms_share_the_level(rng: np.random.Generator) -> None:
    names = ("control", "a", "b", "c")
    shares = dict.fromkeys(names, 1.0)
    frame = units(rng, 2000, arms=names)
    report = read(frame, SPEND, shares=shares)
    values = {name: frame.filter(pl.col("arm") == name)["spend"].to_numpy() for name in names}
    effects = [welch(values["control"], values[name]) for name in names[1:]]
    variance = effects[0].control_error ** 2
    loadings = many_to_one_loadings(
        variance, np.array([one.standard_error**2 - variance for one in effects])
    )
    z = np.array([one.difference / one.standard_error for one in effects])
    np.testing.assert_allclose([one.p for one in report.metrics], dunnett(z, loadings))
    assert all(
        one.high - one.low > effect.high - effect.low
        for one, effect in zip(report.metrics, effects, strict=True)
    )


def test_false_alarms_over_arms_and_decisions(rng: np.random.Generator) -> None:
    names = ("control", "a", "b")
    trials = 200
    shipped = alarmed = 0
    for _ in range(trials):
        report = read(units(rng, 300, arms=names), SPEND, shares=dict.fromkeys(names, 1.0))
        alarmed += any(one.direction for one in report.metrics)
        shipped += report.verdict == "SHIP"
    error = (0.05 * 0.95 / trials) ** 0.5
    assert abs(alarmed / trials - 0.05) <= 4 * error
    assert shipped / trials <= 0.025 + 4 * error


def test_the_best_of_several_good_arms_is_named(rng: np.random.Generator) -> None:
    names = ("control", "a", "b")
    frame = units(rng, 3000, arms=names, effect=0.3).with_columns(
        pl.col("spend") + pl.when(pl.col("arm") == "b").then(0.5).otherwise(0.0)
    )
    assert read(frame, SPEND, shares=dict.fromkeys(names, 1.0)).decision.startswith("b is better")


def test_a_covariate_that_knows_the_arm_is_not_used(rng: np.random.Generator) -> None:
    """Measured after exposure although its time says otherwise: it carries the effect."""
    frame = units(rng, effect=0.3)
    leaking = frame.with_columns(after=pl.col("spend") + 0.1 * pl.col("before"))
    report = read(leaking, Metric("spend", "spend", covariates=("after",)))
    assert report.metrics[0].variance_ratio == 1.0
    assert report.metrics[0].difference == pytest.approx(0.3, abs=0.1)
    assert any("covariate after differs between arms" in one for one in report.warnings)


def test_a_covariate_from_after_exposure_is_refused(rng: np.random.Generator) -> None:
    frame = units(rng).with_columns(measured_until=pl.col("exposed_at"))
    with pytest.raises(LeakageError, match="for 4000 of 4000 units"):
        read(frame, Metric("spend", "spend", covariates=("before",)))


def test_slices(rng: np.random.Generator) -> None:
    frame = units(rng, 6000).with_columns(
        pl.col("spend")
        + pl.when((pl.col("arm") == "new") & (pl.col("country") == "es")).then(1.5).otherwise(0.0)
    )
    report = read(frame, slices=["country"])
    found = {one.value: one for one in report.slices}
    assert set(found) == {"at", "be", "ch", "dk", "es"}
    assert all(one.metric == "spend" for one in report.slices)
    assert found["es"].low > 0.5
    assert found["at"].heterogeneity_p < 1e-6
    assert abs(found["at"].shrunk) < 0.4
    part = frame.filter(pl.col("country") == "be")
    alone = welch(*(part.filter(pl.col("arm") == name)["spend"].to_numpy() for name in EVEN))
    assert found["be"].difference == pytest.approx(alone.difference)
    assert "by slice" in report.to_text()
    assert read(frame, slices=["country"], min_slice=10_000).slices == ()
    ratio = read(frame, Metric("ctr", "clicks", "views"), slices=["country"])
    assert len(ratio.slices) == 5


def test_a_slice_that_lost_units_is_a_warning(rng: np.random.Generator) -> None:
    frame = units(rng, 20_000)
    lost = (pl.col("country") == "es") & (pl.col("arm") == "new")
    kept = frame.filter(~(lost & pl.Series(rng.random(20_000) < 0.2)))
    report = read(kept, slices=["country"])
    assert report.verdict != "INVALID"
    assert "units did not reach the arms as planned in country = es" in report.warnings


def test_secondary_metrics_pay_for_their_number(rng: np.random.Generator) -> None:
    frame = units(rng)
    extra = [Metric(name, name, role="secondary") for name in ("visits", "views", "clicks")]
    alone = [read(frame, SPEND, one).metrics[1].p for one in extra]
    together = [one.p for one in read(frame, SPEND, *extra).metrics[1:]]
    assert min(together) == pytest.approx(min(1.0, 3 * min(alone)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": {"control": 1.0}}, "shares must name the control and at least one arm"),
        ({"metrics": (GUARD,)}, "metrics must hold a primary one"),
        ({"metrics": (SPEND, SPEND)}, "metrics must have different names"),
        ({"alpha": 0.7}, "alpha must be above 0 and below 0.5"),
        ({"planned_units": 3}, "planned_units must be >= 4, got 3"),
        ({"metrics": (Metric("x", "lost"),)}, r"must have the columns lost \(metrics\)"),
        ({"slices": ["city"]}, r"must have the columns city \(slices\)"),
        ({"shares": {"control": 1.0, "b": 1.0}}, "one of control, b, got new too"),
        ({"shares": {**EVEN, "b": 1.0}}, r"at least two units, got \{'b': 0\}"),
    ],
)
def test_analyse_refuses(values: dict[str, Any], message: str, rng: np.random.Generator) -> None:
    given: dict[str, Any] = {"name": "order", "shares": EVEN, "metrics": (SPEND,)}
    with pytest.raises(ValueError, match=message):
        analyse(units(rng, 50), **{**given, **values})


def test_a_unit_that_did_nothing_has_zero(rng: np.random.Generator) -> None:
    frame = units(rng, 50).with_columns(spend=pl.lit(None, pl.Float64))
    with pytest.raises(ValueError, match="no nulls in 'spend': 50 of 50 rows have"):
        read(frame)


def test_a_guardrail_needs_its_loss() -> None:
    with pytest.raises(ValueError, match="loss must be given for a guardrail and for nothing else"):
        Metric("visits", "visits", role="guardrail")
    with pytest.raises(ValueError, match=r"got 0.1 for a primary"):
        Metric("visits", "visits", loss=0.1)
