from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from recsys.ranking import exploration
from recsys.simulation.slates import arrivals as slate_arrivals
from recsys.simulation.slates import probabilities as slate_probabilities
from recsys.simulation.slates.policies import (
    EpsilonGreedyPolicy,
    FactoredPolicy,
    PlackettLucePolicy,
)
from recsys.simulation.slates.probabilities import (
    enumerate_slates,
    place_probabilities,
    sample_slates,
    slate_probability,
    slot_marginals,
)

SCORE = np.array(
    [[0.3, 2.0, np.nan, 1.0, 0.9, -1.0], [0.0, 0.0, 1.0, -np.inf, 0.5, 0.2], [3.0, 2, 1, 0, -1, -2]]
)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).parents[3] / "reference" / "slates.py"
    spec = importlib.util.spec_from_file_location("reference_slates", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("top", [2, 4, 9])
@pytest.mark.parametrize("slots", [1, 3, 5])
def test_probabilities_are_the_propensities_that_serving_draws(slots: int, top: int) -> None:
    pairs = (
        (
            lambda one, rng: exploration.uniform_shuffle(one, slots, rng, top=top),
            EpsilonGreedyPolicy(SCORE, slots, top, 1.0),
        ),
        (
            lambda one, rng: exploration.epsilon_greedy(one, slots, rng, epsilon=0.3, top=top),
            EpsilonGreedyPolicy(SCORE, slots, top, 0.3),
        ),
        (
            lambda one, rng: exploration.plackett_luce(one, slots, rng, temperature=0.6, top=top),
            PlackettLucePolicy(SCORE, slots, top, 0.6),
        ),
    )
    for draw, policy in pairs:
        for seed in range(30):
            drawn = [draw(one, np.random.default_rng(seed)) for one in SCORE]
            action = np.stack([one.position for one in drawn])
            expected = np.stack([one.propensity for one in drawn])
            np.testing.assert_allclose(place_probabilities(policy, action), expected, rtol=1e-12)
            np.testing.assert_allclose(
                slate_probability(policy, action), expected.prod(axis=1), rtol=1e-12
            )


def test_marginals_agree_with_plain_loops(reference: ModuleType) -> None:
    score = np.random.default_rng(1).normal(size=(4, 5))
    found = slot_marginals(PlackettLucePolicy(score, 3, temperature=0.8))
    for row in range(4):
        loops = reference.marginals(reference.plackett_luce(score[row].tolist(), 0.8), 3, 5)
        np.testing.assert_allclose(found[row], loops, rtol=0, atol=1e-12)
        assert found[row].sum() == pytest.approx(3.0)


def test_a_shuffle_shows_every_item_at_every_place_alike() -> None:
    policy = EpsilonGreedyPolicy(np.arange(5.0)[None, :], 4, epsilon=1.0)
    np.testing.assert_allclose(slot_marginals(policy), 0.2, atol=1e-12)
    # Ten of thirty, too many to enumerate; the places below are by score.
    score = np.random.default_rng(0).normal(size=(2, 30))
    found = slot_marginals(EpsilonGreedyPolicy(score, 12, 10, 1.0))
    best = np.argsort(-score, axis=1)
    for row in range(2):
        np.testing.assert_allclose(found[row, :10, best[row, :10]], 0.1)
        assert found[row, 10, best[row, 10]] == found[row, 11, best[row, 11]] == 1.0
    np.testing.assert_allclose(found.sum(axis=2), 1.0)


def test_many_rounds_go_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = PlackettLucePolicy(np.random.default_rng(2).normal(size=(50, 5)), 3)
    whole = slot_marginals(policy)
    monkeypatch.setattr(slate_probabilities, "BLOCK_BYTES", 8 * 16 * 7)
    np.testing.assert_array_equal(slot_marginals(policy), whole)


def test_too_many_sets_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = EpsilonGreedyPolicy(np.random.default_rng(2).normal(size=(4, 6)), 4, epsilon=0.6)
    exact = slot_marginals(policy)
    monkeypatch.setattr(slate_probabilities, "MOST_SETS", 41)  # 1 + 6 + 15 + 20 are needed
    with pytest.raises(ValueError, match="42 sets of items may stand above a place, more than 41"):
        slot_marginals(policy)
    drawn = slot_marginals(policy, rng=np.random.default_rng(0), num_samples=2_000)
    np.testing.assert_allclose(drawn.sum(axis=2), 1.0)
    np.testing.assert_allclose(drawn, exact, rtol=0, atol=4 * 0.5 / np.sqrt(2_000))
    assert np.abs(drawn - exact).max() > 1e-6  # the first place alone is exact
    np.testing.assert_allclose(drawn[:, 0], exact[:, 0])
    monkeypatch.setattr(slate_probabilities, "MOST_SETS", 42)
    np.testing.assert_array_equal(slot_marginals(policy), exact)


@pytest.mark.parametrize(("slots", "top"), [(1, None), (4, None), (6, None), (5, 3), (2, 4)])
@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 5.0])
def test_the_race_agrees_with_enumeration(
    monkeypatch: pytest.MonkeyPatch, slots: int, top: int | None, temperature: float
) -> None:
    score = np.random.default_rng(4).normal(size=(5, 7))
    score[0, 2] = np.nan
    score[1] = np.nan  # a round without a candidate
    policy = PlackettLucePolicy(score, slots, top, temperature)
    exact = slot_marginals(policy)
    action, _ = sample_slates(policy, np.random.default_rng(0))
    picked = slot_marginals(policy, action=action)
    monkeypatch.setattr(slate_probabilities, "MOST_SETS", 0)
    monkeypatch.setattr(slate_arrivals, "BLOCK_BYTES", 8 * 150 * 7 * slots * 2)
    np.testing.assert_allclose(slot_marginals(policy), exact, rtol=0, atol=1e-9)
    np.testing.assert_allclose(slot_marginals(policy, action=action), picked, rtol=0, atol=1e-9)


def test_the_race_of_long_slates() -> None:
    score = np.random.default_rng(4).normal(size=(3, 30))
    policy = PlackettLucePolicy(score, 10, 20, 0.5)
    found = slot_marginals(policy)
    np.testing.assert_allclose(found.sum(axis=2), 1.0, atol=1e-9)
    first = policy.next_probabilities(np.empty((3, 0), dtype=np.int64))
    np.testing.assert_allclose(found[:, 0], first, atol=1e-9)
    below = first[:, :, None] * first[:, None, :] / (1 - first[:, :, None])  # first, then second
    second = below.sum(axis=1) - np.einsum("nkk->nk", below)
    np.testing.assert_allclose(found[:, 1], second, atol=1e-9)


def test_slates_end_where_no_item_is_left() -> None:
    policy = PlackettLucePolicy(np.array([[1.0, np.nan, 0.0], [0.0, 0.0, 0.0]]), 3)
    action, propensity = sample_slates(policy, np.random.default_rng(0))
    assert action[0, 2] == -1
    assert propensity[0, 2] == 1.0
    assert sorted(action[1]) == [0, 1, 2]
    with pytest.raises(ValueError, match="an item for each of the 3 places; 1 of 2 rounds have"):
        enumerate_slates(policy)


def test_too_many_slates_are_refused() -> None:
    policy = PlackettLucePolicy(np.zeros((1, 20)), 3)
    with pytest.raises(ValueError, match="more than 5,000 slates are possible with 3 places and"):
        enumerate_slates(policy)


def test_what_policies_refuse() -> None:
    with pytest.raises(ValueError, match=r"score must be \[n, K\], got shape \(3,\)"):
        PlackettLucePolicy(np.zeros(3), 2)
    with pytest.raises(ValueError, match="slots and top must be >= 1, got 2 and 0"):
        EpsilonGreedyPolicy(np.zeros((1, 3)), 2, top=0)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        PlackettLucePolicy(np.zeros((1, 3)), 2, temperature=0)
    with pytest.raises(ValueError, match=r"epsilon must be 0..1, got 1.5"):
        EpsilonGreedyPolicy(np.zeros((1, 3)), 2, epsilon=1.5)
    with pytest.raises(ValueError, match=r"probability must be \[n, L, K\]"):
        FactoredPolicy(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"first: place 2 of round 0 sums to 1\.2"):
        FactoredPolicy(np.array([[[0.5, 0.5], [0.6, 0.6]]]))
    policy = PlackettLucePolicy(SCORE, 3, temperature=0.7)
    with pytest.raises(ValueError, match=r"action must be \[n, L\] = \(3, 3\) like"):
        place_probabilities(policy, np.zeros((3, 2), dtype=np.int64))
    with pytest.raises(ValueError, match=r"action must be -1 or 0..5, got 0 to 6"):
        slot_marginals(policy, action=np.array([[0, 1, 6]] * 3))
    with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
        slot_marginals(policy, num_samples=0)
