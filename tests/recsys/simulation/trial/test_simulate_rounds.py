from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.trial.feedback_loop import LoopRound
from recsys.simulation.trial.rounds import REFITS, Rounds, run_rounds
from recsys.simulation.world.arms import arm_from_scores
from tests.recsys.simulation.world_of_two_tastes import NUM_USERS, fitted

ITEMS = np.tile(np.arange(1, 13), (NUM_USERS, 1))
GREEDY = arm_from_scores("greedy", ITEMS, -ITEMS.astype(float))
SHUFFLE = replace(GREEDY, name="shuffle", settings=ArmSettings(ranker="shuffle"))


def test_every_arm_and_way_of_training_with_the_same_first_round() -> None:
    one, two = (
        run_rounds(fitted()[0], [GREEDY, SHUFFLE], rounds=3, sessions=1000, seed=seed, k=4)
        for seed in (0, 1)
    )
    assert list(one.of) == [(arm, name) for arm in ("greedy", "shuffle") for name in REFITS]
    assert all(len(rounds) == 3 for rounds in one.of.values())
    for arm in ("greedy", "shuffle"):
        plain, even = (one.of[arm, name] for name in REFITS)
        assert plain[0] == even[0]
        assert plain[0] != two.of[arm, next(iter(REFITS))][0]
    shown = {arm: rounds[-1].coverage for (arm, _), rounds in one.of.items()}
    assert shown["greedy"] == pytest.approx(4 / 12)  # it never finds what it does not show
    assert shown["shuffle"] == 1.0


def test_table_and_curves() -> None:
    rounds = [LoopRound(0.25, 0.5, 0.75, 1.0), LoopRound(0.125, 0.25, 0.875, 0.1)]
    found = Rounds({("greedy", "clicks per showing"): rounds}, 1000)
    table = found.table()
    assert table.rows[1:] == (
        ("greedy", "as it is", "1", "0.2500", "50.0%", "0.750", "-"),
        ("greedy", "clicks per showing", "2", "0.1250", "25.0%", "0.875", "10.0%"),
    )
    assert table.text.startswith("1,000 sessions a round.")
    clicks, concentration = found.curves()
    assert clicks.lines[0].points == ((1.0, 0.25), (2.0, 0.125))
    assert concentration.lines[0].points == ((1.0, 0.75), (2.0, 0.875))


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        run_rounds(fitted()[0], [GREEDY], rounds=0, sessions=100, seed=0)
