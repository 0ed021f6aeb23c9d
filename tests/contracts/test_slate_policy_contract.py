"""What every `SlatePolicy` must do; a new policy is added to `POLICIES` and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recsys.simulation.slates.policies import (
    EpsilonGreedyPolicy,
    FactoredPolicy,
    PlackettLucePolicy,
    SlatePolicy,
)
from recsys.simulation.slates.probabilities import (
    enumerate_slates,
    place_probabilities,
    sample_slates,
    slot_marginals,
)

SCORE = np.array(
    [[0.3, 2.0, np.nan, 1.0, 0.9, -1.0], [0.0, 0.0, 1.0, -np.inf, 0.5, 0.2], [3.0, 2, 1, 0, -1, -2]]
)
POLICIES: dict[str, SlatePolicy] = {
    "softmax": PlackettLucePolicy(SCORE, 3, temperature=0.7),
    "softmax of the best two": PlackettLucePolicy(SCORE, 3, top=2),
    "epsilon": EpsilonGreedyPolicy(SCORE, 3, top=4, epsilon=0.3),
    "by score": EpsilonGreedyPolicy(SCORE, 3),
    "shuffle": EpsilonGreedyPolicy(SCORE, 3, top=4, epsilon=1.0),
    "factored": FactoredPolicy(np.random.default_rng(5).dirichlet(np.ones(6), size=(3, 3))),
}
REPEATS_ITEMS = {"factored"}
ABOVE = [np.array(list(itertools.permutations(range(6), j))) for j in range(3)]


@pytest.fixture(params=POLICIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def probabilities(policy: SlatePolicy, above: np.ndarray) -> np.ndarray:
    """[M, 3, 6] of the three rounds below each of ``above`` [M, j]."""
    return np.stack([policy.next_probabilities(np.tile(one, (3, 1))) for one in above])


def test_the_next_item_has_a_probability(name: str) -> None:
    policy = POLICIES[name]
    assert policy.shape == (3, 3, 6)
    for above in ABOVE:
        chance = probabilities(policy, above)
        assert chance.dtype == np.float64
        assert (chance >= 0).all()
        np.testing.assert_allclose(chance.sum(axis=2), 1.0, rtol=1e-12)


def test_an_item_stands_on_one_place(name: str) -> None:
    for above in ABOVE[1:]:
        chance = probabilities(POLICIES[name], above)
        again = np.take_along_axis(chance, above[:, None, :].repeat(3, axis=1), axis=2)
        assert again.any() == (name in REPEATS_ITEMS)


# Places that do not look at each other have no items above them.
@pytest.mark.parametrize("name", [name for name in POLICIES if name not in REPEATS_ITEMS])
def test_no_item_above_is_no_item(name: str) -> None:
    policy = POLICIES[name]
    none, empty = np.full((3, 2), -1), np.empty((3, 0), dtype=np.int64)
    np.testing.assert_array_equal(policy.next_probabilities(none), policy.next_probabilities(empty))


def test_some_rounds_of_it(name: str) -> None:
    policy, rows = POLICIES[name], np.array([2, 0, 2, 1])
    part = policy.take(rows)
    assert type(part) is type(policy)
    assert part.shape == (4, 3, 6)
    for above in ([], [5], [1, 4]):
        whole = policy.next_probabilities(np.tile(np.array(above, dtype=np.int64), (3, 1)))
        found = part.next_probabilities(np.tile(np.array(above, dtype=np.int64), (4, 1)))
        np.testing.assert_array_equal(found, whole[rows])
    assert policy.take(rows[:0]).shape == (0, 3, 6)


def test_it_is_not_changed_by_asking(name: str) -> None:
    policy, above = POLICIES[name], np.array([[1], [2], [3]])
    first = policy.next_probabilities(above)
    kept = first.copy()
    policy.next_probabilities(above)
    np.testing.assert_array_equal(policy.next_probabilities(above), kept)
    assert above.tolist() == [[1], [2], [3]]


def test_draws_come_as_often_as_the_probabilities_say(name: str) -> None:
    policy, rng = POLICIES[name], np.random.default_rng(0)
    times = np.repeat(np.arange(3), 4_000)
    action, propensity = sample_slates(policy.take(times), rng)
    np.testing.assert_array_equal(propensity, place_probabilities(policy.take(times), action))
    slates, chance = enumerate_slates(policy)
    np.testing.assert_allclose(chance.sum(axis=1), 1.0)
    for row in range(3):
        mine = action[times == row]
        for slate, p in zip(slates, chance[row], strict=True):
            share = (mine == slate).all(axis=1).mean()
            assert abs(share - p) <= 4.5 * np.sqrt(p * (1 - p) / 4_000) + 2 / 4_000


def test_marginals_are_sums_over_all_slates(name: str) -> None:
    policy = POLICIES[name]
    slates, chance = enumerate_slates(policy)
    expected = np.zeros((3, 3, 6))
    for slate, p in zip(slates, chance.T, strict=True):
        for slot, item in enumerate(slate):
            expected[:, slot, item] += p
    found = slot_marginals(policy)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    action = np.array([[1, 3, -1], [2, -1, -1], [0, 1, 2]])
    picked = slot_marginals(policy, action=action)
    assert picked[0, 2] == picked[1, 1] == picked[1, 2] == 1.0
    np.testing.assert_allclose(picked[2], expected[2, [0, 1, 2], [0, 1, 2]], atol=1e-12)
    np.testing.assert_allclose(picked[1, 0], expected[1, 0, 2], atol=1e-12)
