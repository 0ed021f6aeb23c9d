from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.trial.log_estimates import LogEstimate, estimate_from_log
from recsys.simulation.trial.place_rewards import fit_place_rewards
from recsys.simulation.world.arms import SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.sessions import Behaviour, SessionLog, simulate_sessions
from tests.recsys.simulation.world_of_two_tastes import NUM_USERS, fitted

WORLD, _ = fitted()
ITEMS = np.tile(np.arange(1, 13), (NUM_USERS, 1))
TRUTH = WORLD.attraction(np.arange(NUM_USERS), ITEMS)
BEST = arm_from_scores("best", ITEMS, TRUTH)
POPULAR = arm_from_scores("popular", ITEMS, -ITEMS.astype(float))
SHUFFLE = replace(POPULAR, name="shuffle", settings=ArmSettings(ranker="shuffle", top=6))
EPSILON = replace(POPULAR, name="epsilon", settings=ArmSettings(ranker="epsilon", epsilon=0.3))


def logged(arm: SimulatedArm, *others: SimulatedArm, sessions: int = 20_000, seed: int = 0,
           k: int = 3) -> SessionLog:  # fmt: skip
    log = simulate_sessions(
        tables_of(WORLD, [arm, *others]), sessions=sessions, rng=np.random.default_rng(seed),
        behaviour=Behaviour(fatigue=0.0), k=k, here=2000, only=0, logging_arm=0,
        log_sessions=sessions, what_if=range(1, len(others) + 1),
    ).log  # fmt: skip
    assert log is not None
    return log


def judged(logging: SimulatedArm, arm: SimulatedArm, *, seed: int = 0) -> LogEstimate:
    log = logged(logging, arm, seed=seed)
    rewards = fit_place_rewards(log, logging, rng=np.random.default_rng(seed))
    truth = float(log.truth.mean())
    return estimate_from_log(log, logging, arm, rewards=rewards, truth=truth)


def test_predictions_are_the_table_of_the_other_half() -> None:
    log = logged(SHUFFLE, sessions=3000)
    rewards = fit_place_rewards(log, SHUFFLE, rng=np.random.default_rng(0))
    assert rewards.models.log.num_actions == 6 + 1  # six ranks are drawn, the rest is one action
    found = rewards.predict(POPULAR)
    for slate, place in [(0, 0), (5, 2), (2999, 1)]:
        number = slate * 3 + place
        table = rewards.models.models[rewards.models.fold[number]].table
        assert found.predicted[number] == pytest.approx(table[place, log.rank[slate, place]])
        assert found.expected[number] == pytest.approx(table[place, place])  # rank = place
    drawn = rewards.predict(SHUFFLE).expected[4]  # second slate, second place
    table = rewards.models.models[rewards.models.fold[4]].table
    assert drawn == pytest.approx(table[1, :6].mean())


def test_no_person_is_in_both_halves() -> None:
    log = logged(SHUFFLE, sessions=3000)
    models = fit_place_rewards(log, SHUFFLE, rng=np.random.default_rng(0)).models
    halves: dict[int, set[int]] = {person: set() for person in log.person.tolist()}
    for person, fold in zip(np.repeat(log.person, 3).tolist(), models.fold.tolist(), strict=True):
        halves[person].add(fold)
    assert {len(each) for each in halves.values()} == {1}
    assert set().union(*halves.values()) == {0, 1}


def test_other_candidates_are_judged_by_their_rank_here() -> None:
    """An arm with the same items in an order of its own for each person."""
    log = logged(EPSILON, sessions=3000)
    rewards = fit_place_rewards(log, EPSILON, rng=np.random.default_rng(0))
    found = rewards.predict(BEST).expected
    for slate in (0, 7, 2999):
        user = log.user[slate]
        number = slate * 3 + 1
        table = rewards.models.models[rewards.models.fold[number]].table
        rank = int(np.flatnonzero(ITEMS[user] == BEST.item_index[user, 1])[0])
        assert found[number] == pytest.approx(table[1, rank])


@pytest.mark.parametrize("arm", [POPULAR, EPSILON])
def test_dr_and_dm_find_the_truth(arm: SimulatedArm) -> None:
    logs = [judged(replace(SHUFFLE, settings=ArmSettings(ranker="shuffle")), arm, seed=seed)
            for seed in range(8)]  # fmt: skip
    away = [one.errors_from_truth(one.dr) or 0.0 for one in logs if one.dr]
    assert len(away) == 8
    assert sum(abs(each) < 2.0 for each in away) >= 6
    assert abs(sum(away)) / np.sqrt(8) < 3.0
    for one in logs:
        assert one.dm is not None
        assert abs(one.dm.value - one.snips.value) < 2 * one.snips.standard_error
        assert one.diagnostics.verdict == "ok"


def test_a_model_that_does_not_know_the_person_is_found_out() -> None:
    found = judged(replace(SHUFFLE, settings=ArmSettings(ranker="shuffle")), BEST)
    assert found.errors_apart is not None
    assert found.errors_apart < -2  # ranks mean other items for everybody: dm is too low
    assert found.diagnostics.verdict == "weak"
    assert found.diagnostics.reasons[-1].kind == "disagreement"
    assert found.truth is not None
    assert abs(found.errors_from_truth(found.dr) or 9.0) < 3


def test_what_the_log_never_shows_has_the_rate_of_its_place() -> None:
    foreign = SimulatedArm("foreign", ITEMS + 20, TRUTH * 0.0)
    log = logged(SHUFFLE, sessions=3000)
    rewards = fit_place_rewards(log, SHUFFLE, rng=np.random.default_rng(0))
    found = estimate_from_log(log, SHUFFLE, foreign, rewards=rewards)
    assert found.dm is not None
    assert found.dm.value == pytest.approx(log.click.sum(axis=1).mean(), rel=0.05)
    assert not found.usable
    assert found.clip == float("inf")
    assert set(found.at_limit.values()) == {0.0}


def test_refusals() -> None:
    log = logged(SHUFFLE, sessions=1)
    with pytest.raises(ValueError, match=r"folds must be 2\.\.1"):
        fit_place_rewards(log, SHUFFLE, rng=np.random.default_rng(0))
    soft = replace(SHUFFLE, settings=ArmSettings(ranker="softmax"))
    with pytest.raises(ValueError, match="softmax"):
        fit_place_rewards(log, soft, rng=np.random.default_rng(0))
