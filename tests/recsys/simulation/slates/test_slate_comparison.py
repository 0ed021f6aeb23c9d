from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.simulation.slates.comparison import SlateComparison, compare_slates
from recsys.simulation.slates.estimators import independent_ips, reward_interaction_ips
from recsys.simulation.slates.feedback import SlateFeedback
from recsys.simulation.slates.policies import EpsilonGreedyPolicy, PlackettLucePolicy, SlatePolicy
from recsys.simulation.slates.probabilities import (
    place_probabilities,
    sample_slates,
    slot_marginals,
)

K, L = 5, 3
LIKED = np.array([0.6, 0.1, 0.4, 0.05, 0.2])
SCORE = np.array([0.0, 1.0, 0.3, 0.8, 0.2])


def logged(n: int, seed: int, *, interaction: float) -> tuple[SlateFeedback, SlatePolicy]:
    """Clicks that fall by ``interaction`` times how much is liked above."""
    rng = np.random.default_rng(seed)
    policy = PlackettLucePolicy(np.broadcast_to(SCORE, (n, K)), L)
    action, propensity = sample_slates(policy, rng)
    liked = LIKED[action]
    chance = liked * (1 - interaction * (np.cumsum(liked, axis=1) - liked))
    reward = (rng.random((n, L)) < chance).astype(np.float64)
    return SlateFeedback(action, reward, propensity, K), policy


def target(n: int, epsilon: float = 0.7) -> EpsilonGreedyPolicy:
    return EpsilonGreedyPolicy(np.broadcast_to(LIKED, (n, K)), L, epsilon=epsilon)


def compared(n: int, seed: int, interaction: float) -> SlateComparison:
    feedback, logging = logged(n, seed, interaction=interaction)
    return compare_slates(feedback, target(n), logging, rng=np.random.default_rng(0))


def test_users_who_react_to_what_is_above_are_noticed() -> None:
    found = compared(10_000, 1, 0.9)
    assert found.interaction
    assert "interaction present" in str(found)
    assert abs(found.gap.value) > 2 * found.gap.standard_error
    names = [one.name for one in found.estimates]
    assert names == ["independent", "reward interaction", "cascade DR", "standard"]
    assert not found.problems
    np.testing.assert_allclose(found.mean_weight, 1.0, atol=0.1)
    assert found.effective_share[0] > found.effective_share[1] > found.effective_share[2] > 0.05


def test_users_who_do_not_are_let_alone() -> None:
    alarms = [compared(3_000, seed, 0.0).interaction for seed in range(40)]
    assert None not in alarms
    assert sum(map(bool, alarms)) <= 7  # 4.6% of 40, and four standard errors
    assert "no interaction seen" in str(compared(3_000, alarms.index(False), 0.0))


def test_few_effective_rounds_say_nothing() -> None:
    n = 400
    feedback, logging = logged(n, 0, interaction=0.9)
    judged = target(n, epsilon=0.3)
    found = compare_slates(feedback, judged, logging, rng=np.random.default_rng(0))
    assert found.effective_share[2] * n < 30
    assert found.interaction is None
    assert "too few effective rounds to tell" in str(found)
    assert any("down to place 3" in one and "is weak" in one for one in found.problems)


def test_the_gap_is_that_of_the_same_rounds() -> None:
    n = 300
    feedback, logging = logged(n, 3, interaction=0.5)
    feedback = replace(feedback, unit=np.arange(n) // 3)
    found = compare_slates(feedback, target(n), logging, rng=np.random.default_rng(0), level=0.9)
    chance = place_probabilities(target(n), feedback.action)
    marginals = [slot_marginals(one, action=feedback.action) for one in (target(n), logging)]
    estimates = (
        independent_ips(feedback, *marginals, level=0.9),
        reward_interaction_ips(feedback, chance, level=0.9),
    )
    assert found.estimates[:2] == estimates
    normalised = (
        independent_ips(feedback, *marginals, self_normalised=True),
        reward_interaction_ips(feedback, chance, self_normalised=True),
    )
    assert found.gap.value == pytest.approx(normalised[0].value - normalised[1].value)
    # Both are of the same rounds: their difference is surer than two separate logs would be.
    apart = np.hypot(normalised[0].standard_error, normalised[1].standard_error)
    assert 0.3 * apart < found.gap.standard_error < 0.9 * apart
    weight = np.cumprod(chance / feedback.propensity, axis=1)
    np.testing.assert_allclose(found.mean_weight, weight.mean(axis=0))
    share = weight.sum(axis=0) ** 2 / np.square(weight).sum(axis=0) / n
    np.testing.assert_allclose(found.effective_share, share)


def test_one_place_has_no_gap() -> None:
    n = 50
    feedback, _ = logged(n, 0, interaction=0.0)
    logging = PlackettLucePolicy(np.broadcast_to(SCORE, (n, K)), 1)
    judged = EpsilonGreedyPolicy(np.broadcast_to(LIKED, (n, K)), 1, epsilon=0.3)
    found = compare_slates(feedback.beginning(1), judged, logging, rng=np.random.default_rng(0))
    assert found.gap.value == pytest.approx(0.0, abs=1e-12)
    assert not found.interaction


def test_a_log_without_exploration_is_named() -> None:
    n = 500
    rng = np.random.default_rng(0)
    score = rng.normal(size=(n, K))
    logging = EpsilonGreedyPolicy(score, L)
    action, propensity = sample_slates(logging, rng)
    feedback = SlateFeedback(action, np.ones((n, L)), propensity, K)
    judged = EpsilonGreedyPolicy(score + rng.normal(size=(n, K)), L)
    found = compare_slates(feedback, judged, logging, rng=rng)
    assert found.mean_weight[-1] < 0.5
    assert any("the mean weight of the slates is 0." in one for one in found.problems)


def test_propensities_of_another_policy_and_few_rounds_are_named() -> None:
    n = 200
    feedback, _ = logged(n, 2, interaction=0.2)
    other = PlackettLucePolicy(np.zeros((n, K)), L)
    found = compare_slates(feedback, target(n), other, rng=np.random.default_rng(0))
    assert "200 of 200 rounds have propensities that are not those of the logging" in str(found)
    logging = PlackettLucePolicy(np.broadcast_to(SCORE, (n, K)), L, temperature=0.25)
    action, propensity = sample_slates(logging, np.random.default_rng(1))
    narrow = SlateFeedback(action, feedback.reward, propensity, K)
    found = compare_slates(narrow, target(n), logging, rng=np.random.default_rng(0))
    assert found.effective_share.min() < 0.05
    assert any("down to place" in one for one in found.problems)


def test_marginals_are_sampled_where_slates_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 100
    feedback, logging = logged(n, 2, interaction=0.2)
    exact = compare_slates(feedback, target(n), logging, rng=np.random.default_rng(0))
    monkeypatch.setattr("recsys.simulation.slates.probabilities.MOST_SETS", 3)
    drawn = compare_slates(
        feedback, target(n), logging, rng=np.random.default_rng(0), num_samples=400
    )
    assert drawn.estimates[0].value == pytest.approx(exact.estimates[0].value, rel=0.1)
    assert drawn.estimates[0].value != exact.estimates[0].value
    assert drawn.estimates[1] == exact.estimates[1]
