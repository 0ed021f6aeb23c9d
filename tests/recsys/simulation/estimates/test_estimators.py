from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recsys.simulation import (
    Contributions,
    bootstrap_estimates,
    clipped_ips,
    dm,
    dr,
    dr_os,
    estimated_marginal_weights,
    from_contributions,
    importance_weights,
    ips,
    marginal_weights,
    mips,
    prefix_cells,
    ratio_estimate,
    replay,
    sg_dr,
    sg_ips,
    sndr,
    snips,
    snmips,
    switch_dr,
)
from tests.reference import off_policy as reference

N, K = 400, 12
RNG = np.random.default_rng(3)
LOGGING = RNG.dirichlet(np.ones(K), size=N)
TARGET = RNG.dirichlet(np.full(K, 0.4), size=N)
ACTION = np.array([RNG.choice(K, p=row) for row in LOGGING])
ROWS = np.arange(N)
WEIGHT = importance_weights(TARGET[ROWS, ACTION], LOGGING[ROWS, ACTION])
REWARD = RNG.normal(1.0, 1.0, N)
MODEL = RNG.normal(1.0, 0.5, (N, K))
PREDICTED = MODEL[ROWS, ACTION]
EXPECTED = (TARGET * MODEL).sum(axis=1)
UNIT = RNG.integers(60, size=N)
ALL = (WEIGHT, REWARD, PREDICTED, EXPECTED)


def same(w: float) -> float:
    return w


CASES: dict[str, tuple[Contributions, Callable[[], float]]] = {
    "replay": (
        replay(TARGET.argmax(axis=1) == ACTION, REWARD),
        lambda: reference.replay((TARGET.argmax(axis=1) == ACTION).tolist(), REWARD.tolist()),
    ),
    "dm": (dm(EXPECTED), lambda: reference.mean(EXPECTED.tolist())),
    "ips": (ips(WEIGHT, REWARD), lambda: reference.weighted(WEIGHT, REWARD, same)),
    "clipped_ips": (
        clipped_ips(WEIGHT, REWARD, limit=3.0),
        lambda: reference.weighted(WEIGHT, REWARD, lambda w: min(w, 3.0)),
    ),
    "snips": (snips(WEIGHT, REWARD), lambda: reference.snips(WEIGHT, REWARD)),
    "dr": (dr(*ALL), lambda: reference.dr(*ALL, same)),
    "sndr": (sndr(*ALL), lambda: reference.sndr(*ALL)),
    "switch_dr": (
        switch_dr(*ALL, limit=3.0),
        lambda: reference.dr(*ALL, lambda w: w if w <= 3.0 else 0.0),
    ),
    "dr_os": (
        dr_os(*ALL, shrinkage=5.0),
        lambda: reference.dr(*ALL, lambda w: 5.0 * w / (w * w + 5.0)),
    ),
    "sg_ips": (
        sg_ips(WEIGHT, REWARD, strength=0.2),
        lambda: reference.weighted(WEIGHT, REWARD, lambda w: w / (0.8 + 0.2 * w)),
    ),
    "sg_dr": (
        sg_dr(*ALL, strength=0.2),
        lambda: reference.dr(*ALL, lambda w: w / (0.8 + 0.2 * w)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_an_estimator_equals_its_loops(name: str) -> None:
    found, expected = CASES[name]
    assert found.name == name
    assert found.value == pytest.approx(expected(), abs=1e-9)
    assert found.estimate(unit=UNIT).value == pytest.approx(found.value)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_of_cells_equal_their_loops(depth: int) -> None:
    codes = np.random.default_rng(0).integers(3, size=(K, 3))
    cell = prefix_cells(codes, depth)
    assert len(np.unique(cell)) == len(np.unique(codes[:, :depth], axis=0))
    expected = [
        reference.marginal_weight(int(ACTION[t]), LOGGING[t], TARGET[t], cell.tolist())
        for t in range(N)
    ]
    weight = marginal_weights(ACTION, LOGGING, TARGET, cell)
    np.testing.assert_allclose(weight, expected, atol=1e-9)
    assert mips(weight, REWARD).value == pytest.approx(
        reference.weighted(expected, REWARD, same), abs=1e-9
    )
    assert snmips(weight, REWARD).value == pytest.approx(
        reference.snips(expected, REWARD), abs=1e-9
    )


def test_cells_of_one_action_make_mips_ips() -> None:
    weight = marginal_weights(ACTION, LOGGING, TARGET, np.arange(K))
    np.testing.assert_allclose(weight, WEIGHT, rtol=1e-12)


def test_policies_without_a_context_are_one_row() -> None:
    cell = np.arange(K) % 4
    tiled = marginal_weights(ACTION, np.tile(LOGGING[0], (N, 1)), np.tile(TARGET[0], (N, 1)), cell)
    np.testing.assert_allclose(
        marginal_weights(ACTION, LOGGING[0], TARGET[0], cell), tiled, rtol=1e-12
    )


def test_estimated_weights_of_cells_are_their_means() -> None:
    cell, stratum = ACTION % 3, ROWS % 2
    found = estimated_marginal_weights(WEIGHT, cell, stratum=stratum)
    for row in range(20):
        alike = (cell == cell[row]) & (stratum == stratum[row])
        assert found[row] == pytest.approx(WEIGHT[alike].mean())


def test_limits_of_the_shrinking_estimators() -> None:
    whole, model = dr(*ALL).value, dm(EXPECTED).value
    assert switch_dr(*ALL, limit=np.inf).value == pytest.approx(whole)
    assert dr_os(*ALL, shrinkage=np.inf).value == pytest.approx(whole)
    assert sg_dr(*ALL, strength=0.0).value == pytest.approx(whole)
    assert switch_dr(*ALL, limit=0.0).value == pytest.approx(model)
    assert dr_os(*ALL, shrinkage=0.0).value == pytest.approx(model)
    assert clipped_ips(WEIGHT, REWARD, limit=np.inf).value == ips(WEIGHT, REWARD).value


def test_snips_moves_with_a_constant_and_ips_does_not() -> None:
    moved = snips(WEIGHT, REWARD + 5.0).value - snips(WEIGHT, REWARD).value
    assert moved == pytest.approx(5.0)
    assert ips(WEIGHT, REWARD + 5.0).value - ips(WEIGHT, REWARD).value == pytest.approx(
        5.0 * WEIGHT.mean()
    )


def test_errors_count_units() -> None:
    contribution = WEIGHT * REWARD
    found = from_contributions("ips", contribution, unit=UNIT)
    assert found.standard_error == pytest.approx(
        reference.clustered_error(contribution.tolist(), UNIT.tolist()), abs=1e-12
    )
    copied = from_contributions("ips", np.repeat(contribution, 4), unit=np.repeat(ROWS, 4))
    alone = from_contributions("ips", contribution)
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert copied.num_rounds == 4 * N


def test_one_unit_has_no_error() -> None:
    found = from_contributions("ips", REWARD, unit=np.zeros(N, dtype=np.int64))
    assert np.isnan(found.standard_error)
    assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("name", ["ips", "snips", "sndr"])
@pytest.mark.parametrize("clustered", [False, True])
def test_bootstrap_and_delta_method_agree(name: str, clustered: bool) -> None:
    one, unit = CASES[name][0], UNIT if clustered else None
    drawn = bootstrap_estimates([one], rng=np.random.default_rng(1), unit=unit, resamples=2000)[0]
    exact = one.estimate(unit=unit)
    assert drawn.value == pytest.approx(exact.value)
    assert drawn.standard_error == pytest.approx(exact.standard_error, rel=0.15)
    assert drawn.low < drawn.value < drawn.high


def test_a_ratio_is_the_mean_of_its_own_kind() -> None:
    found = ratio_estimate("mean", REWARD, np.ones(N), unit=UNIT)
    mean = from_contributions("mean", REWARD, unit=UNIT)
    assert found[1:] == pytest.approx(mean[1:])


def test_the_error_of_a_sum_counts_both_parts() -> None:
    plain = Contributions("x", REWARD, np.zeros(N), np.ones(N)).estimate(unit=UNIT)
    assert plain == from_contributions("x", REWARD, unit=UNIT)
    # Parts that move against each other leave nothing.
    none = Contributions("x", REWARD, -REWARD, np.ones(N)).estimate()
    assert none.standard_error == pytest.approx(0.0, abs=1e-12)


def test_intervals_of_snips_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    logging, target = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    truth = np.array([0.1, 0.3, 0.6])
    held = 0
    for _ in range(600):
        action = rng.choice(3, p=logging, size=500)
        reward = (rng.random(500) < truth[action]).astype(np.float64)
        one = snips((target / logging)[action], reward).estimate()
        held += one.low <= target @ truth <= one.high
    assert 0.92 <= held / 600 <= 0.98


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: importance_weights(np.ones(2), np.array([0.5, 0.0])), r"first row 1 with 0\.0"),
        (lambda: importance_weights(np.array([-0.1]), np.ones(1)), "chosen must be 0..1: 1 rows"),
        (lambda: ips(np.ones(3), np.ones(2)), r"weight \(3,\), reward \(2,\)"),
        (lambda: clipped_ips(np.ones(1), np.ones(1), limit=0.0), "limit must be > 0, got 0"),
        (lambda: sg_ips(np.ones(1), np.ones(1), strength=2.0), "strength must be 0..1, got 2"),
        (lambda: dr_os(*ALL, shrinkage=-1.0), "shrinkage must be >= 0"),
        (lambda: switch_dr(*ALL, limit=-1.0), "limit must be >= 0"),
        (lambda: snips(np.zeros(3), np.ones(3)).estimate(), "must not add up to 0"),
        (lambda: from_contributions("x", np.array([np.nan])), "must be finite: 1 of 1"),
        (lambda: from_contributions("x", np.ones(2), unit=np.ones(3)), "unit must be"),
        (lambda: from_contributions("x", np.ones(2), level=1.0), "level must be above 0"),
        (lambda: prefix_cells(np.zeros((3, 2), np.int64), 3), "depth must be 1..L"),
        (
            lambda: marginal_weights(np.array([0]), np.array([0.0, 1.0]), np.ones(2) / 2, ROWS[:2]),
            "a chance: 1 rows have none",
        ),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
