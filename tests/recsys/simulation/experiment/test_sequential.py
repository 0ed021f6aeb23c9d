from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from recsys.simulation.experiment import (
    Sums,
    always_valid_p,
    choose_tau,
    confidence_sequence,
    gap,
    log_likelihood_ratio,
    planned_error,
    running_ratio_sums,
    running_sums,
)
from recsys.simulation.experiment.sequential import margin


def test_pairs_equal_the_loop(reference: ModuleType, rng: np.random.Generator) -> None:
    values, variance, tau = rng.normal(0.2, 1.5, 40), 2.25, 0.3
    want = reference.msprt_pairs(values.tolist(), variance, tau)
    n = np.arange(1, 41)
    means = values.cumsum() / n
    found = np.exp(log_likelihood_ratio(means, np.sqrt(variance / n), tau=tau))
    np.testing.assert_allclose(found, want, rtol=1e-10)
    smallest = np.minimum(np.minimum.accumulate(1 / np.array(want)), 1.0)
    np.testing.assert_allclose(
        always_valid_p(means, np.sqrt(variance / n), tau=tau), smallest, rtol=1e-10
    )


def test_zero_leaves_the_interval_where_the_test_rejects(rng: np.random.Generator) -> None:
    d, s = rng.normal(size=2000), rng.uniform(0.1, 0.5, size=2000)
    low, high = confidence_sequence(d, s, tau=0.4, alpha=0.1)
    rejected = log_likelihood_ratio(d, s, tau=0.4) >= math.log(10)
    np.testing.assert_array_equal((low > 0) | (high < 0), rejected)
    assert 100 < rejected.sum() < 1900


def test_nothing_varies_yet() -> None:
    s = np.array([0.0, np.nan])
    assert log_likelihood_ratio(np.ones(2), s, tau=1.0).tolist() == [0.0, 0.0]
    low, high = confidence_sequence(np.ones(2), s, tau=1.0)
    assert low.tolist() == [-math.inf] * 2
    assert high.tolist() == [math.inf] * 2


def test_tau_makes_the_planned_interval_narrowest() -> None:
    for alpha in (0.01, 0.05, 0.2):
        tau = choose_tau(0.7, alpha=alpha)
        others = tau * np.array([0.5, 0.9, 0.99, 1.01, 1.1, 2.0])
        best = margin(0.7, tau=tau, alpha=alpha)
        assert all(best < margin(0.7, tau=one, alpha=alpha) for one in others)
    # Close to the effect that a fixed test of power .8 is planned for: 2.80 standard errors.
    assert choose_tau(1.0) == pytest.approx(2.866, abs=1e-3)


def no_effect(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    trials, looks = 1000, np.arange(200, 2001, 100)
    if kind == "ratio":
        arms = []
        for _ in range(2):
            x = rng.poisson(4, (trials, 2000)) + 1
            y = rng.binomial(x, 0.2 * (1 + rng.integers(2, size=x.shape)))
            arms.append(running_ratio_sums(y, x, looks))
        found = gap(*arms)
    else:
        share = {"equal": 1, "1 : 4": 4}[kind]
        one = running_sums(rng.random((trials, 2000)) < 0.2, looks)
        step = rng.binomial(100 * share, 0.2, size=(trials, 20)).cumsum(axis=1)[:, 1:]
        total = step.astype(np.float64)
        two = Sums(np.broadcast_to(looks * float(share), total.shape), total, total)
        found = gap(one, two)
    return found.difference, found.standard_error


@pytest.mark.parametrize("kind", ["equal", "1 : 4", "ratio"])
def test_peeking_alarms_and_the_sequence_does_not(kind: str, rng: np.random.Generator) -> None:
    d, s = no_effect(rng, kind)
    tau = choose_tau(float(np.median(s[:, -1])))
    low, high = confidence_sequence(d, s, tau=tau)
    alarms = float(((low > 0) | (high < 0)).any(axis=1).mean())
    assert alarms <= 0.05
    assert (always_valid_p(d, s, tau=tau)[:, -1] <= 0.05).mean() == pytest.approx(alarms)
    assert (np.abs(d / s) > 1.96).any(axis=1).mean() > 0.12
    end = float((np.abs(d / s)[:, -1] > 1.96).mean())
    assert abs(end - 0.05) <= 4 * (0.05 * 0.95 / 1000) ** 0.5


def test_the_planned_end_finds_the_effect(rng: np.random.Generator) -> None:
    error, units = planned_error(0.2, (1.0, 2.0), power=0.8)
    assert units == math.ceil(3.0 / error**2)
    trials = 2000
    looks = np.linspace(0.05, 1, 20)
    # A Brownian motion with drift, seen at the looks.
    step = rng.normal(size=(trials, 20)) * np.sqrt(np.diff(looks, prepend=0))
    s = error / np.sqrt(looks)
    d = 0.2 + np.cumsum(step, axis=1) / looks * error
    low, _ = confidence_sequence(d, s, tau=choose_tau(error))
    at_end = float((low[:, -1] > 0).mean())
    assert abs(at_end - 0.8) <= 4 * (0.16 / trials) ** 0.5
    assert (low > 0).any(axis=1).mean() > at_end


def test_sequential_refuses() -> None:
    with pytest.raises(ValueError, match="tau must be > 0, got 0; see choose_tau"):
        log_likelihood_ratio(1.0, 1.0, tau=0)
    with pytest.raises(ValueError, match="alpha must be above 0 and below 1, got 1"):
        confidence_sequence(1.0, 1.0, tau=1, alpha=1)
    with pytest.raises(ValueError, match="planned_standard_error must be > 0, got 0"):
        choose_tau(0)
    with pytest.raises(ValueError, match="effect must not be 0 and power be in"):
        planned_error(0.0, (1, 1))
