"""What a simulation's report says of a log, and what it must not say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.trial import Trial, run_trial
from recsys.simulation.trial.estimate_tables import (
    clip_table,
    estimate_lines,
    policy_table,
    refusals,
)
from recsys.simulation.world.arms import arm_from_scores
from tests.recsys.simulation.world_of_two_tastes import NUM_USERS, fitted

ITEMS = np.tile(np.arange(1, 13), (NUM_USERS, 1))
NUMBERS = slice(3, 8)
"""Columns of the estimators."""


@cache
def trial() -> Trial:
    world, _ = fitted()
    popular = arm_from_scores("popular", ITEMS, -ITEMS.astype(float))
    shuffle = replace(popular, name="shuffle", settings=ArmSettings(ranker="shuffle"))
    other = arm_from_scores("other", ITEMS + 11, -ITEMS.astype(float))  # one of its items is shown
    return run_trial(
        world, [popular, shuffle, other], sessions=5000, rng=np.random.default_rng(0), k=3,
        log_sessions=5000,
    )  # fmt: skip


def test_every_estimator_of_every_arm_that_the_log_carries() -> None:
    lines = [one for one in estimate_lines(trial()) if one.policy == "popular (log of shuffle)"]
    assert [one.estimator for one in lines] == ["ips", "snips", "dm", "dr", "clipped ips"]
    assert all(one.value is not None for one in lines)
    model = next(one for one in lines if one.estimator == "dm")
    assert (model.low, model.high) == (None, None)
    assert "no interval" in model.note
    robust = next(one for one in lines if one.estimator == "dr")
    assert robust.low is not None
    assert robust.high is not None
    assert robust.low < robust.value < robust.high  # type: ignore[operator]
    clipped = next(one for one in lines if one.estimator == "clipped ips")
    assert "weights up to any, chosen by the log" in clipped.note
    row = next(row for row in policy_table(trial()).rows if row[0] == lines[0].policy)
    head = policy_table(trial()).rows[0]
    assert row[head.index("dr")] == f"{robust.value:.4f} [{robust.low:.4f}, {robust.high:.4f}]"
    assert row[head.index("dm")] == f"{model.value:.4f}"
    assert row[head.index("dm minus snips")].endswith("errors")


def test_what_the_log_cannot_carry_has_a_reason_and_no_number() -> None:
    refused = {"other (log of shuffle)", "shuffle (log of popular)", "other (log of popular)"}
    lines = estimate_lines(trial())
    assert {one.policy for one in lines if one.verdict == "unusable"} == refused
    for one in lines:
        if one.policy in refused:
            assert (one.value, one.low, one.high, one.lift) == (None,) * 4
            assert "mean weight" in one.note
    for row in policy_table(trial()).rows[1:]:
        assert (set(row[NUMBERS]) == {"-"}) == (row[0] in refused)
    clips = {row[0]: row[1:-1] for row in clip_table(trial()).rows[1:]}
    assert set(clips["other"]) == {"-"}
    assert "-" not in clips["popular"]
    said = {text.removeprefix("no number for ").split(": ")[0] for text in refusals(trial())}
    assert said == refused


def test_the_chosen_limit_stands_beside_its_value() -> None:
    rows = {row[0]: dict(zip(clip_table(trial()).rows[0], row, strict=True))
            for row in clip_table(trial()).rows[1:]}  # fmt: skip
    popular = rows["popular"]
    assert popular["chosen by the log"] == "any"
    assert popular["at the chosen limit"] == popular["weights up to any"]
