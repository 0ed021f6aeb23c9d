"""What every `RewardModel` must do; a new model is added to `BUILDERS` and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from recsys.simulation.estimates.logged_feedback import LoggedFeedback
from recsys.simulation.estimates.reward_models import (
    LightGbmRewards,
    LookupRewards,
    RewardModel,
    cross_fit,
)

K = 4
FEATURES = np.arange(K, dtype=np.float64)[:, None]
BUILDERS: dict[str, Callable[[LoggedFeedback], RewardModel]] = {
    "lookup": LookupRewards.fit,
    "lookup_without_prior": lambda log: LookupRewards.fit(log, prior_rounds=0.0),
    "trees": lambda log: LightGbmRewards.fit(log, num_trees=30, learning_rate=0.2),
    "trees_of_features": lambda log: LightGbmRewards.fit(
        log, action_features=FEATURES, num_trees=30, learning_rate=0.2
    ),
}
READS_THE_CONTEXT = {"trees", "trees_of_features"}


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def drawn(n: int = 600, *, seed: int = 0, places: int = 2) -> LoggedFeedback:
    """Rewards that rise with the action, fall with the place and jump with the context."""
    rng = np.random.default_rng(seed)
    action = rng.integers(K, size=n)
    position = rng.integers(1, places + 1, size=n) if places else None
    context = rng.standard_normal((n, 2)).astype(np.float32)
    reward = 0.2 * action / (1 if position is None else position) + 0.3 * (context[:, 0] > 0)
    return LoggedFeedback(action, reward, np.full(n, 0.25), K, position, None, context)


def table(model: RewardModel, log: LoggedFeedback) -> np.ndarray:
    """[n, K], whichever of its two shapes the model gives."""
    found = model.rewards(log)
    assert found.shape in ((len(log), K), (1, K))
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    return np.broadcast_to(found, (len(log), K))


@pytest.mark.parametrize("places", [0, 1, 3])
def test_it_learns_which_action_is_worth_more(name: str, places: int) -> None:
    model, new = BUILDERS[name](drawn(places=places)), drawn(50, seed=1, places=places)
    found = table(model, new)
    assert (found[:, 3] > found[:, 0] + 0.1).all()
    assert abs(found.mean() - new.reward.mean()) < 0.1


def test_a_round_is_judged_by_what_was_known_before_it(name: str) -> None:
    model, log = BUILDERS[name](drawn()), drawn(50, seed=1)
    other = dataclasses.replace(
        log, action=(log.action + 1) % K, reward=log.reward + 9.0, propensity=log.propensity / 2
    )
    np.testing.assert_array_equal(table(model, log), table(model, other))


def test_what_it_reads_of_a_round(name: str) -> None:
    model, log = BUILDERS[name](drawn()), drawn(50, seed=1)
    assert log.position is not None
    assert log.context is not None
    elsewhere = dataclasses.replace(log, position=3 - log.position)
    assert not np.allclose(table(model, log), table(model, elsewhere))
    unlike = dataclasses.replace(log, context=-log.context)
    assert np.allclose(table(model, log), table(model, unlike)) == (name not in READS_THE_CONTEXT)


def test_rounds_are_judged_one_by_one(name: str) -> None:
    model, log = BUILDERS[name](drawn()), drawn(50, seed=1)
    rows = np.array([7, 0, 7, 31])
    np.testing.assert_array_equal(table(model, log.take(rows)), table(model, log)[rows])
    assert table(model, log.take(rows[:1])).shape == (1, K)


def test_the_same_rounds_teach_the_same(name: str) -> None:
    log = drawn(50, seed=1)
    one, other = BUILDERS[name](drawn()), BUILDERS[name](drawn())
    np.testing.assert_array_equal(table(one, log), table(other, log))
    np.testing.assert_array_equal(table(one, log), table(one, log))


def test_places_that_were_not_seen_are_the_last_one_seen(name: str) -> None:
    model, log = BUILDERS[name](drawn()), drawn(50, seed=1)
    last, beyond = (
        dataclasses.replace(log, position=np.full(50, place, dtype=np.int64)) for place in (2, 7)
    )
    np.testing.assert_array_equal(table(model, beyond), table(model, last))


def test_it_can_be_cross_fitted(name: str) -> None:
    log = drawn()
    found = cross_fit(log, BUILDERS[name], rng=np.random.default_rng(0))
    policy = np.array([0.1, 0.2, 0.3, 0.4])
    one, tiled = found.predict(policy), found.predict(np.tile(policy, (len(log), 1)))
    np.testing.assert_allclose(one.expected, tiled.expected)
    for row in (0, 5, 77):
        own = table(found.models[found.fold[row]], log)[row]
        assert one.predicted[row] == pytest.approx(own[log.action[row]])
        assert one.expected[row] == pytest.approx(float(own @ policy))
