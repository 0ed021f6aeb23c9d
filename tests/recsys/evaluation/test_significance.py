from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation import bootstrap_mean, bootstrap_means, paired_difference
from recsys.evaluation import significance as module


def test_interval_matches_the_normal_one(rng: np.random.Generator) -> None:
    values = rng.normal(3.0, 2.0, size=400)
    found = bootstrap_mean(values, rng=rng)
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.users == 400
    # 2000 resamples: the ends are themselves uncertain, by about 0.06 standard errors.
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    wider = bootstrap_mean(values, rng=rng, level=0.99)
    assert wider.high - wider.low > found.high - found.low


def test_interval_covers_as_often_as_it_says() -> None:
    # 200 worlds, 95%: binomial standard error 1.5 points; the percentile interval of 60 users is
    # a little narrow, so the lower bound is 4 se below 93.5%.
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = bootstrap_mean(rng.exponential(1.0, size=60), rng=rng, resamples=400)
        covered += found.low <= 1.0 <= found.high
    assert 0.875 <= covered / 200 <= 1.0


def test_columns_share_their_draws(rng: np.random.Generator) -> None:
    values = rng.random((50, 1))
    one, two, three = bootstrap_means(np.hstack([values, values, 2 * values]), rng=rng)
    assert one == two
    assert three.low == pytest.approx(2 * one.low)


def test_same_seed_same_interval() -> None:
    values = np.random.default_rng(1).random(30)
    first = bootstrap_mean(values, rng=np.random.default_rng(5))
    assert first == bootstrap_mean(values, rng=np.random.default_rng(5))
    assert first != bootstrap_mean(values, rng=np.random.default_rng(6))


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random(30)
    whole = bootstrap_mean(values, rng=np.random.default_rng(5))
    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 30 * 7)
    assert bootstrap_mean(values, rng=np.random.default_rng(5)) == pytest.approx(whole)


def test_equal_values_and_one_user(rng: np.random.Generator) -> None:
    assert bootstrap_mean(np.full(7, 0.1), rng=rng)[:3] == pytest.approx((0.1, 0.1, 0.1))
    assert bootstrap_mean(np.array([0.3]), rng=rng) == (0.3, 0.3, 0.3, 1)
    assert str(bootstrap_mean(np.array([0.3]), rng=rng)) == "0.3000 [0.3000, 0.3000]"


def test_a_real_difference_is_seen(rng: np.random.Generator) -> None:
    b = rng.random(300)
    found = paired_difference(b + 0.05 + 0.1 * rng.normal(size=300), b, rng=rng)
    assert 0 < found.low < found.mean < found.high
    assert found.p <= 0.001
    assert found.users == 300


def test_pairing_sees_what_the_means_alone_do_not(rng: np.random.Generator) -> None:
    b = 10 * rng.random(100)
    a = b + 0.1
    one, other = bootstrap_mean(a, rng=rng), bootstrap_mean(b, rng=rng)
    assert one.low < other.high  # the intervals overlap
    assert paired_difference(a, b, rng=rng, resamples=1000).p == pytest.approx(2 / 1001)


def test_direction_swaps_sign(rng: np.random.Generator) -> None:
    a, b = rng.random(80), rng.random(80)
    one = paired_difference(a, b, rng=np.random.default_rng(3))
    other = paired_difference(b, a, rng=np.random.default_rng(3))
    assert one.mean == pytest.approx(-other.mean)
    assert one.p == pytest.approx(other.p)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_no_difference(rng: np.random.Generator) -> None:
    a = rng.random(20)
    assert paired_difference(a, a, rng=rng) == (0.0, 0.0, 0.0, 1.0, 20)


def test_null_rejects_at_about_its_level() -> None:
    # 300 pairs of equal systems at 5%: se 1.26 points; 4 se around 5% and a little for 60 users.
    low_p = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a, b = rng.random(60), rng.random(60)
        found = paired_difference(a, b, rng=rng, resamples=400)
        low_p += found.p < 0.05
        # Interval and p say the same, up to the resolution of the resamples.
        if found.p < 0.04 or found.p > 0.06:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert low_p / 300 <= 0.05 + 4 * 0.0126 + 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resamples": 0}, "resamples must be >= 1, got 0"),
        ({"level": 0.0}, "level must be above 0 and below 1, got 0.0"),
        ({"level": 1.0}, "level must be above 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range(
    settings: dict[str, float], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(np.ones(3), rng=rng, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        paired_difference(np.ones(3), np.ones(3), rng=rng, **settings)  # type: ignore[arg-type]


def test_values_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="values must hold at least one user"):
        bootstrap_mean(np.empty(0), rng=rng)
    with pytest.raises(ValueError, match="values must be finite: 2 of 3 users are not"):
        bootstrap_mean(np.array([np.nan, 1.0, np.inf]), rng=rng)
    with pytest.raises(ValueError, match=r"values must be \[U\], one per user, got shape \(1, 3\)"):
        bootstrap_mean(np.ones((1, 3)), rng=rng)
    with pytest.raises(ValueError, match=r"values must be \[U, M\], got shape \(3,\)"):
        bootstrap_means(np.ones(3), rng=rng)
    with pytest.raises(ValueError, match=r"same users, got shapes \(3,\) and \(4,\)"):
        paired_difference(np.ones(3), np.ones(4), rng=rng)
