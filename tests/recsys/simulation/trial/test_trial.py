from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.errors import ConfigError
from recsys.simulation.trial import run_trial
from recsys.simulation.trial.guardrails import with_margins
from recsys.simulation.trial.log_estimates import (
    LogEstimate,
    coverage_of,
    estimate_from_log,
    place_weights,
)
from recsys.simulation.world.arms import SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.sessions import Behaviour, simulate_sessions
from tests.recsys.simulation.world_of_two_tastes import NUM_USERS, fitted

WORLD, HONESTY = fitted()
ITEMS = np.tile(np.arange(1, 13), (NUM_USERS, 1))
TRUTH = WORLD.attraction(np.arange(NUM_USERS), ITEMS)
BEST = arm_from_scores("best", ITEMS, TRUTH)
NOISY = arm_from_scores(
    "noisy", ITEMS, TRUTH * np.random.default_rng(9).uniform(0.3, 1.7, TRUTH.shape)
)
POPULAR = arm_from_scores("popular", ITEMS, -ITEMS.astype(float))
EPSILON = replace(POPULAR, name="epsilon", settings=ArmSettings(ranker="epsilon", epsilon=0.1))
SHUFFLE = replace(POPULAR, name="shuffle", settings=ArmSettings(ranker="shuffle"))
STEADY = Behaviour(fatigue=0.0)


def judged(logging: SimulatedArm, arm: SimulatedArm, *, k: int, seed: int = 0) -> LogEstimate:
    tables = tables_of(WORLD, [logging, arm])
    log = simulate_sessions(
        tables,
        sessions=20_000,
        rng=np.random.default_rng(seed),
        behaviour=STEADY,
        k=k,
        here=2000,
        only=0,
        logging_arm=0,
        log_sessions=20_000,
        what_if=[1],
    ).log
    assert log is not None
    return estimate_from_log(log, logging, arm, truth=float(log.truth.mean()))


@pytest.mark.parametrize("arm", [BEST, NOISY, SHUFFLE])
def test_a_floor_of_a_tenth_carries_the_estimate(arm: SimulatedArm) -> None:
    logs = [judged(EPSILON, arm, k=1, seed=seed) for seed in range(12)]
    for name in ("ips", "snips"):
        away = [one.errors_from_truth(getattr(one, name)) or 0.0 for one in logs]
        assert sum(abs(each) < 2.0 for each in away) >= 10
        assert abs(sum(away)) / np.sqrt(12) < 3.0  # not to one side either
    for one in logs:
        assert one.diagnostics.coverage == pytest.approx(1.0)
        assert all(reason.kind != "support" for reason in one.diagnostics.reasons)


@pytest.mark.parametrize("arm", [BEST, NOISY, SHUFFLE])
def test_a_log_without_exploration_is_refused(arm: SimulatedArm) -> None:
    found = judged(POPULAR, arm, k=3)
    assert not found.usable
    assert found.diagnostics.mean.value < 0.8
    assert found.diagnostics.coverage == pytest.approx(found.diagnostics.mean.value, abs=0.05)
    assert any(reason.kind == "support" for reason in found.diagnostics.reasons)
    away = found.errors_from_truth(found.ips)
    assert away is not None
    assert away < -4.0  # what the log does not show is missing


def test_an_arm_on_its_own_log_has_weight_one() -> None:
    found = judged(EPSILON, replace(EPSILON, name="again"), k=3)
    assert found.diagnostics.mean.value == pytest.approx(1.0)
    assert found.diagnostics.effective_share == pytest.approx(1.0)
    assert found.ips.value == pytest.approx(found.snips.value)


def test_whole_slates_of_a_shuffle_carry_every_order() -> None:
    found = judged(SHUFFLE, BEST, k=4)
    away = found.errors_from_truth(found.ips)
    assert found.diagnostics.verdict == "ok"
    assert away is not None
    assert abs(away) < 3.0


def test_weights_by_hand() -> None:
    tables = tables_of(WORLD, [SHUFFLE, BEST])
    log = simulate_sessions(
        tables, sessions=50, rng=np.random.default_rng(0), k=2, here=50, only=0, logging_arm=0,
        log_sessions=50,
    ).log  # fmt: skip
    assert log is not None
    shown = SHUFFLE.item_index[log.user[:, None], log.rank]
    wanted = 12.0 * (shown == BEST.item_index[log.user, :2])
    np.testing.assert_allclose(place_weights(log, SHUFFLE, BEST), wanted)
    foreign = SimulatedArm("foreign", ITEMS + 20, TRUTH * 0.0)
    assert coverage_of(SHUFFLE, foreign, log.user, 2) == 0.0
    assert not place_weights(log, SHUFFLE, foreign).any()


def test_the_better_arm_is_promoted_and_only_then() -> None:
    found = run_trial(
        WORLD, [POPULAR, BEST, SHUFFLE], sessions=40_000, rng=np.random.default_rng(0), k=3,
        log_sessions=5_000, honesty=HONESTY, guardrails=with_margins({"diversity": 1.0}),
    )  # fmt: skip
    assert (found.verdict, found.winner) == ("PROMOTE", "best")
    assert found.lift("best").low > 0 > found.lift("shuffle").high
    assert found.logging == "shuffle"
    assert len(found.log) == 5000
    assert {one.arm for one in found.refused} == {"best", "shuffle"}
    assert not any(one.usable for one in found.refused if one.arm == "shuffle")
    assert found.result("popular").num_sessions > 10_000
    held = run_trial(
        WORLD, [BEST, POPULAR], sessions=20_000, rng=np.random.default_rng(0), k=3,
        log_sessions=1000,
    )  # fmt: skip
    assert (held.verdict, held.winner) == ("HOLD", None)
    assert held.logging == "best"
    assert held.refused == ()


def test_a_dishonest_world_names_no_winner() -> None:
    off = HONESTY._replace(
        clicks=[one._replace(simulated=0.9, simulated_error=0.0) for one in HONESTY.clicks]
    )
    found = run_trial(
        WORLD, [POPULAR, BEST], sessions=20_000, rng=np.random.default_rng(0), k=3,
        log_sessions=1000, honesty=off, behaviour=STEADY,
    )  # fmt: skip
    assert (found.verdict, found.winner) == ("SUSPICIOUS", None)
    assert "click decile 1" in found.reasons[0]


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least two"):
        run_trial(WORLD, [BEST], sessions=10, rng=rng)
    with pytest.raises(ConfigError, match="unknown arm 'besst'"):
        run_trial(WORLD, [BEST, POPULAR], sessions=10, rng=rng, logging="besst")
