from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from recsys.errors import ConfigError
from recsys.simulation.estimates.estimate import Estimate
from recsys.simulation.trial import Trial, run_trial
from recsys.simulation.trial.guardrails import (
    GUARDRAILS,
    guarded_values,
    judge_guardrails,
    with_margins,
)
from recsys.simulation.world.arms import SimulatedArm, arm_from_scores, tables_of
from recsys.simulation.world.sessions import Behaviour, People, simulate_sessions
from recsys.simulation.world.slate_traits import SlateTraits
from tests.recsys.simulation.world_of_two_tastes import NUM_ITEMS, NUM_USERS, fitted

WORLD, _ = fitted()
TRAITS = SlateTraits.of(WORLD)
RULES = {one.name: one for one in GUARDRAILS}
WIDE = np.tile(np.arange(1, 31), (NUM_USERS, 1))
RANDOM = arm_from_scores("random", WIDE, np.random.default_rng(0).random(WIDE.shape))
NARROW = arm_from_scores("narrow", WIDE[:, :4], WORLD.attraction(np.arange(NUM_USERS), WIDE[:, :4]))
WEAKER = arm_from_scores(
    "weaker",
    WIDE,
    WORLD.attraction(np.arange(NUM_USERS), WIDE) + 2 * np.random.default_rng(1).random(WIDE.shape),
)


def test_traits_are_those_of_their_definitions() -> None:
    items = np.array([[1, 2, 3], [70, 1, 8]])
    events = WORLD.item_events.copy()
    events[2] = 0
    world = replace(WORLD, item_events=events)
    found = SlateTraits.of(world).measure(items)
    head = set((np.argsort(-events[1:], kind="stable")[:8] + 1).tolist())
    for row, slate in enumerate(items.tolist()):
        assert found[row, 0] == pytest.approx(sum(item in head for item in slate) / 3)
        assert found[row, 1] == pytest.approx(sum(item == 2 for item in slate) / 3)
        far = []
        for one, two in combinations(slate, 2):
            a, b = WORLD.item_factor[one], WORLD.item_factor[two]
            far.append(1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)))
        assert found[row, 2] == pytest.approx(np.mean(far), rel=1e-5)
    assert TRAITS.measure(items[:, :1])[:, 2].tolist() == [0.0, 0.0]


def test_items_without_a_factor_are_unlike_all() -> None:
    factor = WORLD.item_factor.copy()
    factor[5] = 0
    traits = SlateTraits.of(replace(WORLD, item_factor=factor))
    assert traits.measure(np.array([[5, 9]]))[0, 2] == pytest.approx(1.0)


def test_people_carry_what_they_were_shown() -> None:
    once = Behaviour(churn=1.0, loyalty=0.0, fatigue=0.0)
    people = simulate_sessions(
        tables_of(WORLD, [NARROW]), sessions=3000, rng=np.random.default_rng(0), behaviour=once,
        k=3, here=500, traits=TRAITS,
    ).people  # fmt: skip
    np.testing.assert_array_equal(people.empty, people.clicks == 0)
    assert 0 < people.empty.sum() < 3000
    wanted = TRAITS.measure(NARROW.item_index[people.user, :3])
    np.testing.assert_allclose(people.traits, wanted)
    longer = simulate_sessions(
        tables_of(WORLD, [NARROW]), sessions=3000, rng=np.random.default_rng(0), k=3, here=500
    ).people
    assert (longer.empty <= longer.sessions).all()
    assert not longer.traits.any()


def test_values_are_per_session() -> None:
    number = np.array([1, 3])
    people = People(
        user=number, arm=number * 0, sessions=number, clicks=number, conversions=np.array([0, 2]),
        expected=number * 1.0, stayed=number > 9, empty=np.array([1, 1]),
        traits=np.array([[0.5, 0.0, 0.2], [1.5, 1.0, 0.6]]),
    )  # fmt: skip
    found = guarded_values(people, k=3, coverage=0.25)
    assert list(found) == [one.name for one in GUARDRAILS]
    values = {name: one.value for name, one in found.items()}
    assert values == pytest.approx(
        {"conversions": 0.5, "no-click": 0.5, "coverage": 0.25, "head-share": 0.5,
         "diversity": 0.2, "new-items": 0.25}
    )  # fmt: skip
    assert (found["coverage"].low, found["coverage"].high) == (0.25, 0.25)
    assert "diversity" not in guarded_values(people, k=1, coverage=0.25)


@pytest.mark.parametrize(
    ("name", "control", "value", "error", "verdict"),
    [
        ("diversity", 1.0, 0.65, 0.01, "safe"),  # a fall of 35% where 50% are allowed
        ("diversity", 1.0, 0.49, 0.01, "harmed"),
        ("diversity", 1.0, 0.51, 0.01, "harmed"),  # surely lower, and 50% are not ruled out
        ("diversity", 1.0, 0.75, 0.20, "unclear"),
        ("diversity", 1.0, 1.50, 0.01, "safe"),
        ("no-click", 1.0, 1.02, 0.005, "safe"),  # a rise does harm, 5% are allowed
        ("no-click", 1.0, 1.10, 0.01, "harmed"),
        ("no-click", 1.0, 0.80, 0.01, "safe"),
        ("new-items", 0.0, 0.0, 0.0, "safe"),  # what is not there cannot fall
        ("head-share", 0.0, 0.0, 0.0, "safe"),
        ("head-share", 0.0, 0.1, 0.01, "harmed"),
        ("head-share", 0.0, 0.1, 0.1, "unclear"),
        ("coverage", 0.5, 0.45, 0.0, "safe"),
        ("coverage", 0.5, 0.35, 0.0, "harmed"),
    ],
)
def test_verdicts(name: str, control: float, value: float, error: float, verdict: str) -> None:
    old = Estimate(name, control, error, control, control, 100)
    new = Estimate(name, value, error, value, value, 100)
    (found,) = judge_guardrails("new", {name: new}, {name: old})
    assert found.verdict == verdict
    assert found.safe == (verdict == "safe")
    if control > 0:
        assert found.lift == pytest.approx(value / control - 1)
        assert found.low is not None
        assert found.high is not None
        half = 1.959964 * np.hypot(error, value / control * error) / control
        assert (found.low, found.high) == pytest.approx((found.lift - half, found.lift + half))
    else:
        assert found.lift is None
    assert found.says.startswith(name)


def test_a_wider_level_asks_for_more() -> None:
    old = {"no-click": Estimate("no-click", 1.0, 0.01, 1.0, 1.0, 100)}
    new = {"no-click": Estimate("no-click", 1.02, 0.01, 1.02, 1.02, 100)}
    verdicts = [judge_guardrails("new", new, old, level=level)[0].verdict for level in (0.9, 0.999)]
    assert verdicts == ["safe", "unclear"]


def test_margins() -> None:
    found = {one.name: one.margin for one in with_margins({"diversity": 0.5})}
    assert found == {one.name: one.margin for one in GUARDRAILS} | {"diversity": 0.5}
    assert RULES["diversity"].harm == "a fall"
    assert RULES["no-click"].harm == "a rise"
    with pytest.raises(ConfigError, match="unknown guardrail 'divresity'"):
        with_margins({"divresity": 0.5})
    for margin in (0.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="guardrail diversity must have a margin > 0"):
            with_margins({"diversity": margin})


def trial(*arms: SimulatedArm, margins: dict[str, float]) -> Trial:
    return run_trial(
        WORLD,
        [RANDOM, *arms],
        sessions=40_000,
        rng=np.random.default_rng(0),
        k=3,
        log_sessions=500,
        guardrails=with_margins(margins),
    )


def test_more_clicks_from_four_items_for_everybody_are_no_reason() -> None:
    held = trial(NARROW, margins={"head-share": 20.0})
    assert held.lift("narrow").low > 0
    assert (held.verdict, held.winner) == ("HOLD", None)
    assert "not narrow, for a guardrail is not safe: coverage -86.7%" in held.reasons[0]
    assert held.result("narrow").guarded["coverage"].value == pytest.approx(4 / NUM_ITEMS)
    wished = trial(NARROW, margins={"head-share": 20.0, "coverage": 1.0})
    assert (wished.verdict, wished.winner) == ("PROMOTE", "narrow")


def test_the_best_arm_that_keeps_its_guardrails_wins() -> None:
    found = trial(NARROW, WEAKER, margins={"head-share": 20.0, "diversity": 1.0})
    assert found.lift("narrow").value > found.lift("weaker").value > 0
    assert (found.verdict, found.winner) == ("PROMOTE", "weaker")
    assert found.reasons[0].startswith("weaker against random")
    assert found.reasons[1].startswith("not narrow, for a guardrail is not safe: coverage")
    assert {one.arm for one in found.guardrails} == {"narrow", "weaker"}
