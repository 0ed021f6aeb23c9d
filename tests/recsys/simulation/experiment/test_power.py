from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.simulation.experiment import (
    Design,
    days_needed,
    detectable_effect,
    linearised,
    plan_mean,
    plan_proportion,
    plan_ratio,
    power_at,
)


@pytest.mark.parametrize(
    ("baseline", "lift", "units"),
    [(0.05, 0.05, 119_303), (0.0035, 0.43, 24_172), (0.02, 0.02, 1_922_976)],
)
def test_known_sizes(baseline: float, lift: float, units: int) -> None:
    plan = plan_proportion(baseline, lift)
    assert plan.units == (units, units)
    assert plan.total == 2 * units
    assert plan.lift == pytest.approx(lift)


def test_two_variances_are_a_bit_more() -> None:
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    want = math.ceil(z**2 * (0.05 * 0.95 + 0.055 * 0.945) / 0.005**2)
    assert plan_proportion(0.05, 0.1, variances=2).units == (want, want)
    assert want > plan_proportion(0.05, 0.1).units[0]


def test_unequal_shares() -> None:
    plan = plan_mean(10, 4, 0.05, design=Design(shares=(3, 1)))
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    total = z**2 * 16 * (1 / 0.75 + 1 / 0.25) / 0.5**2
    assert plan.units == (math.ceil(total * 0.75), math.ceil(total * 0.25))
    assert plan.power_for(0.5) == pytest.approx(0.8, abs=1e-3)
    assert plan.power_for(0.5, share=0.5) < 0.55


def test_more_power_one_side_and_stricter_alpha() -> None:
    base = plan_mean(1, 1, 0.1).total
    assert plan_mean(1, 1, 0.1, design=Design(power=0.9)).total > base
    assert plan_mean(1, 1, 0.1, design=Design(alpha=0.01)).total > base
    assert plan_mean(1, 1, 0.1, design=Design(sides=1)).total < base
    assert plan_mean(1, 1, -0.1).total == base


def test_several_arms_pay_for_it() -> None:
    sizes = {
        correction: plan_mean(
            1, 1, 0.1, design=Design(shares=(1, 1, 1, 1), correction=correction)
        ).units[0]
        for correction in ("none", "dunnett", "bonferroni")
    }
    assert sizes["none"] == plan_mean(1, 1, 0.1).units[0]
    assert sizes["none"] < sizes["dunnett"] < sizes["bonferroni"]


def test_a_single_arm_needs_no_correction() -> None:
    values = {Design(correction=one).critical() for one in ("none", "dunnett", "bonferroni")}
    assert values == {NormalDist().inv_cdf(0.975)}


def test_cuped_leaves_what_it_should() -> None:
    plain = plan_mean(1, 1, 0.01).total
    less = plan_mean(1, 1, 0.01, design=Design(covariate_correlation=0.8)).total
    assert less / plain == pytest.approx(0.36, abs=1e-3)


def test_a_ratio_is_planned_by_its_delta_variance(rng: np.random.Generator) -> None:
    below = rng.poisson(5, 2000) + 1.0
    top = rng.binomial(below.astype(int), 0.3).astype(float)
    values = linearised(top, below)
    plan = plan_ratio(top, below, 0.02)
    assert plan.baseline == pytest.approx(top.sum() / below.sum())
    assert plan.units == plan_mean(values.mean(), values.std(ddof=1), 0.02).units


def test_detectable_effect_undoes_the_plan() -> None:
    design = Design(shares=(2, 1, 1), covariate_correlation=0.5)
    plan = plan_mean(10, 3, 0.03, design=design)
    assert detectable_effect(plan.units, 9.0, design=design) == pytest.approx(0.3, rel=1e-3)


def test_power_at_is_what_happens(rng: np.random.Generator) -> None:
    z = rng.standard_normal(200_000) + 1.3
    assert power_at(1.3, 1.0) == pytest.approx((np.abs(z) > 1.95996).mean(), abs=0.005)
    assert power_at(1.3, 1.0, sides=1, critical=1.0) == pytest.approx((z > 1).mean(), abs=0.005)
    assert power_at(0.0, 2.0) == pytest.approx(0.05)
    assert power_at(np.array([0.0, 9.0]), 1.0).shape == (2,)


def test_planned_power_is_reached(rng: np.random.Generator) -> None:
    plan = plan_proportion(0.1, 0.2, design=Design(shares=(0.6, 0.4), power=0.7), variances=2)
    trials = 8000
    a = rng.binomial(plan.units[0], 0.1, trials) / plan.units[0]
    b = rng.binomial(plan.units[1], 0.12, trials) / plan.units[1]
    error = np.sqrt(a * (1 - a) / plan.units[0] + b * (1 - b) / plan.units[1])
    found = float((np.abs(b - a) > plan.critical * error).mean())
    assert abs(found - 0.7) <= 4 * (0.21 / trials) ** 0.5 + 0.005


def test_days() -> None:
    assert days_needed(1000, 100) == 14
    assert days_needed(1000, 100, whole_weeks=False) == 10
    assert days_needed(1000, 100, traffic=0.5, whole_weeks=False) == 20
    assert days_needed(700, 100) == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": (1.0,)}, "shares must be > 0 for the control and at least one arm"),
        ({"alpha": 0.5}, "alpha must be above 0 and below 0.5, got 0.5"),
        ({"power": 0.01}, "power must be above alpha and below 1, got 0.01"),
        ({"sides": 3}, "sides must be 1 or 2, got 3"),
        ({"covariate_correlation": 1.0}, "covariate_correlation must be above -1 and below 1"),
    ],
)
def test_a_design_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Design(**values)  # type: ignore[arg-type]


def test_other_refusals() -> None:
    with pytest.raises(ConfigError, match="unknown correction 'tukey'"):
        Design(correction="tukey")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 0\.6 and 1\.2; a mean that is no rate"):
        plan_proportion(0.6, 1.0)
    with pytest.raises(ValueError, match="variances must be 1 or 2, got 3"):
        plan_proportion(0.5, 0.1, variances=3)
    with pytest.raises(ValueError, match="lift must be a number other than 0"):
        plan_mean(1, 1, 0.0)
    with pytest.raises(ValueError, match="standard_deviation must be > 0, got 1 and 0"):
        plan_mean(1, 0, 0.1)
    with pytest.raises(ValueError, match="n >= 2 earlier units, got 1"):
        plan_ratio(np.ones(1), np.ones(1), 0.1)
    with pytest.raises(ValueError, match="variance must be > 0, got 0"):
        detectable_effect((10, 10), 0.0)
    with pytest.raises(ValueError, match="units_per_day must be > 0, got 0"):
        days_needed(10, 0)
    with pytest.raises(ValueError, match="traffic must be above 0 and at most 1, got 2"):
        days_needed(10, 1, traffic=2)
