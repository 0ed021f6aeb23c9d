from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.ranking.exploration import (
    Drawn,
    epsilon_greedy,
    plackett_luce,
    seeded,
    uniform_shuffle,
)

SCORE = np.array([0.3, 2.0, np.nan, 1.0, 0.9, -1.0])
BEST_FIRST = [1, 3, 4, 0, 5]
POLICIES: dict[str, Callable[[np.ndarray, int, np.random.Generator], Drawn]] = {
    "shuffle": lambda score, k, rng: uniform_shuffle(score, k, rng, top=4),
    "epsilon": lambda score, k, rng: epsilon_greedy(score, k, rng, epsilon=0.3, top=4),
    "softmax": lambda score, k, rng: plackett_luce(score, k, rng, temperature=0.7, top=4),
}


def probability(policy: str, slate: list[int]) -> list[float]:
    """Propensity of each place by the definition: one draw a place among those left."""
    left, places = BEST_FIRST[:4], []
    for item in slate:
        if not left:
            places.append(1.0)
            continue
        if policy == "shuffle":
            chance = {one: 1 / len(left) for one in left}
        elif policy == "epsilon":
            chance = {one: 0.3 / len(left) + 0.7 * (one == left[0]) for one in left}
        else:
            whole = math.fsum(math.exp(SCORE[one] / 0.7) for one in left)
            chance = {one: math.exp(SCORE[one] / 0.7) / whole for one in left}
        assert math.isclose(sum(chance.values()), 1.0)
        places.append(chance[item])
        left = [one for one in left if one != item]
    return places


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("k", [1, 3, 4, 5, 9])
def test_propensities_are_those_of_one_draw_a_place(policy: str, k: int) -> None:
    for seed in range(40):
        drawn = POLICIES[policy](SCORE, k, np.random.default_rng(seed))
        slate = drawn.position.tolist()
        assert len(slate) == min(k, 5)
        np.testing.assert_allclose(drawn.propensity, probability(policy, slate), rtol=1e-12)
        assert drawn.position.dtype == np.int64
        assert drawn.propensity.dtype == np.float64
        if k > 4:
            assert slate[4] == 5, "behind those that take part the score decides"


@pytest.mark.parametrize("policy", POLICIES)
def test_slates_come_as_often_as_their_propensities_say(policy: str) -> None:
    draws = 20_000
    rng = np.random.default_rng(7)
    seen = Counter(tuple(POLICIES[policy](SCORE, 2, rng).position.tolist()) for _ in range(draws))
    expected = {
        slate: math.prod(probability(policy, list(slate)))
        for slate in itertools.permutations(BEST_FIRST[:4], 2)
    }
    assert math.isclose(sum(expected.values()), 1.0)
    assert set(seen) <= set(expected)
    for slate, share in expected.items():
        error = math.sqrt(share * (1 - share) / draws)
        assert abs(seen[slate] / draws - share) < 4 * error, slate


@pytest.mark.parametrize("policy", POLICIES)
def test_weights_of_the_inverse_propensity_have_mean_one(policy: str) -> None:
    # E[1 / propensity of the slate] is the number of slates that can be drawn: 4 * 3.
    rng = np.random.default_rng(3)
    weights = [1 / POLICIES[policy](SCORE, 2, rng).propensity.prod() for _ in range(20_000)]
    assert abs(np.mean(weights) - 12) < 4 * np.std(weights) / math.sqrt(len(weights)) + 1e-9


def test_after_a_shuffle_each_item_is_as_likely_at_each_drawn_place() -> None:
    rng = np.random.default_rng(1)
    draws = 8000
    places = np.array([uniform_shuffle(SCORE, 3, rng, top=4).position for _ in range(draws)])
    share = np.array([(places == item).mean(axis=0) for item in BEST_FIRST[:4]])
    assert np.abs(share - 0.25).max() < 4 * math.sqrt(0.25 * 0.75 / draws)
    assert uniform_shuffle(SCORE, 3, rng, top=4).propensity[0] == 0.25


def test_extremes() -> None:
    rng = np.random.default_rng(0)
    assert epsilon_greedy(SCORE, 9, rng, epsilon=0.0, top=9).position.tolist() == BEST_FIRST
    assert epsilon_greedy(SCORE, 9, rng, epsilon=0.0, top=9).propensity.tolist() == [1.0] * 5
    np.testing.assert_allclose(
        epsilon_greedy(SCORE, 5, rng, epsilon=1.0, top=9).propensity,
        [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1],
    )
    cold = plackett_luce(SCORE, 9, rng, temperature=1e-3, top=9)
    assert cold.position.tolist() == BEST_FIRST
    np.testing.assert_allclose(cold.propensity, 1.0)
    np.testing.assert_allclose(
        plackett_luce(SCORE, 5, rng, temperature=1e9, top=5).propensity,
        [1 / 5, 1 / 4, 1 / 3, 1 / 2, 1],
    )
    assert uniform_shuffle(SCORE, 2, rng, top=1).position.tolist() == [1, 3]
    for policy in POLICIES.values():
        assert policy(np.array([np.nan, -np.inf]), 3, rng).position.size == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4) | st.just(math.nan), max_size=30),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 1000),
)
def test_a_slate_holds_each_candidate_once(
    values: list[float], k: int, top: int, seed: int
) -> None:
    score = np.array(values, dtype=np.float32)
    usable = set(np.nonzero(np.isfinite(score))[0].tolist())
    for draw in (
        lambda rng: uniform_shuffle(score, k, rng, top=top),
        lambda rng: epsilon_greedy(score, k, rng, epsilon=0.5, top=top),
        lambda rng: plackett_luce(score, k, rng, temperature=0.5, top=top),
    ):
        position, propensity = draw(np.random.default_rng(seed))
        assert len(set(position.tolist())) == position.size == min(k, len(usable))
        assert set(position.tolist()) <= usable
        assert ((propensity > 0) & (propensity <= 1)).all()
        again = draw(np.random.default_rng(seed))
        assert again.position.tolist() == position.tolist()


def test_a_seed_is_its_parts() -> None:
    first = seeded("r1", "u1").random(3).tolist()
    assert seeded("r1", "u1").random(3).tolist() == first
    assert seeded("r1", "u2").random(3).tolist() != first
    assert seeded("r1u1").random(3).tolist() != first


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: uniform_shuffle(SCORE[None], 1, rng, top=1), r"score must be \[C\].*\(1, 6\)"),
        (lambda rng: uniform_shuffle(SCORE, 0, rng, top=1), "k and top must be >= 1, got 0 and 1"),
        (lambda rng: epsilon_greedy(SCORE, 1, rng, epsilon=1.5, top=1), "epsilon must be 0..1"),
        (lambda rng: plackett_luce(SCORE, 1, rng, temperature=0.0, top=1), "temperature must be"),
        (lambda rng: plackett_luce(SCORE, 1, rng, temperature=1.0, top=0), "got 1 and 0"),
    ],
)
def test_wrong_arguments_are_named(
    call: Callable[[np.random.Generator], Drawn], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))
