from __future__ import annotations

import itertools

import numpy as np
import pytest

from recsys.simulation import (
    Estimate,
    LightGbmRewards,
    LoggedFeedback,
    LookupRewards,
    choose_least_error,
    choose_lepski,
    choose_slope,
    clipped_ips,
    cross_fit,
    dr,
    from_contributions,
    ips,
    sampled_spread,
    snips,
    weight_spread,
)
from recsys.simulation.estimates.slope import LIMITS, choose_clip
from tests.reference import off_policy as reference


def estimate(value: float, half: float) -> Estimate:
    return Estimate("x", value, half / 2, value - half, value + half, 100)


def test_slope_equals_its_loops() -> None:
    rng = np.random.default_rng(0)
    chosen = set()
    for _ in range(200):
        value, half = rng.normal(0, 1, 6), rng.uniform(0.05, 2, 6)
        found = choose_slope([estimate(v, h) for v, h in zip(value, half, strict=True)])
        assert found == reference.slope(value.tolist(), half.tolist())
        chosen.add(found)
    assert len(chosen) > 3


def test_slope_stops_at_the_first_that_disagrees() -> None:
    walk = [estimate(1.0, 0.5), estimate(1.1, 0.2), estimate(3.0, 0.1), estimate(1.1, 0.01)]
    assert choose_slope(walk) == 1


def test_lepski_trades_bias_for_variance() -> None:
    spread = np.array([[0.04, 0.03, 0.04], [0.03, 0.01, 0.01], [0.04, 0.01, 0.001]])
    assert choose_lepski(np.array([1.0, 1.0, 1.0]), spread) == 2
    assert choose_lepski(np.array([1.0, 1.0, 0.0]), spread) == 1
    assert choose_lepski(np.array([1.0, 0.0, 0.0]), spread) == 0


def test_sampled_and_exact_spread_agree_on_a_large_log() -> None:
    rng = np.random.default_rng(0)
    logging, target = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    weight = target / logging
    limits = (np.inf, 2.0, 1.0)
    table = np.stack([np.minimum(weight, limit) for limit in limits])
    action = rng.choice(3, p=logging, size=200_000)
    # Rewards of +-1 that nothing moves: their mean square is 1 and second moments are variances.
    reward = rng.choice([-1.0, 1.0], size=action.size)
    sampled = sampled_spread([ips(row[action], reward) for row in table])
    exact = weight_spread(table, logging, mean_square_reward=1.0, num_rounds=action.size)
    np.testing.assert_allclose(sampled, exact, rtol=0.05)


def test_spread_counts_units() -> None:
    rng = np.random.default_rng(0)
    weight, reward, unit = rng.exponential(1, 300), rng.normal(size=300), rng.integers(40, size=300)
    parts = [clipped_ips(weight, reward, limit=limit) for limit in (np.inf, 1.0)]
    spread = sampled_spread(parts, unit=unit)
    gap = parts[0].plain - parts[1].plain
    assert spread[0, 1] == pytest.approx(
        from_contributions("x", gap, unit=unit).standard_error ** 2
    )
    assert spread[1, 1] == pytest.approx(parts[1].estimate(unit=unit).standard_error ** 2)


@pytest.mark.parametrize(("rounds", "limit"), [(50, 5.0), (1_000_000, np.inf)])
def test_more_rounds_afford_larger_weights(rounds: int, limit: float) -> None:
    weights = np.array([0.2, 1.0, 400.0])
    probability = np.array([0.7, 0.299, 0.001])
    limits = (np.inf, 50.0, 5.0)
    table = np.stack([np.minimum(weights, one) for one in limits])
    place = choose_least_error(
        table, probability, mean_reward=0.5, mean_square_reward=0.5, num_rounds=rounds
    )
    assert limits[place] == limit
    # The choice is that of the smaller sum of squares, by its definition.
    errors = [
        (0.5 * ((weights - row) @ probability)) ** 2 + 0.5 * (row**2 @ probability) / rounds
        for row in table
    ]
    assert place == int(np.argmin(errors))


def small_log(n: int = 600, *, seed: int = 0, noise: bool = False) -> LoggedFeedback:
    rng = np.random.default_rng(seed)
    action = rng.integers(4, size=n)
    position = rng.integers(1, 3, size=n)
    context = rng.standard_normal((n, 2)).astype(np.float32)
    mean = 0.2 * action / position + (0 if noise else 0.3 * (context[:, 0] > 0))
    reward = rng.standard_normal(n) if noise else mean
    unit = rng.integers(n // 5, size=n)
    propensity = np.full(n, 0.25)
    return LoggedFeedback(action, reward, propensity, 4, position, unit, context)


def test_a_lookup_table_holds_means_drawn_to_those_of_the_position() -> None:
    log = small_log()
    table = LookupRewards.fit(log, prior_rounds=7.0).table
    assert log.position is not None
    assert table.shape == (2, 4)
    for position, action in itertools.product((1, 2), range(4)):
        here = log.position == position
        rows = here & (log.action == action)
        total = log.reward[rows].sum() + 7.0 * log.reward[here].mean()
        assert table[position - 1, action] == pytest.approx(total / (rows.sum() + 7.0))


def test_an_action_that_was_never_seen_gets_the_mean() -> None:
    log = LoggedFeedback(np.array([0, 0]), np.array([1.0, 0.0]), np.ones(2), 3)
    assert LookupRewards.fit(log, prior_rounds=0.0).table[0].tolist() == [0.5, 0.5, 0.5]


def test_units_stay_in_one_fold_and_their_model_has_not_seen_them() -> None:
    log = small_log()
    seen: list[LoggedFeedback] = []

    def fit(part: LoggedFeedback) -> LookupRewards:
        seen.append(part)
        return LookupRewards.fit(part)

    found = cross_fit(log, fit, rng=np.random.default_rng(0), folds=3)
    assert log.unit is not None
    for one in range(3):
        held = set(log.unit[found.fold == one].tolist())
        taught = seen[one].unit
        assert taught is not None
        assert held
        assert not held & set(taught.tolist())


def test_trees_learn_what_the_context_does_and_a_table_cannot() -> None:
    log = small_log(1200)

    def trees(part: LoggedFeedback) -> LightGbmRewards:
        return LightGbmRewards.fit(part, num_trees=60, learning_rate=0.1)

    policy = np.full(4, 0.25)
    error = {}
    for name, fit in (("trees", trees), ("table", LookupRewards.fit)):
        models = cross_fit(log, fit, rng=np.random.default_rng(0))
        error[name] = np.square(models.predict(policy).predicted - log.reward).mean()
    assert error["trees"] < 0.2 * error["table"]


def test_trees_with_features_of_the_actions() -> None:
    log = small_log(800)
    features = np.arange(4, dtype=np.float64)[:, None]
    model = LightGbmRewards.fit(log, action_features=features, num_trees=20)
    assert model.rewards(log).shape == (800, 4)
    with pytest.raises(ValueError, match=r"\[K, F\] with K = 4"):
        LightGbmRewards.fit(log, action_features=features[:2])


def test_without_cross_fitting_dr_would_believe_its_own_noise() -> None:
    # Rewards are noise, and every action has few rounds: the value of any policy is 0.
    rng = np.random.default_rng(5)
    gaps = {"held out": [], "in sample": []}
    for _ in range(200):
        action, reward = rng.integers(40, size=120), rng.standard_normal(120)
        log = LoggedFeedback(action, reward, np.full(120, 1 / 40), 40)
        models = cross_fit(log, LookupRewards.fit, rng=rng)
        own = LookupRewards.fit(log, prior_rounds=0.0).table[0]
        target = np.eye(40)[int(np.argmax(own))]  # what looks best
        weight = target[action] * 40
        expected = np.full(120, own @ target)
        gaps["in sample"].append(dr(weight, reward, own[action], expected).value)
        table = models.predict(target)
        gaps["held out"].append(
            float(np.square(reward - table.predicted).mean() / np.square(reward).mean())
        )
    # In sample, DR is the model: the residual of the chosen action vanishes.
    assert np.mean(gaps["in sample"]) > 0.8
    # Held out, the residuals are as large as the rewards or larger.
    assert np.mean(gaps["held out"]) > 0.98


@pytest.mark.parametrize("folds", [1, 200])
def test_folds_are_checked(folds: int) -> None:
    log = small_log(600)
    with pytest.raises(ValueError, match="folds must be 2"):
        cross_fit(log, LookupRewards.fit, rng=np.random.default_rng(0), folds=folds)


def test_a_policy_of_another_shape_is_named() -> None:
    found = cross_fit(small_log(), LookupRewards.fit, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"policy must be \[600, 4\] or \[4\], got \(3,\)"):
        found.predict(np.ones(3))


def test_ratios_have_no_sampled_spread() -> None:
    with pytest.raises(ValueError, match="ratios"):
        sampled_spread([snips(np.ones(3), np.ones(3))])


def test_the_chosen_clip_has_the_least_error_of_all_limits() -> None:
    rng = np.random.default_rng(0)
    chosen = set()
    for size in (0.1, 1.5, 3.0):
        weight = np.exp(rng.normal(0, size, 2000))
        weight /= weight.mean()
        reward = (rng.random(2000) < 0.1).astype(float)
        mean, square = (np.sum(weight * reward**power) / weight.sum() for power in (1, 2))
        errors = {}
        for limit in LIMITS:
            kept = np.minimum(weight, limit)
            bias = mean * np.mean(weight - kept)
            errors[limit] = bias**2 + square * np.mean(kept**2) / 2000
        found = choose_clip(weight, reward)
        assert errors[found] == pytest.approx(min(errors.values()))
        chosen.add(found)
    assert np.inf in chosen
    assert len(chosen) > 1


def test_a_clip_for_weights_that_are_all_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must be above 0 somewhere"):
        choose_clip(np.zeros(3), np.ones(3))
