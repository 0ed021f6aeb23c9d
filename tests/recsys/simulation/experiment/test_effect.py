from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from recsys.simulation.experiment import (
    RatioSums,
    Sums,
    gap,
    linearised,
    ratio_effect,
    running_ratio_sums,
    running_sums,
    sums_by_unit,
    welch,
)
from recsys.simulation.experiment.moments import mean_and_variance


def test_welch_equals_the_loop(reference: ModuleType, rng: np.random.Generator) -> None:
    a, b = rng.normal(1, 2, 31), rng.normal(1.5, 0.5, 12)
    difference, error, freedom = reference.welch(a.tolist(), b.tolist())
    found = welch(a, b)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert (found.num_control, found.num_arm) == (31, 12)
    from scipy.stats import t, ttest_ind

    assert found.p == pytest.approx(float(ttest_ind(a, b, equal_var=False).pvalue), abs=1e-12)
    half = float(t.ppf(0.975, freedom)) * error
    assert found.low == pytest.approx(difference - half)
    assert welch(a, b, level=0.5).low == pytest.approx(difference - t.ppf(0.75, freedom) * error)


def test_welch_without_any_spread() -> None:
    same, other = welch(np.ones(3), np.ones(4)), welch(np.ones(3), np.full(4, 2.0))
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)
    assert (other.p, other.low, other.high) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("a", "level", "message"),
    [
        (np.ones(1), 0.95, r"control must be \[n\] with n >= 2 units, got shape \(1,\)"),
        (np.array([1.0, np.nan]), 0.95, "control must be finite: 1 of 2"),
        (np.ones(2), 1.0, "level must be above 0 and below 1, got 1.0"),
    ],
)
def test_welch_refuses(a: np.ndarray, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        welch(a, np.ones(3), level=level)


def test_a_ratio_equals_the_loop(reference: ModuleType, rng: np.random.Generator) -> None:
    below = rng.poisson(5, 40) + 1.0
    top = rng.binomial(below.astype(int), 0.3).astype(float)
    ratio, error = reference.ratio_and_error(top.tolist(), below.tolist())
    values = linearised(top, below)
    assert values.mean() == pytest.approx(ratio, abs=1e-12)
    assert values.std(ddof=1) / 40**0.5 == pytest.approx(error, abs=1e-12)
    mean, variance = mean_and_variance(
        RatioSums(np.array(40.0), top.sum(), below.sum(), top @ top, below @ below, top @ below)
    )
    assert float(mean) == pytest.approx(ratio, abs=1e-12)
    assert float(variance / 40) == pytest.approx(error**2, abs=1e-12)
    found = ratio_effect(top[:20], below[:20], top[20:], below[20:])
    assert found.control_mean == pytest.approx(top[:20].sum() / below[:20].sum())
    assert found == welch(linearised(top[:20], below[:20]), linearised(top[20:], below[20:]))


def test_a_ratio_with_equal_denominators_is_a_mean(rng: np.random.Generator) -> None:
    top = rng.normal(size=30)
    np.testing.assert_allclose(linearised(top, np.full(30, 4.0)), top / 4, atol=1e-12)


def test_linearised_refuses() -> None:
    with pytest.raises(ValueError, match="denominator must sum to more than 0 over the units"):
        linearised(np.ones(3), np.zeros(3))
    with pytest.raises(ValueError, match=r"of the same units, got \(3,\) and \(2,\)"):
        linearised(np.ones(3), np.ones(2))


def test_running_sums_equal_those_of_each_beginning(rng: np.random.Generator) -> None:
    values, below = rng.normal(size=(3, 50)), rng.poisson(3, size=(3, 50)) + 1.0
    looks = np.array([2, 17, 50])
    found, ratios = running_sums(values, looks), running_ratio_sums(values, below, looks)
    for place, look in enumerate(looks):
        for row in range(3):
            y, x = values[row, :look], below[row, :look]
            assert found.num_units[row, place] == look
            assert found.total[row, place] == pytest.approx(y.sum())
            assert found.squares[row, place] == pytest.approx((y**2).sum())
            assert ratios.products[row, place] == pytest.approx((x * y).sum())
            assert ratios.denominator_squares[row, place] == pytest.approx((x**2).sum())


def test_gap_of_unequal_arms(reference: ModuleType, rng: np.random.Generator) -> None:
    a, b = rng.normal(size=9), rng.normal(size=33)
    one, two = (Sums(np.array(float(x.size)), np.array(x.sum()), np.array(x @ x)) for x in (a, b))
    difference, error, _ = reference.welch(a.tolist(), b.tolist())
    found = gap(one, two)
    assert float(found.difference) == pytest.approx(difference, abs=1e-12)
    assert float(found.standard_error) == pytest.approx(error, abs=1e-12)
    assert math.isnan(gap(running_sums(a, np.array([1])), two).standard_error[0])


def test_running_sums_refuse() -> None:
    with pytest.raises(ValueError, match=r"looks must be \[L\] numbers of units in 1..4"):
        running_sums(np.ones(4), np.array([5]))
    with pytest.raises(ValueError, match="numerator and denominator must have one shape"):
        running_ratio_sums(np.ones(4), np.ones(3), np.array([1]))


def test_sums_by_unit() -> None:
    units, sums = sums_by_unit(np.array([[1.0, 2], [3, 4], [10, 20]]), np.array(["b", "a", "b"]))
    assert units.tolist() == ["a", "b"]
    assert sums.tolist() == [[3, 4], [11, 22]]
    assert sums_by_unit(np.array([1.0, 2.0]), np.array([5, 5]))[1].tolist() == [3.0]
    with pytest.raises(ValueError, match="unit must have one entry for each row"):
        sums_by_unit(np.ones(3), np.ones(2))


def test_the_lift_holds_the_truth(rng: np.random.Generator) -> None:
    held, trials = 0, 600
    for _ in range(trials):
        effect = welch(rng.normal(2.0, 1, 300), rng.normal(2.2, 3, 200))
        _, low, high = effect.lift()
        held += low <= 0.1 <= high
    assert abs(held / trials - 0.95) <= 4 * (0.05 * 0.95 / trials) ** 0.5


def test_no_lift_over_a_control_near_zero(rng: np.random.Generator) -> None:
    lift = welch(rng.normal(0, 1, 50), rng.normal(1, 1, 50)).lift()
    assert all(math.isnan(value) for value in lift)


def test_sessions_of_one_user_are_not_independent(rng: np.random.Generator) -> None:
    """As if each session stood alone, alarms come far too often; by user at their level."""
    trials, users, sessions = 400, 60, 10
    alone = clustered = 0
    for _ in range(trials):
        own = rng.normal(size=(2, users, 1)) + rng.normal(size=(2, users, sessions))
        alone += welch(own[0].ravel(), own[1].ravel()).p < 0.05
        clustered += welch(own[0].sum(axis=1), own[1].sum(axis=1)).p < 0.05
    assert alone / trials > 0.3
    assert abs(clustered / trials - 0.05) <= 4 * (0.05 * 0.95 / trials) ** 0.5
