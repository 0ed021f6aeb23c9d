from __future__ import annotations

import numpy as np
import pytest

from features.tables import Histories
from recsys.simulation.world.calibration import RateCurve, decile_rates
from recsys.simulation.world.fit import fit_world
from tests.recsys.simulation.world_of_two_tastes import NUM_ITEMS, NUM_USERS, fitted, two_tastes


def test_liked_items_attract_more_and_convert_more() -> None:
    world, _ = fitted(0.0)
    users, items = np.arange(NUM_USERS), np.tile(np.arange(1, NUM_ITEMS + 1), (NUM_USERS, 1))
    liked = (items - 1) % 2 == users[:, None] % 2
    attraction = world.attraction(users, items)
    assert attraction[liked].mean() > 1.5 * attraction[~liked].mean()
    assert ((attraction > 0) & (attraction < 1)).all()
    conversion = world.conversion(users, items)
    assert ((conversion > 0) & (conversion < 1)).all()


def test_simulated_rates_are_the_logged_ones() -> None:
    _, honesty = fitted()
    for deciles in (honesty.clicks, honesty.conversions):
        assert len(deciles) == 10
        assert sum(one.explained() for one in deciles) >= 8
        total = sum(one.num_pairs for one in deciles)
        logged, simulated = (
            sum(getattr(one, name) * one.num_pairs for one in deciles) / total
            for name in ("logged", "simulated")
        )
        assert abs(simulated / logged - 1) < 0.1


def test_what_was_met_later_attracts_more_and_the_mean_stays() -> None:
    half, none = fitted(0.5)[0], fitted(0.0)[0]
    user, item = np.divmod(half.later, NUM_ITEMS + 1)
    more, less = (world.attraction(user, item[:, None]) for world in (half, none))
    np.testing.assert_allclose(more, 0.5 + 0.5 * less)
    world, nothing = fitted()[0], np.array([[0, -1]])
    assert world.attraction(np.zeros(1, dtype=np.int64), nothing).tolist() == [[0.0, 0.0]]


def test_one_seed_one_world() -> None:
    again = fit_world(two_tastes(), NUM_ITEMS, rng=np.random.default_rng(1), dim=4, held_out=0.3)
    world, honesty = fitted()
    np.testing.assert_array_equal(again[0].coefficient, world.coefficient)
    assert again[1] == honesty


def test_without_weights_there_is_one_conversion_rate() -> None:
    log = two_tastes()
    plain = Histories(log.indptr, log.item_index, log.timestamp, np.ones_like(log.weight))
    world, honesty = fit_world(plain, NUM_ITEMS, rng=np.random.default_rng(1), dim=4)
    assert world.conversion_curve is None
    assert honesty.conversions == []
    assert world.conversion(np.zeros(1, dtype=np.int64), np.ones((1, 2), int)).tolist() == [
        [0.5] * 2
    ]


def test_rate_curve_finds_the_rates() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=60_000)
    curve = RateCurve.fit(score, rng.random(score.size) < 1 / (1 + np.exp(2.0 - score)))
    at = np.array([-1.5, 0.0, 1.5])
    np.testing.assert_allclose(curve(at), 1 / (1 + np.exp(2.0 - at)), rtol=0.15)
    assert (np.diff(curve(np.linspace(-4, 4, 50))) >= 0).all()


def test_deciles_by_hand() -> None:
    score = np.arange(20.0)[::-1]
    logged = np.zeros(20, dtype=bool)
    logged[[0, 1, 2]] = True  # the two best pairs, and one of the next two
    found = decile_rates(score, logged, logged, np.arange(20))
    assert [one.logged for one in found] == [0.0] * 8 + [0.5, 1.0]
    assert found[9].within()
    assert found[9].ratio == 1.0
    assert found[0].ratio == float("inf")
    off = found[9]._replace(simulated=0.8)
    assert not off.within()
    assert not off.explained()
    assert off.within(0.25)
    assert off._replace(logged_error=0.1).explained()


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    log = two_tastes()
    with pytest.raises(ValueError, match="held_out must be above 0"):
        fit_world(log, NUM_ITEMS, rng=rng, held_out=1.0)
    with pytest.raises(ValueError, match="known must be in"):
        fit_world(log, NUM_ITEMS, rng=rng, known=2.0)
    with pytest.raises(ValueError, match=r"dim must be in 1\.\.79"):
        fit_world(log, NUM_ITEMS, rng=rng, dim=80)
    with pytest.raises(ValueError, match="label must hold both kinds"):
        RateCurve.fit(np.arange(3.0), np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="score and label must be"):
        RateCurve.fit(np.arange(3.0), np.ones(2, dtype=bool))
    with pytest.raises(ValueError, match=r"must be \[n >= 10\]"):
        decile_rates(np.arange(3.0), np.ones(3, dtype=bool), np.ones(3, dtype=bool))
