"""Loss by age: paired, each window alike, users drawn whole."""

from __future__ import annotations

import numpy as np
import pytest

from features.moments import duration_us
from recsys.backtest.ageing import Loss, advice, losses, spread
from recsys.backtest.origins import Measured
from recsys.evaluation import Difference, paired_difference

WEEK = duration_us("7d") or 0


def measured(users: str, **values: list[float]) -> Measured:
    columns = {name: np.array(one, dtype=np.float64)[:, None] for name, one in values.items()}
    return Measured(np.array(list(users), dtype=object), columns)


def three() -> dict[tuple[int, int], Measured]:
    """Three origins; users come in another order in each, and not all of them."""
    return {
        (0, 0): measured("ab", funnel=[1.0, 0.0]),
        (0, 1): measured("abc", funnel=[0.2, 0.4, 0.6]),
        (0, 2): measured("b", funnel=[0.1]),
        (1, 1): measured("cab", funnel=[0.9, 0.3, 0.6], other=[0.0, 0.0, 0.0]),
        (1, 2): measured("b", funnel=[0.5], other=[0.0]),
        (2, 2): measured("b", funnel=[0.7], other=[0.0]),
    }


def of(system: str, resamples: int = 2000) -> list[Loss]:
    return losses(three(), system, 0, rng=np.random.default_rng(0), resamples=resamples)


def test_means_are_those_of_plain_loops() -> None:
    first, second = of("funnel")
    assert (first.age, first.windows, first.difference.users) == (1, 2, 3)
    assert first.aged == pytest.approx((np.mean([0.2, 0.4, 0.6]) + 0.5) / 2)
    assert first.fresh == pytest.approx((np.mean([0.9, 0.3, 0.6]) + 0.7) / 2)
    gaps = [np.mean([0.2 - 0.3, 0.4 - 0.6, 0.6 - 0.9]), 0.5 - 0.7]
    assert first.difference.mean == pytest.approx(np.mean(gaps))
    assert first.share == pytest.approx(first.aged / first.fresh)
    assert (second.age, second.windows, second.difference.users) == (2, 1, 1)
    assert second.difference.mean == pytest.approx(0.1 - 0.7)


def test_of_one_window_it_is_the_paired_difference() -> None:
    rng = np.random.default_rng(3)
    aged, fresh = rng.random(40), rng.random(40)
    users = np.array([f"u{n:02}" for n in range(40)], dtype=object)
    order = rng.permutation(40)
    found = losses(
        {
            (0, 0): Measured(users, {"funnel": fresh[:, None]}),
            (0, 1): Measured(users, {"funnel": aged[:, None]}),
            (1, 1): Measured(users[order], {"funnel": fresh[order, None]}),
        },
        "funnel",
        0,
        rng=np.random.default_rng(5),
        resamples=300,
    )
    wanted = paired_difference(aged, fresh, rng=np.random.default_rng(5), resamples=300)
    assert found[0].difference == pytest.approx(wanted)


def test_a_user_of_several_windows_is_drawn_with_all_of_them() -> None:
    rng = np.random.default_rng(1)
    gap = rng.normal(-0.05, 0.3, 50)
    users, zeros = np.array([f"u{n}" for n in range(50)], dtype=object), np.zeros((50, 1))

    def width(windows: int) -> float:
        pairs = {(n, n): Measured(users, {"funnel": zeros}) for n in range(windows + 1)}
        pairs |= {(n, n + 1): Measured(users, {"funnel": gap[:, None]}) for n in range(windows)}
        one = losses(pairs, "funnel", 0, rng=np.random.default_rng(2), resamples=500)[0].difference
        return one.high - one.low

    assert width(4) == pytest.approx(width(1))  # the same users again say nothing new


def test_a_system_that_a_model_lacks_is_compared_where_both_have_it() -> None:
    assert [(one.age, one.windows, one.share) for one in of("other", 50)] == [(1, 1, None)]
    assert of("nothing", 50) == []


def test_the_spread_of_origins() -> None:
    found = spread([0.2, 0.4, 0.9])
    assert found == pytest.approx((0.5, np.std([0.2, 0.4, 0.9], ddof=1), 0.2, 0.9, 3))
    assert spread([0.3]).deviation is None


def loss(age: int, mean: float, low: float, high: float, fresh: float = 0.5) -> Loss:
    return Loss(age, 2, fresh + mean, fresh, Difference(mean, low, high, 0.01, 1200))


def test_the_advice_is_the_last_age_before_a_loss_shows() -> None:
    found = [loss(1, -0.01, -0.02, 0.001), loss(2, -0.05, -0.08, -0.02), loss(3, -0.02, -0.05, 0.1)]
    assert advice(found, WEEK, "ndcg@20") == (
        "A model of 14d finds less than a fresh one (ndcg@20 -0.0500 [-0.0800, -0.0200] against a "
        "fresh one, 90.0% of it, 1,200 users): train every 7d, the last age at which no loss shows."
    )
    assert advice(found[1:], WEEK, "ndcg@20") == advice(found, WEEK, "ndcg@20")


def test_a_loss_at_the_first_age_asks_for_smaller_steps() -> None:
    text = advice([loss(1, -0.05, -0.08, -0.02)], WEEK, "recall@5")
    assert "A model of 7d finds less" in text
    assert text.endswith(
        "train more often than every 7d; a smaller --every says how much more often."
    )


def test_no_loss_is_said_with_its_interval() -> None:
    gains = [loss(1, -0.01, -0.03, 0.01), loss(2, 0.05, 0.02, 0.08, fresh=0.0)]
    assert advice(gains, WEEK, "ndcg@20") == (
        "At no age up to 14d does the interval of the loss leave out zero (at 14d ndcg@20 +0.0500 "
        "[+0.0200, +0.0800] against a fresh one, 1,200 users): these windows do not show that "
        "training more often than every 14d pays."
    )
