from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.world.arms import ArmTables, SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.clicks import ClickModel
from recsys.simulation.world.sessions import Behaviour, ranks_of, simulate_sessions
from tests.recsys.simulation.world_of_two_tastes import NUM_USERS, fitted

ITEMS = np.tile(np.arange(1, 31), (NUM_USERS, 1))
TRUTH = fitted()[0].attraction(np.arange(NUM_USERS), ITEMS)
BEST = arm_from_scores("best", ITEMS, TRUTH)
WORST = arm_from_scores("worst", ITEMS, -TRUTH)
EPSILON = replace(BEST, name="epsilon", settings=ArmSettings(ranker="epsilon", top=10))
ONCE = Behaviour(churn=1.0, loyalty=0.0, fatigue=0.0)


def tables(*arms: SimulatedArm) -> ArmTables:
    return tables_of(fitted()[0], list(arms))


def test_clicks_are_those_of_the_truth() -> None:
    found = simulate_sessions(
        tables(BEST), sessions=20_000, rng=np.random.default_rng(0), behaviour=ONCE, k=3, here=2000
    ).people
    best = -np.sort(-TRUTH, axis=1)[:, :3]
    wanted = float((best * ONCE.clicks.examination(3)).sum(axis=1).mean())
    assert abs(found.clicks.mean() - wanted) < 4 * found.clicks.std() / np.sqrt(20_000)
    assert abs(found.expected.mean() - wanted) < 4 * found.expected.std() / np.sqrt(20_000)
    assert (found.sessions == 1).all()
    assert not found.stayed.any()


def test_same_seed_same_people() -> None:
    one, two = (
        simulate_sessions(
            tables(BEST, EPSILON), sessions=3000, rng=np.random.default_rng(5), k=5, here=500
        )
        for _ in range(2)
    )
    for a, b in zip(one.people, two.people, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(one.people.sessions.sum()) == 3000


def test_better_arms_get_more_clicks_and_keep_people() -> None:
    found = simulate_sessions(
        tables(BEST, WORST), sessions=40_000, rng=np.random.default_rng(1), k=5, here=2000
    ).people
    best, worst = (found.arm == number for number in (0, 1))
    rate = [found.clicks[arm].sum() / found.sessions[arm].sum() for arm in (best, worst)]
    assert rate[0] > 1.2 * rate[1]
    assert found.sessions[best].mean() > found.sessions[worst].mean()


def test_what_was_shown_wears_off() -> None:
    loyal = Behaviour(churn=1e-9, loyalty=0.0, fatigue=0.5)
    found = simulate_sessions(
        tables(BEST), sessions=400, rng=np.random.default_rng(2), behaviour=loyal, k=2, here=100
    ).people
    fresh = (-np.sort(-TRUTH, axis=1)[:, :2] * loyal.clicks.examination(2)).sum(axis=1)
    # Four sessions with half the attraction each time.
    np.testing.assert_allclose(found.expected, fresh[found.user] * 1.875, rtol=1e-5)
    assert found.stayed.all()
    assert (found.sessions == 4).all()


def test_the_log_and_what_other_arms_would_have_got() -> None:
    found = simulate_sessions(
        tables(BEST, EPSILON),
        sessions=900,
        rng=np.random.default_rng(3),
        k=4,
        here=300,
        logging_arm=1,
        log_sessions=500,
        what_if=[0, 1],
        only=1,
    )
    log = found.log
    assert log is not None
    assert len(log) == 500
    assert log.rank.shape == log.propensity.shape == log.click.shape == (500, 4)
    assert ((log.propensity > 0) & (log.propensity <= 1)).all()
    assert not (log.conversion & ~log.click).any()
    assert (np.diff(np.sort(log.rank, axis=1), axis=1) > 0).all()
    fresh = log.truth[:300]  # nobody was shown anything in the first step
    best = (-np.sort(-TRUTH, axis=1)[:, :4] * ClickModel().examination(4)).sum(axis=1)
    np.testing.assert_allclose(fresh[:, 0], best[log.user[:300]], rtol=1e-5)
    assert (fresh[:, 1] <= fresh[:, 0] + 1e-6).all()


def test_popular_items_gain_from_a_crowd() -> None:
    plain, crowded = (
        tables_of(fitted()[0], [BEST], popularity=effect).attraction[0] for effect in (0.0, 1.0)
    )
    popular = fitted()[0].item_events[BEST.item_index] > fitted()[0].item_events[1:].max() / 2
    assert (crowded[popular] > plain[popular]).all()


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="sessions and here must be >= 1"):
        simulate_sessions(tables(BEST), sessions=0, rng=rng)
    with pytest.raises(ValueError, match=r"logging_arm must be in 0\.\.0"):
        simulate_sessions(tables(BEST), sessions=1, rng=rng, logging_arm=1)
    with pytest.raises(ValueError, match="churn must be above 0"):
        Behaviour(churn=0.0)
    with pytest.raises(ValueError, match="fatigue must be in"):
        Behaviour(fatigue=1.5)
    with pytest.raises(ValueError, match="days_between must be >= 0"):
        Behaviour(days_between=-1.0)
    with pytest.raises(ValueError, match="different names"):
        tables(BEST, BEST)
    short = SimulatedArm("short", ITEMS[:3], -np.arange(90.0).reshape(3, 30))
    with pytest.raises(ValueError, match="one row per user"):
        tables(short)
    with pytest.raises(ValueError, match=r"must be \[U, M\]"):
        SimulatedArm("x", ITEMS, TRUTH[:, :3])
    with pytest.raises(ValueError, match="got less in 240 rows"):
        SimulatedArm("x", ITEMS - 1, -ITEMS)
    with pytest.raises(ValueError, match="not repeat an item"):
        SimulatedArm("x", np.ones_like(ITEMS), -ITEMS)
    with pytest.raises(ValueError, match="never rise"):
        SimulatedArm("x", ITEMS, ITEMS)


def test_places_in_another_list_of_the_same_user() -> None:
    rng = np.random.default_rng(0)
    mine = np.stack([rng.permutation(30)[:9] + 1 for _ in range(50)])
    theirs = np.stack([rng.permutation(30)[:12] + 1 for _ in range(50)])
    expected = [
        [row.tolist().index(item) if item in row else -1 for item in other]
        for row, other in zip(mine, theirs.tolist(), strict=True)
    ]
    assert ranks_of(mine, theirs).tolist() == expected
