from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.trial.feedback_loop import click_rates, debiased_click_rates, feedback_loop
from recsys.simulation.trial.simulated_log import feedback_table, impression_table
from recsys.simulation.world.arms import arm_from_scores, tables_of
from recsys.simulation.world.sessions import simulate_sessions
from serving.impressions import join_feedback
from serving.impressions.log import FEEDBACK_COLUMNS, IMPRESSION_COLUMNS
from tests.recsys.simulation.world_of_two_tastes import NUM_ITEMS, NUM_USERS, fitted

ITEMS = np.tile(np.arange(NUM_ITEMS, NUM_ITEMS - 30, -1), (NUM_USERS, 1))
ARM = replace(
    arm_from_scores("rare first", ITEMS, np.tile(-np.arange(30.0), (NUM_USERS, 1))),
    settings=ArmSettings(ranker="epsilon", top=30, epsilon=0.5),
)
IDS = [f"item {number}" for number in range(1, NUM_ITEMS + 1)]
START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_tables_are_those_of_the_service() -> None:
    log = simulate_sessions(
        tables_of(fitted()[0], [ARM]), sessions=600, rng=np.random.default_rng(0), k=4, here=200,
        logging_arm=0, log_sessions=500,
    ).log  # fmt: skip
    assert log is not None
    shown = impression_table(log, ARM, IDS, start=START)
    events = feedback_table(log, ARM, IDS, start=START)
    assert dict(shown.schema) == IMPRESSION_COLUMNS
    assert dict(events.schema) == FEEDBACK_COLUMNS
    assert shown["position"].to_list()[:4] == [1, 2, 3, 4]
    assert shown["policy"].unique().to_list() == ["epsilon"]
    np.testing.assert_allclose(shown["propensity"], log.propensity.ravel(), rtol=1e-6)
    first = ARM.item_index[log.user[0], log.rank[0, 0]]
    assert shown["item_id"][0] == f"item {first}"
    clicks = events.filter(pl.col("event") == "click")
    joined = join_feedback(shown, clicks, window_s=60)
    np.testing.assert_array_equal(joined["reward"].to_numpy() > 0, log.click.ravel())
    bought = join_feedback(shown, events.filter(pl.col("event") == "conversion"), window_s=60)
    np.testing.assert_array_equal(bought["reward"].to_numpy() > 0, log.conversion.ravel())


def test_a_loop_that_learns_gets_more_clicks() -> None:
    world = fitted()[0]
    found = feedback_loop(
        world, ARM, debiased_click_rates, rounds=4, sessions=8000, rng=np.random.default_rng(0), k=4
    )
    assert found[-1].clicks > 1.1 * found[0].clicks
    assert found[0].kept == 1.0
    assert found[1].kept < found[3].kept  # it settles


def test_without_exploration_a_naive_loop_shows_the_same_for_ever() -> None:
    world, greedy = fitted()[0], replace(ARM, settings=ArmSettings())
    closed, open_ = (
        feedback_loop(
            world, arm, click_rates, rounds=3, sessions=4000, rng=np.random.default_rng(0), k=4
        )[-1]
        for arm in (greedy, ARM)
    )
    assert closed.coverage == pytest.approx(4 / 30)
    assert open_.coverage == 1.0
    assert closed.concentration > open_.concentration
    assert open_.clicks > closed.clicks


def test_refusals() -> None:
    with pytest.raises(ValueError, match="rounds must be >= 1"):
        feedback_loop(
            fitted()[0], ARM, click_rates, rounds=0, sessions=1, rng=np.random.default_rng(0)
        )
