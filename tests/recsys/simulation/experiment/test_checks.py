from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import chi2, chisquare

from recsys.simulation.experiment import (
    dunnett,
    dunnett_critical,
    heterogeneity_p,
    holm,
    many_to_one_loadings,
    non_inferior,
    sample_ratio,
    sample_ratio_by_slice,
    sample_ratio_p,
    shrink,
    welch,
)

# --- sample ratio


def test_sample_ratio_by_hand() -> None:
    found = sample_ratio({"c": 5_100, "t": 4_900}, {"c": 0.5, "t": 0.5})
    assert found.expected == (5000.0, 5000.0)
    assert found.chi_square == pytest.approx(4.0)
    assert found.p == pytest.approx(float(chi2.sf(4.0, 1)))
    assert not found.alarm
    assert sample_ratio({"c": 5_100, "t": 4_900}, {"c": 1, "t": 1}, alarm=0.05).alarm
    assert sample_ratio({"c": 51_000, "t": 49_000}, {"c": 1, "t": 1}).alarm


def test_sample_ratio_of_unequal_shares() -> None:
    counts, shares = np.array([520, 310, 170]), np.array([5.0, 3.0, 2.0])
    want = float(chisquare(counts, 1000 * shares / 10).pvalue)
    assert float(sample_ratio_p(counts, shares)) == pytest.approx(want)
    assert sample_ratio_p(np.array([0, 0]), np.array([1, 1])) == 1.0


def test_an_arm_that_nobody_reached_alarms() -> None:
    assert sample_ratio({"c": 100}, {"c": 1, "t": 1}).alarm


def test_too_few_units_to_say() -> None:
    found = sample_ratio({"c": 8}, {"c": 1, "t": 1})
    assert math.isnan(found.p)
    assert not found.alarm


def test_sample_ratio_alarms_at_its_level(rng: np.random.Generator) -> None:
    counts = rng.multinomial(5000, [0.5, 0.3, 0.2], size=100_000)
    found = float((sample_ratio_p(counts, np.array([5, 3, 2])) < 0.001).mean())
    assert abs(found - 0.001) <= 4 * (0.001 / 100_000) ** 0.5


def test_the_slice_that_lost_units_is_named(rng: np.random.Generator) -> None:
    part = np.repeat(["web", "ios", "tv"], 4000)
    arm = rng.choice(["c", "t"], size=part.size)
    kept = ~((part == "ios") & (arm == "t") & (rng.random(part.size) < 0.3))
    found = sample_ratio_by_slice(arm[kept], part[kept], {"c": 1, "t": 1})
    assert {name for name, one in found.items() if one.alarm} == {"ios"}
    alone = sample_ratio_p(np.array(found["web"].counts), np.array([1, 1]))
    assert found["web"].p >= float(alone)


def test_sample_ratio_refuses() -> None:
    with pytest.raises(ValueError, match=r"planned arms \(c, t\), got x too"):
        sample_ratio({"x": 1}, {"c": 1, "t": 1})
    with pytest.raises(ValueError, match="with A >= 2 arms"):
        sample_ratio_p(np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match="shares must be > 0"):
        sample_ratio_p(np.array([1, 1]), np.array([1, 0]))
    with pytest.raises(ValueError, match=r"arm and part must be \[n\]"):
        sample_ratio_by_slice(np.array(["c"]), np.array(["a", "b"]), {"c": 1, "t": 1})


# --- several questions


@pytest.mark.parametrize("size", [1, 2, 9])
def test_adjusted_p_equal_the_loops(
    size: int, reference: ModuleType, rng: np.random.Generator
) -> None:
    for _ in range(20):
        p = np.round(rng.random(size) ** 2, 2)  # ties as well
        np.testing.assert_allclose(holm(p), reference.holm(p.tolist()))


def test_adjusted_p_of_nothing() -> None:
    assert holm(np.array([])).size == 0


def test_holm_keeps_all_false_alarms_together(rng: np.random.Generator) -> None:
    p = rng.random((2000, 5))
    found = np.mean([(holm(row) < 0.05).any() for row in p])
    assert abs(found - 0.05) <= 4 * (0.05 * 0.95 / 2000) ** 0.5


def test_dunnett_is_between_one_and_bonferroni() -> None:
    # Table of Dunnett 1964, infinite degrees of freedom, equal arms, two-sided .05.
    for arms, want in ((1, 1.960), (2, 2.212), (3, 2.349), (5, 2.511)):
        found = dunnett_critical(np.full(arms, 0.5**0.5))
        assert found == pytest.approx(want, abs=1e-3)
    assert dunnett_critical(np.full(1, 0.5), sides=1) == pytest.approx(1.64485, abs=1e-4)
    assert dunnett_critical(np.full(2, 0.5**0.5), sides=1) == pytest.approx(1.916, abs=1e-3)


def test_dunnett_is_what_happens(rng: np.random.Generator) -> None:
    variances = np.array([0.5, 1.0, 1.0, 2.0])
    means = rng.normal(size=(200_000, 4)) * variances**0.5
    z = (means[:, 1:] - means[:, :1]) / (variances[1:] + variances[0]) ** 0.5
    loadings = many_to_one_loadings(variances[0], variances[1:])
    found = dunnett(np.array([1.8, -2.2, 2.6]), loadings)
    for limit, p in zip((1.8, 2.2, 2.6), found, strict=True):
        assert abs(p - (np.abs(z).max(axis=1) > limit).mean()) <= 4 * (p / 200_000) ** 0.5
    assert dunnett_critical(loadings, alpha=found[1]) == pytest.approx(2.2, abs=1e-6)


def test_several_questions_refuse() -> None:
    with pytest.raises(ValueError, match=r"p must be \[m\] values in 0..1"):
        holm(np.array([1.2]))
    with pytest.raises(ValueError, match=r"loadings must be \[m\] in 0 <= b < 1"):
        dunnett_critical(np.array([1.0]))
    with pytest.raises(ValueError, match="z and loadings must have one shape"):
        dunnett(np.ones(2), np.full(1, 0.5))
    with pytest.raises(ValueError, match="alpha must be above 0 and below 1, got 0"):
        dunnett_critical(np.full(1, 0.5), alpha=0)


# --- guardrails


def test_no_difference_is_not_yet_safe(rng: np.random.Generator) -> None:
    few = welch(rng.normal(1, 0.3, 50), rng.normal(1, 0.3, 50))
    assert non_inferior(few, margin=0.02).verdict == "unclear"
    many = welch(rng.normal(1, 0.3, 50_000), rng.normal(1, 0.3, 50_000))
    assert non_inferior(many, margin=0.02).verdict == "safe"
    assert non_inferior(many, margin=0.02, critical=50).verdict == "unclear"


def test_harm_is_seen_in_both_directions(rng: np.random.Generator) -> None:
    up = welch(rng.normal(1, 0.3, 5000), rng.normal(1.1, 0.3, 5000))
    assert non_inferior(up, margin=0.02, better="lower").verdict == "harmed"
    assert non_inferior(up, margin=0.02, better="higher").verdict == "safe"
    assert non_inferior(up, margin=0.2, better="lower").verdict == "safe"


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_an_arm_at_the_margin_is_safe_at_the_level(better: str, rng: np.random.Generator) -> None:
    loss, trials = 0.1, 1500
    mean = 1 - loss if better == "higher" else 1 + loss
    found = [
        non_inferior(
            welch(rng.normal(1, 0.5, 200), rng.normal(mean, 0.5, 300)),
            margin=loss,
            better=better,  # type: ignore[arg-type]
        )
        for _ in range(trials)
    ]
    safe = np.mean([one.verdict == "safe" for one in found])
    assert abs(safe - 0.025) <= 4 * (0.025 * 0.975 / trials) ** 0.5
    p = np.array([one.p for one in found])
    assert abs((p < 0.5).mean() - 0.5) <= 4 * 0.5 / trials**0.5


def test_guardrails_refuse() -> None:
    effect = welch(np.array([-1.0, 1.0]), np.ones(2))
    with pytest.raises(ValueError, match="margin must be > 0"):
        non_inferior(effect, margin=0)
    with pytest.raises(ValueError, match="control's mean must be > 0 for a relative margin"):
        non_inferior(effect, margin=0.1)


# --- slices


def test_equal_slices_are_pulled_together() -> None:
    effect = np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1.0])
    found = shrink(effect, np.full(6, 1.0))
    assert found.spread == 0.0
    assert found.mean == pytest.approx(1.0)
    assert found.weight == pytest.approx(np.full(6, 1 - 3 / 5))
    assert np.ptp(found.value) == pytest.approx(0.4 * np.ptp(effect))
    assert found.heterogeneity_p > 0.99


def test_different_slices_stay(rng: np.random.Generator) -> None:
    effect = np.array([-5.0, 0.0, 5.0, 10.0, -10.0, 3.0])
    found = shrink(effect, np.full(6, 0.01))
    np.testing.assert_allclose(found.value, effect, atol=1e-3)
    assert found.heterogeneity_p < 1e-10
    assert found.spread == pytest.approx(effect.std(ddof=1), rel=1e-3)


def test_three_slices_are_left_alone() -> None:
    found = shrink(np.array([1.0, 2.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert found.value.tolist() == [1.0, 2.0, 9.0]
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * np.array([1.0, 2.0, 3.0]))
    assert heterogeneity_p(np.array([4.0]), np.array([1.0])) == 1.0


def test_noisy_slices_are_pulled_more() -> None:
    found = shrink(np.array([0.0, 3.0, 1.0, 2.0, 6.0]), np.array([0.1, 3.0, 1.0, 1.0, 1.0]))
    assert (np.diff(found.weight[[0, 2, 1]]) < 0).all()


def test_shrinking_errs_less_and_its_intervals_hold(rng: np.random.Generator) -> None:
    errors = np.linspace(0.5, 2, 10)
    less, plain, held = [], [], []
    for _ in range(500):
        true = 0.5 + rng.normal(size=10)
        seen = true + errors * rng.normal(size=10)
        found = shrink(seen, errors)
        less.append(((found.value - true) ** 2).mean())
        plain.append(((seen - true) ** 2).mean())
        held.append(((found.low <= true) & (true <= found.high)).mean())
    assert np.mean(less) < 0.7 * np.mean(plain)
    assert np.mean(held) >= 0.94


def test_heterogeneity_at_its_level(rng: np.random.Generator) -> None:
    errors = np.linspace(0.5, 2, 6)
    p = np.array([heterogeneity_p(3 + errors * rng.normal(size=6), errors) for _ in range(3000)])
    assert abs((p < 0.1).mean() - 0.1) <= 4 * (0.09 / 3000) ** 0.5


def test_slices_refuse() -> None:
    with pytest.raises(ValueError, match=r"must be \[S\] with S >= 1"):
        shrink(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="standard_error > 0 in every slice"):
        shrink(np.ones(2), np.zeros(2))
    with pytest.raises(ValueError, match="level must be above 0"):
        shrink(np.ones(2), np.ones(2), level=0)
