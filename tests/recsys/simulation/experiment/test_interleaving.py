from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest

from recsys.simulation.experiment import (
    Interleaved,
    balanced,
    credit_balanced,
    credit_team_draft,
    preference,
    queries_needed,
    sensitivity,
    team_draft,
)


class Coins:
    """Hands out given uniform numbers, and remembers them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.given: np.ndarray = np.empty(0)

    def random(self, size: object) -> np.ndarray:
        self.given = self.rng.random(size)  # type: ignore[call-overload]
        return self.given


def lists(rng: np.random.Generator, num: int, size: int, items: int) -> np.ndarray:
    """[num, size] distinct ids in a row, some rows shorter and padded with -1."""
    found = np.argsort(rng.random((num, items)), axis=1)[:, :size]
    found[np.arange(size) >= rng.integers(1, size + 1, size=num)[:, None]] = -1
    return found


@pytest.mark.parametrize(("size", "items", "k"), [(6, 9, 4), (5, 5, 5), (4, 12, 10)])
def test_team_draft_equals_the_loop(
    size: int, items: int, k: int, reference: ModuleType, rng: np.random.Generator
) -> None:
    a, b = lists(rng, 200, size, items), lists(rng, 200, size, items)
    coins = Coins(rng)
    found = team_draft(a, b, k=k, rng=coins)  # type: ignore[arg-type]
    for row in range(200):
        heads = (coins.given[row] < 0.5).tolist()
        want, team = reference.team_draft(a[row].tolist(), b[row].tolist(), k, heads)
        assert found.items[row].tolist() == want + [-1] * (k - len(want))
        assert found.team[row].tolist() == team + [-1] * (k - len(want))
        assert found.a_first[row] == heads[0]


@pytest.mark.parametrize(("size", "items", "k"), [(6, 9, 4), (5, 5, 5), (4, 12, 10)])
def test_balanced_equals_the_loop(
    size: int, items: int, k: int, reference: ModuleType, rng: np.random.Generator
) -> None:
    a, b = lists(rng, 200, size, items), lists(rng, 200, size, items)
    found = balanced(a, b, k=k, rng=rng)
    clicked = (rng.random(found.items.shape) < 0.4) & (found.items >= 0)
    credit = credit_balanced(found, clicked, a, b)
    for row in range(200):
        one, two = ([int(i) for i in ids[row] if i >= 0] for ids in (a, b))
        want = reference.balanced(one, two, k, bool(found.a_first[row]))
        assert found.items[row].tolist() == want + [-1] * (k - len(want))
        hits = clicked[row, : len(want)].tolist()
        assert credit[row] == reference.credit_balanced(want, hits, one, two)


def test_nothing_is_shown_twice_and_teams_are_even(rng: np.random.Generator) -> None:
    a, b = (np.argsort(rng.random((500, 12)), axis=1) for _ in range(2))
    found = team_draft(a, b, k=8, rng=rng)
    assert all(np.unique(row).size == 8 for row in found.items)
    assert ((found.team == 0).sum(axis=1) == 4).all()
    assert abs(found.a_first.mean() - 0.5) <= 4 * 0.5 / 500**0.5


def test_credit_by_hand() -> None:
    shown = Interleaved(np.array([[7, 3, 5]]), np.array([[0, 1, 1]]), np.array([True]))
    assert credit_team_draft(shown, np.array([[True, True, True]])).tolist() == [1]
    assert credit_team_draft(shown, np.array([[True, False, False]])).tolist() == [-1]
    assert credit_team_draft(shown, np.array([[False, False, False]])).tolist() == [0]


def test_one_list_twice_gives_no_balanced_preference(rng: np.random.Generator) -> None:
    a = np.argsort(rng.random((50, 6)), axis=1)
    merged = balanced(a, a, k=5, rng=rng)
    np.testing.assert_array_equal(merged.items, a[:, :5])
    clicked = rng.random(merged.items.shape) < 0.5
    assert not credit_balanced(merged, clicked, a, a).any()


@pytest.mark.parametrize("method", ["team draft", "balanced"])
def test_the_better_ranker_wins_and_equal_ones_do_not(
    method: str, rng: np.random.Generator
) -> None:
    worth = rng.random((4000, 15))

    def judged(noise: float) -> float:
        a = np.argsort(-(worth + 0.5 * rng.normal(size=worth.shape)), axis=1)
        b = np.argsort(-(worth + noise * rng.normal(size=worth.shape)), axis=1)
        merge = team_draft if method == "team draft" else balanced
        merged = merge(a, b, k=6, rng=rng)
        clicked = rng.random((4000, 6)) < 0.4 * np.take_along_axis(worth, merged.items, axis=1)
        if method == "team draft":
            found = preference(credit_team_draft(merged, clicked))
        else:
            found = preference(credit_balanced(merged, clicked, a, b))
        return found.value / found.standard_error

    assert judged(0.1) > 4
    assert abs(judged(0.5)) < 4


def test_preference_by_hand() -> None:
    found = preference(np.array([3, 1, -2, 0]))
    assert found.value == 0.25
    assert found.standard_error == pytest.approx(np.std([1, 1, -1, 0], ddof=1) / 2)
    assert (found.queries, found.ties) == (4, 1)
    assert preference(np.array([0, 0])).p == 1.0
    assert preference(np.array([1, 1])).p == 0.0
    wide = preference(np.array([3, 1, -2, 0]), level=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_queries_needed_reach_the_power(rng: np.random.Generator) -> None:
    chances = [0.2, 0.5, 0.3]
    pilot = preference(rng.choice([-1, 0, 1], size=200_000, p=chances))
    need = round(queries_needed(pilot))
    trials = 2000
    draws = rng.multinomial(need, chances, size=trials)
    mean = (draws[:, 2] - draws[:, 0]) / need
    error = np.sqrt(((draws[:, 0] + draws[:, 2]) / need - mean**2) / need)
    power = float((np.abs(mean) > 1.96 * error).mean())
    assert abs(power - 0.8) <= 4 * (0.16 / trials) ** 0.5 + 0.02
    assert queries_needed(pilot, power=0.9) > queries_needed(pilot) > 100
    assert queries_needed(pilot, alpha=0.2) < queries_needed(pilot)
    assert math.isinf(queries_needed(preference(np.array([1, -1]))))


def test_sensitivity_by_hand() -> None:
    found = preference(np.array([1, -1, 1, 1] * 1000))
    # .5^2 / .75 of one query beside .1^2 / (4 .25).
    assert sensitivity(found, 0.1, 0.25) == pytest.approx(0.25 / 0.75 / 0.01, rel=1e-3)


def test_interleaving_refuses(rng: np.random.Generator) -> None:
    a = np.arange(4)[None]
    with pytest.raises(ValueError, match=r"a and b must be \[Q, C\] of the same queries"):
        team_draft(a, a[:, :2], k=2, rng=rng)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        balanced(a, a, k=0, rng=rng)
    with pytest.raises(ValueError, match=r"clicked must be \[Q, k\] = \(1, 2\)"):
        credit_team_draft(team_draft(a, a, k=2, rng=rng), np.ones((1, 3)))
    with pytest.raises(ValueError, match="Q >= 2 queries"):
        preference(np.ones(1))
    with pytest.raises(ValueError, match="level must be above 0"):
        preference(np.ones(3), level=1.0)
    with pytest.raises(ValueError, match="sensitivity needs variances > 0"):
        sensitivity(preference(np.array([1, -1])), 0.0, 1.0)
