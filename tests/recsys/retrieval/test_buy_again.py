"""What a user is likely to want again, against plain loops; histories that fade by days."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from features.tables import Histories
from recsys.errors import ArtifactError
from recsys.retrieval.aging import AgedRetriever, asked_by_days, decayed, learned_part
from recsys.retrieval.buy_again import BuyAgainRetriever
from recsys.retrieval.choices import load_sources
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popularity import DAY_US

N = 9
Log = list[list[tuple[int, int, float]]]
"""Rows of (item, day, weight), oldest first."""


def drawn(seed: int, rows: int) -> Log:
    rng = np.random.default_rng(seed)
    log: Log = []
    for _ in range(rows):
        size = int(rng.integers(0, 12))
        days = np.sort(rng.integers(1, 90, size)).tolist()
        weights = rng.choice([0.5, 1.0, 2.0], size).tolist()
        log.append(list(zip(rng.integers(1, N, size).tolist(), days, weights, strict=True)))
    return log


def histories_of(log: Log) -> Histories:
    events = [event for row in log for event in row]
    return Histories(
        np.cumsum([0, *(len(row) for row in log)]).astype(np.int64),
        np.array([item for item, _, _ in events], dtype=np.int64),
        np.array([day for _, day, _ in events], dtype=np.int64) * DAY_US,
        np.array([weight for _, _, weight in events], dtype=np.float32),
    )


def bin_of(age: float) -> int:
    edges = [0.0, *(2.0 ** (-5 + 0.5 * step) for step in range(21))]
    return max(place for place, edge in enumerate(edges) if edge <= age)


def repurchases(log: Log) -> tuple[list[float], list[float]]:
    """Intervals of the items and hazard of the bins."""
    newest = max(day for row in log for _, day, _ in row)
    came: list[tuple[int, float]] = []
    stayed: list[tuple[int, float]] = []
    for row in log:
        for item in {item for item, _, _ in row}:
            days = [day for other, day, _ in row if other == item]
            came += [(item, b - a) for a, b in itertools.pairwise(days) if b > a]
            if newest > days[-1]:
                stayed.append((item, newest - days[-1]))
    common = math.fsum(math.log(gap) for _, gap in came) / len(came)
    interval = []
    for item in range(N + 1):
        logs = [math.log(gap) for other, gap in came if other == item]
        interval.append(math.exp((math.fsum(logs) + 10 * common) / (len(logs) + 10)))
    edges = [0.0, *(2.0 ** (-5 + 0.5 * step) for step in range(21)), math.inf]
    hazard = []
    for low, high in itertools.pairwise(edges):
        events = sum(low <= gap / interval[item] < high for item, gap in came)
        spent = [gap / interval[item] for item, gap in [*came, *stayed]]
        exposure = math.fsum(max(0.0, min(one, high) - low) for one in spent)
        hazard.append((events + 1) / (exposure + 1))
    return interval, [one / max(hazard) for one in hazard]


@pytest.mark.parametrize(("prior", "due"), [(3.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_the_score_is_the_formula(prior: float, due: float) -> None:
    log, asking = drawn(0, 25), drawn(1, 8)
    fitted = BuyAgainRetriever.fit(histories_of(log), N, prior=prior, due=due, recent_days=20.0)
    interval, hazard = repurchases(log)
    np.testing.assert_allclose(fitted.interval_days, interval, rtol=1e-5)
    np.testing.assert_allclose(fitted.hazard, hazard, rtol=1e-5)
    today = 95
    wanted = np.zeros((len(asking), N + 1))
    for row, history in enumerate(asking):
        for item in {item for item, _, _ in history}:
            own = [(day, weight) for other, day, weight in history if other == item]
            age = (today - max(day for day, _ in own)) / interval[item]
            popular = _popular(log, today)
            rate = sum(weight for _, weight in own) + prior * popular[item] / max(popular)
            wanted[row, item] = rate * hazard[bin_of(age)] ** due
    moment = np.full(len(asking), today * DAY_US)
    found = fitted.score_all(histories_of(asking), moment)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def _popular(log: Log, today: int) -> list[float]:
    events = [event for row in log for event in row]
    total = math.fsum(weight for _, _, weight in events)
    of_item = [[one for one in events if one[0] == item] for item in range(N + 1)]
    return [
        math.fsum(weight for _, day, weight in own if day >= today - 20)
        + math.fsum(weight for _, _, weight in own) / (total + 1)
        for own in of_item
    ]


def test_only_what_was_met_is_found() -> None:
    fitted = BuyAgainRetriever.fit(histories_of(drawn(0, 25)), N)
    asking = histories_of([[(4, 3, 1.0), (2, 5, 1.0), (4, 9, 1.0)], []])
    top = fitted.retrieve(asking, 5)
    assert sorted(top.item_index[0].tolist()) == [-1, -1, -1, 2, 4]
    assert top.item_index[0, 0] == 4
    assert (top.item_index[1] == -1).all()
    assert np.isneginf(top.score[top.item_index == -1]).all()
    hidden = np.zeros((2, N + 1), dtype=bool)
    hidden[0, 4] = True
    assert fitted.retrieve(asking, 5, excluded=hidden).item_index[0].tolist() == [2, -1, -1, -1, -1]


def test_a_log_without_repeats_has_no_hazard_to_learn_and_answers_all_the_same() -> None:
    log: Log = [[(item, item, 1.0)] for item in range(1, 5)]
    fitted = BuyAgainRetriever.fit(histories_of(log), N, due=1.0)
    assert np.isfinite(fitted.interval_days).all()
    assert (fitted.hazard > 0).all()
    empty = BuyAgainRetriever.fit(histories_of([[]]), N)
    assert empty.retrieve(histories_of([[(1, 1, 1.0)]]), 1).item_index.tolist() == [[1]]


@pytest.mark.parametrize("name", ["prior", "due"])
def test_settings_below_zero_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got -1"):
        BuyAgainRetriever.fit(histories_of([[]]), N, **{name: -1.0})  # type: ignore[arg-type]


def test_older_events_weigh_half_every_half_life() -> None:
    made = histories_of([[(1, 10, 2.0), (2, 20, 1.0)], [(3, 30, 1.0)]])
    aged = decayed(made, np.array([20, 25]) * DAY_US, 10.0)
    np.testing.assert_allclose(aged.weight, [1.0, 1.0, 1.0])  # what is later weighs as if now
    with pytest.raises(ValueError, match="half_life_days must be > 0"):
        decayed(made, np.zeros(2, dtype=np.int64), 0.0)


def test_the_newest_days_are_learned_from() -> None:
    made = histories_of([[(1, 10, 1.0), (2, 20, 1.0)], [(3, 30, 1.0)]])
    assert learned_part(made, days=None, half_life_days=None) is made
    part = learned_part(made, days=10.0, half_life_days=None)
    assert (part.indptr.tolist(), part.item_index.tolist()) == ([0, 1, 2], [2, 3])
    aged = learned_part(made, days=None, half_life_days=10.0)
    np.testing.assert_allclose(aged.weight, [0.25, 0.5, 1.0])
    with pytest.raises(ValueError, match="days must be > 0"):
        learned_part(made, days=0.0, half_life_days=None)
    nothing = histories_of([[]])
    assert learned_part(nothing, days=1.0, half_life_days=1.0) is nothing


def test_asked_by_days_is_the_retriever_asked_with_faded_histories(tmp_path: Path) -> None:
    inner = ItemItemRetriever.fit(histories_of(drawn(0, 25)), N, half_life=2.0)
    aged = asked_by_days(inner, 30.0)
    assert inner.half_life == 2.0
    asking, moment = histories_of(drawn(1, 8)), np.full(8, 95 * DAY_US)
    plain = ItemItemRetriever.fit(histories_of(drawn(0, 25)), N, half_life=None)
    wanted = plain.score_all(decayed(asking, moment, 30.0))
    items = np.tile(np.arange(1, N + 1), (8, 1))
    np.testing.assert_allclose(aged.score(asking, items, moment=moment), wanted[:, 1:], rtol=1e-5)
    aged.save(tmp_path / "item_item")
    (again,) = load_sources(tmp_path, ["item_item"])
    assert isinstance(again, AgedRetriever)
    assert (again.name, again.half_life_days) == ("item_item", 30.0)
    found = again.retrieve(asking, 4, moment=moment)
    assert (found.item_index == aged.retrieve(asking, 4, moment=moment).item_index).all()
    (tmp_path / "item_item" / "age.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"age\.json is damaged"):
        load_sources(tmp_path, ["item_item"])
