from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from recsys.simulation.slates import pseudo_inverse as slate_pseudo_inverse
from recsys.simulation.slates.estimators import (
    cascade_dr,
    independent_ips,
    prefix_weights,
    reward_interaction_ips,
    standard_slate_ips,
)
from recsys.simulation.slates.feedback import SlateFeedback
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
from recsys.simulation.slates.pseudo_inverse import (
    factored_pseudo_inverse,
    pseudo_inverse,
    pseudo_inverse_weights,
)
from recsys.simulation.slates.rewards import SlotValues, cross_fitted_slot_values

K, L = 5, 3
BASE = np.array([0.5, 0.1, 0.3, 0.05, 0.2])


def independent(slate: np.ndarray) -> np.ndarray:
    return BASE[slate] / np.arange(1, 4)


def cascade(slate: np.ndarray) -> np.ndarray:
    places = BASE[slate].copy()
    places[1:] *= np.cumprod(1 - places)[:-1]
    return places


def interacting(slate: np.ndarray) -> np.ndarray:
    places = BASE[slate]
    return places * (1 - 0.6 * (places.sum() - places))


def additive(slate: np.ndarray) -> np.ndarray:
    # The sum of the rewards is a sum of parts, though no place's reward depends on its item alone.
    return np.roll(independent(slate), 1)


USERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "independent": independent,
    "cascade": cascade,
    "interacting": interacting,
    "additive": additive,
}


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).parents[3] / "reference" / "slates.py"
    spec = importlib.util.spec_from_file_location("reference_slates", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def policies(kind: str, n: int, seed: int) -> SlatePolicy:
    rng = np.random.default_rng(seed)
    score = np.broadcast_to(rng.normal(size=K), (n, K))
    if kind == "factored":
        return FactoredPolicy(np.broadcast_to(rng.dirichlet(np.full(K, 2.0), size=L), (n, L, K)))
    if kind == "softmax":
        return PlackettLucePolicy(score, L, temperature=1.3)
    return EpsilonGreedyPolicy(score, L, epsilon=0.4)


def logged(n: int, seed: int, kind: str = "softmax") -> tuple[SlateFeedback, SlatePolicy]:
    """Slates of different scores, and the policy that drew them."""
    rng = np.random.default_rng(seed)
    if kind == "factored":
        policy: SlatePolicy = FactoredPolicy(rng.dirichlet(np.ones(K), size=(n, L)))
    else:
        policy = PlackettLucePolicy(rng.normal(size=(n, K)), L)
    action, propensity = sample_slates(policy, rng)
    reward = rng.normal(size=(n, L)).round(3)
    return SlateFeedback(action, reward, propensity, K, unit=rng.integers(0, n, n)), policy


def shortened(feedback: SlateFeedback, seed: int) -> SlateFeedback:
    """Some slates end early."""
    size = np.random.default_rng(seed).integers(1, L + 1, len(feedback))
    gone = np.arange(L) >= size[:, None]
    return replace(
        feedback,
        action=np.where(gone, -1, feedback.action),
        reward=np.where(gone, 0.0, feedback.reward),
        propensity=np.where(gone, 1.0, feedback.propensity),
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("normalise", [False, True])
def test_weighted_estimators_agree_with_plain_loops(
    reference: ModuleType, seed: int, normalise: bool
) -> None:
    feedback, logging = logged(40, seed, "factored" if seed == 1 else "softmax")
    feedback = shortened(feedback, seed)
    rng = np.random.default_rng(seed + 100)
    target = PlackettLucePolicy(rng.normal(size=(40, K)), L, temperature=1.5)
    chance = place_probabilities(target, feedback.action)
    marginals = [slot_marginals(one, action=feedback.action) for one in (target, logging)]
    rows = (feedback.action.tolist(), feedback.reward.tolist(), feedback.propensity.tolist())
    pairs = [
        (
            standard_slate_ips(feedback, chance, self_normalised=normalise),
            reference.standard(*rows, chance.tolist(), normalise),
        ),
        (
            reward_interaction_ips(feedback, chance, self_normalised=normalise),
            reference.reward_interaction(*rows, chance.tolist(), normalise),
        ),
        (
            independent_ips(feedback, *marginals, self_normalised=normalise),
            reference.independent(*rows[:2], *(one.tolist() for one in marginals), normalise),
        ),
    ]
    values = rng.normal(size=(2, 40, L))
    if not normalise:
        pairs.append(
            (
                cascade_dr(feedback, chance, values[0], values[1]),
                reference.cascade_dr(*rows, chance.tolist(), *values.tolist()),
            )
        )
    for estimate, loops in pairs:
        assert estimate.value == pytest.approx(loops, rel=1e-9, abs=1e-9), estimate.name
        assert estimate.num_rounds == 40
        assert estimate.low < estimate.value < estimate.high
        assert estimate.name.startswith("self-normalised") == normalise


@pytest.mark.parametrize("kind", ["factored", "softmax"])
@pytest.mark.parametrize("normalise", [False, True])
def test_pseudo_inverse_agrees_with_plain_loops(
    reference: ModuleType, kind: str, normalise: bool
) -> None:
    feedback, logging = logged(8, 3, kind)
    score = np.random.default_rng(9).normal(size=(8, K))
    target = PlackettLucePolicy(score, L, temperature=0.5)
    wanted = [reference.plackett_luce(row, 0.5) for row in score.tolist()]
    if isinstance(logging, FactoredPolicy):
        made = [reference.factored(row) for row in logging.probability.tolist()]
        short = factored_pseudo_inverse(feedback, target, logging, self_normalised=normalise)
        loops = reference.short_pseudo_inverse(
            feedback.action.tolist(),
            feedback.reward.tolist(),
            slot_marginals(target).tolist(),
            logging.probability.tolist(),
            normalise,
        )
        assert short.value == pytest.approx(loops, rel=1e-9, abs=1e-9)
    else:
        assert isinstance(logging, PlackettLucePolicy)
        made = [reference.plackett_luce(row, 1.0) for row in logging.score.tolist()]
    found = pseudo_inverse(feedback, target, logging, self_normalised=normalise)
    loops = reference.pseudo_inverse(
        feedback.action.tolist(), feedback.reward.tolist(), wanted, made, K, normalise
    )
    assert found.value == pytest.approx(loops, rel=1e-9, abs=1e-9)


def test_short_and_general_formula_are_one_for_factored_logs() -> None:
    feedback, logging = logged(200, 5, "factored")
    target = PlackettLucePolicy(np.random.default_rng(1).normal(size=(200, K)), L)
    short = factored_pseudo_inverse(feedback, target, logging)
    general = pseudo_inverse(feedback, target, logging)
    assert short[1:] == pytest.approx(general[1:], rel=1e-9)
    assert (short.name, general.name) == ("short pseudo-inverse", "pseudo-inverse")


def expectation(
    estimator: Callable[[SlateFeedback, SlatePolicy, SlatePolicy, np.ndarray], float],
    users: str,
    target: str,
    logging: str,
) -> tuple[float, float]:
    """Mean of an estimator over all slates of the log, and the truth; both exact.

    Estimators are linear in the rewards: a round whose rewards are scaled by n times its
    probability counts as often as it would come.
    """
    every, chance = enumerate_slates(policies(logging, 1, 7))
    n = len(every)
    often = n * chance[0]
    made, wanted = policies(logging, n, 7), policies(target, n, 8)
    reward = np.array([USERS[users](slate) for slate in every])
    feedback = SlateFeedback(every, reward * often[:, None], place_probabilities(made, every), K)
    slates, probability = enumerate_slates(policies(target, 1, 8))
    truth = sum(p * USERS[users](s).sum() for s, p in zip(slates, probability[0], strict=True))
    return estimator(feedback, wanted, made, often), float(truth)


def _standard(f: SlateFeedback, e: SlatePolicy, _b: SlatePolicy, _often: np.ndarray) -> float:
    return standard_slate_ips(f, place_probabilities(e, f.action)).value


def _interaction(f: SlateFeedback, e: SlatePolicy, _b: SlatePolicy, _often: np.ndarray) -> float:
    return reward_interaction_ips(f, place_probabilities(e, f.action)).value


def _independent(f: SlateFeedback, e: SlatePolicy, b: SlatePolicy, _often: np.ndarray) -> float:
    marginals = [slot_marginals(one, action=f.action) for one in (e, b)]
    return independent_ips(f, *marginals).value


def _pseudo(f: SlateFeedback, e: SlatePolicy, b: SlatePolicy, _often: np.ndarray) -> float:
    return pseudo_inverse(f, e, b).value


def _doubly(f: SlateFeedback, e: SlatePolicy, _b: SlatePolicy, often: np.ndarray) -> float:
    table = np.random.default_rng(0).normal(size=(L, K))  # any model at all
    chance = [e.next_probabilities(f.action[:, :k]) @ table[k] for k in range(L)]
    shown = np.stack([table[k, f.action[:, k]] for k in range(L)], axis=1)
    target = place_probabilities(e, f.action)
    values = [one * often[:, None] for one in (shown, np.stack(chance, axis=1))]
    return cascade_dr(f, target, *values).value


ESTIMATORS = {
    "standard": (_standard, {"independent", "cascade", "interacting", "additive"}),
    "reward interaction": (_interaction, {"independent", "cascade"}),
    "cascade DR": (_doubly, {"independent", "cascade"}),
    "independent": (_independent, {"independent"}),
    "pseudo-inverse": (_pseudo, {"independent", "additive"}),
}


@pytest.mark.parametrize("logging", ["factored", "softmax", "epsilon"])
@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_unbiased_where_the_assumption_holds_and_biased_where_not(
    name: str, users: str, logging: str
) -> None:
    estimator, holds = ESTIMATORS[name]
    mean, truth = expectation(estimator, users, "epsilon", logging)
    if users in holds:
        assert mean == pytest.approx(truth, rel=1e-9)
    elif not (name == "pseudo-inverse" and logging != "factored"):
        # Without replacement some interactions are sums of parts after all, or nearly.
        assert abs(mean - truth) > 1e-3


def test_the_short_formula_is_biased_without_replacement_and_refused() -> None:
    def short(f: SlateFeedback, e: SlatePolicy, b: SlatePolicy, _often: np.ndarray) -> float:
        ratios = [slot_marginals(one, action=f.action) for one in (e, b)]
        weight = (ratios[0] / ratios[1]).sum(axis=1) - L + 1
        return float((weight * f.reward.sum(axis=1)).mean())

    mean, truth = expectation(short, "independent", "epsilon", "factored")
    assert mean == pytest.approx(truth, rel=1e-9)
    mean, truth = expectation(short, "independent", "epsilon", "softmax")
    assert abs(mean - truth) > 0.005

    rng = np.random.default_rng(0)
    n = 400
    made, wanted = policies("softmax", n, 7), policies("epsilon", n, 8)
    action, propensity = sample_slates(made, rng)
    feedback = SlateFeedback(action, np.ones((n, L)), propensity, K)
    with pytest.raises(ValueError, match=r"logging must be a FactoredPolicy .* got PlackettLuceP"):
        factored_pseudo_inverse(feedback, wanted, made)
    posing = FactoredPolicy(slot_marginals(made))
    with pytest.raises(ValueError, match=r"propensity must be the probability .* in \d+ of 400"):
        factored_pseudo_inverse(feedback, wanted, posing)
    marginal = slot_marginals(made, action=action)
    with pytest.raises(ValueError, match=r"items repeat within a slate 0 times where .* expected"):
        factored_pseudo_inverse(replace(feedback, propensity=marginal), wanted, posing)


def test_factored_logs_are_seldom_refused() -> None:
    for seed in range(60):
        feedback, logging = logged(60, seed, "factored")
        target = PlackettLucePolicy(np.zeros((60, K)), L)
        factored_pseudo_inverse(feedback, target, logging)


def test_slots_with_items_of_their_own_are_factored() -> None:
    probability = np.zeros((30, 2, 4))
    probability[:, 0, :2] = probability[:, 1, 2:] = 0.5
    logging = FactoredPolicy(probability)
    action, propensity = sample_slates(logging, np.random.default_rng(0))
    feedback = SlateFeedback(action, np.ones((30, 2)), propensity, 4)
    assert factored_pseudo_inverse(feedback, logging, logging).value == pytest.approx(2.0)


def test_rounds_of_one_kind_share_an_inverse() -> None:
    kind = np.random.default_rng(0).integers(0, 4, 100)
    score = np.random.default_rng(1).normal(size=(4, K))
    logging = PlackettLucePolicy(score, L).take(kind)
    judged = EpsilonGreedyPolicy(score, L, epsilon=0.3).take(kind)
    action, propensity = sample_slates(logging, np.random.default_rng(2))
    feedback = SlateFeedback(action, np.ones((100, L)), propensity, K)
    weight = pseudo_inverse_weights(feedback, judged, logging)
    for row in range(0, 100, 7):
        one = np.array([row])
        alone = pseudo_inverse_weights(feedback.take(one), judged.take(one), logging.take(one))
        assert weight[row] == pytest.approx(alone[0], rel=1e-9)


def test_rows_with_one_key_are_told_apart() -> None:
    # cos(0) a + cos(1) b is 0 for both.
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    rows[1] = [-np.cos(1.0), 1.0]
    distinct, row_of = slate_pseudo_inverse._distinct_rows(rows)
    np.testing.assert_array_equal(distinct[row_of], rows)
    assert len(distinct) == 2


def test_pseudo_inverse_refusals() -> None:
    feedback, logging = logged(6, 0)
    with pytest.raises(ValueError, match=r"every slate must fill its 3 places; . of 6 do not"):
        pseudo_inverse(shortened(feedback, 0), logging, logging)
    with pytest.raises(ValueError, match=r"target must have the rounds, places and items of the"):
        pseudo_inverse(feedback, logging.take(np.arange(5)), logging)
    other = PlackettLucePolicy(np.zeros((6, K)), L)
    with pytest.raises(ValueError, match="given the items above; it is not in 6 of 6 rounds"):
        pseudo_inverse(feedback, logging, other)
    greedy = EpsilonGreedyPolicy(np.tile(np.arange(5.0), (6, 1)), L)
    action, propensity = sample_slates(greedy, np.random.default_rng(0))
    narrow = SlateFeedback(action, feedback.reward, propensity, K)
    with pytest.raises(ValueError, match=r"place by place, what the target shows; .* in round 0"):
        pseudo_inverse(narrow, logging, greedy)
    assert pseudo_inverse(narrow, greedy, greedy).value == pytest.approx(
        feedback.reward.sum(axis=1).mean()
    )


def test_the_logging_policy_itself_is_worth_the_mean_reward() -> None:
    feedback, logging = logged(60, 2)
    mean = pytest.approx(feedback.reward.sum(axis=1).mean(), rel=1e-9)
    chance = place_probabilities(logging, feedback.action)
    marginal = slot_marginals(logging, action=feedback.action)
    model = cross_fitted_slot_values(feedback, logging, rng=np.random.default_rng(0))
    np.testing.assert_allclose(prefix_weights(feedback, chance), 1.0)
    for normalise in (False, True):
        for one in (standard_slate_ips, reward_interaction_ips):
            assert one(feedback, chance, self_normalised=normalise).value == mean
        one_by_one = independent_ips(feedback, marginal, marginal, self_normalised=normalise)
        assert one_by_one.value == mean
        assert pseudo_inverse(feedback, logging, logging, self_normalised=normalise).value == mean
    assert cascade_dr(feedback, chance, *model).value != mean
    assert cascade_dr(feedback, chance, model.shown, model.shown).value == mean


def test_units_and_level_reach_the_interval() -> None:
    feedback, _logging = logged(60, 2)
    chance = place_probabilities(PlackettLucePolicy(np.zeros((60, K)), L), feedback.action)
    alone = standard_slate_ips(replace(feedback, unit=None), chance)
    twice = SlateFeedback(
        *(np.repeat(one, 2, axis=0) for one in (feedback.action, feedback.reward)),
        np.repeat(feedback.propensity, 2, axis=0),
        K,
        unit=np.repeat(np.arange(60), 2),
    )
    doubled = standard_slate_ips(twice, np.repeat(chance, 2, axis=0))
    assert doubled.standard_error == pytest.approx(alone.standard_error)
    narrow = reward_interaction_ips(feedback, chance, level=0.5)
    wide = reward_interaction_ips(feedback, chance, level=0.99)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_what_estimators_refuse() -> None:
    feedback, _ = logged(6, 0)
    with pytest.raises(ValueError, match=r"target must be \[n, L\] = \(6, 3\), got \(6, 2\)"):
        prefix_weights(feedback, np.ones((6, 2)))
    for bad in (1.5, -0.1, np.nan):
        chance = np.full((6, L), 0.5)
        chance[4, 1] = bad
        with pytest.raises(
            ValueError, match=r"target must be 0..1; .* 1 of 6 rounds, first: ro.*4"
        ):
            prefix_weights(feedback, chance)
    chance, zero = np.full((6, L), 0.5), np.zeros((6, L))
    with pytest.raises(ValueError, match=r"logging_marginal must be above 0 .* 6 of 6 rounds"):
        independent_ips(feedback, chance, zero)
    with pytest.raises(ValueError, match="weights of place 1 must not all be 0"):
        reward_interaction_ips(feedback, zero, self_normalised=True)
    with pytest.raises(ValueError, match="must not add up to 0"):
        standard_slate_ips(feedback, zero, self_normalised=True)
    with pytest.raises(ValueError, match=r"expected_value must be \[n, L\]"):
        cascade_dr(feedback, chance, zero, np.zeros((6, 2)))
    with pytest.raises(ValueError, match="shown_value must be finite"):
        cascade_dr(feedback, chance, zero * np.nan, zero)


def test_slot_values_of_one_place_by_hand() -> None:
    feedback = SlateFeedback(
        np.array([[0], [0], [1], [0]]),
        np.array([[1.0], [3.0], [5.0], [7.0]]),
        np.full((4, 1), 0.5),
        2,
        unit=np.array([0, 0, 0, 1]),
    )
    target = FactoredPolicy(np.broadcast_to([0.25, 0.75], (4, 1, 2)))
    model = cross_fitted_slot_values(
        feedback, target, rng=np.random.default_rng(0), folds=2, shrinkage=2.0
    )
    # Of the first unit: fitted on the last round, mean 7: both items 7 but for shrinkage to 7.
    np.testing.assert_allclose(model.shown[:3, 0], 7.0)
    # Of the last: mean 3; item 0 (4 + 2 * 3) / 4, item 1 (5 + 2 * 3) / 3.
    np.testing.assert_allclose(model.shown[3, 0], 2.5)
    np.testing.assert_allclose(model.expected[3, 0], 0.25 * 2.5 + 0.75 * 11 / 3)


def test_slot_values_look_down_the_slate() -> None:
    n = 4_000
    logging, target = policies("softmax", n, 7), policies("epsilon", n, 8)
    action, propensity = sample_slates(logging, np.random.default_rng(1))
    reward = np.array([independent(slate) for slate in action])
    feedback = SlateFeedback(action, reward, propensity, K)
    model = cross_fitted_slot_values(
        feedback, target, rng=np.random.default_rng(0), folds=2, shrinkage=1e-6
    )
    # The last place sees its own reward alone, and without noise exactly that.
    np.testing.assert_allclose(model.shown[:, 2], reward[:, 2], rtol=1e-6)
    chance = place_probabilities(target, action)
    plain = reward_interaction_ips(feedback, chance)
    doubly = cascade_dr(feedback, chance, *model)
    assert doubly.standard_error < 0.35 * plain.standard_error
    slates, probability = enumerate_slates(target.take(np.array([0])))
    truth = sum(p * independent(s).sum() for s, p in zip(slates, probability[0], strict=True))
    assert abs(doubly.value - truth) < 4 * doubly.standard_error


def test_cells_have_tables_of_their_own() -> None:
    n = 3_000
    rng = np.random.default_rng(0)
    logging = policies("softmax", n, 7)
    action, propensity = sample_slates(logging, rng)
    cell = rng.integers(0, 2, n) * 5
    reward = np.where(cell[:, None] == 5, 2.0, 1.0) * BASE[action]
    feedback = SlateFeedback(action, reward, propensity, K)

    def error(kinds: np.ndarray | None) -> float:
        model: SlotValues = cross_fitted_slot_values(
            feedback, logging, rng=np.random.default_rng(0), cell=kinds
        )
        return float(np.abs(model.shown[:, 2] - reward[:, 2]).mean())

    assert error(cell) < 0.2 * error(None)


def test_what_slot_values_refuse() -> None:
    feedback, logging = logged(6, 0)
    feedback = replace(feedback, unit=np.array([0, 0, 0, 1, 1, 2]))
    rng = np.random.default_rng(0)
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"2 to the number of units, 3, got {folds}"):
            cross_fitted_slot_values(feedback, logging, rng=rng, folds=folds)
    with pytest.raises(ValueError, match="shrinkage must be > 0, got 0"):
        cross_fitted_slot_values(feedback, logging, rng=rng, folds=2, shrinkage=0)
    with pytest.raises(ValueError, match=r"cell must be \[n\] int64 >= 0 with n = 6"):
        cross_fitted_slot_values(feedback, logging, rng=rng, folds=2, cell=np.zeros(6))
    with pytest.raises(ValueError, match="target must have the rounds, places and items"):
        cross_fitted_slot_values(feedback, logging.take(np.arange(3)), rng=rng, folds=2)
