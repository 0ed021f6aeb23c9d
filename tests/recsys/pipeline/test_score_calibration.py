from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ArtifactError
from recsys.pipeline.calibration import (
    CALIBRATION,
    calibration_error,
    fit_map,
    read_map,
    write_map,
)
from recsys.simulation.world.calibration import RateCurve

LINE = RateCurve(np.array([0.0, 1.0]), np.array([1e-6, 1.0 - 1e-6]))


def rate(score: np.ndarray) -> np.ndarray:
    return 0.02 + 0.3 * score**2


def candidates(seed: int, users: int = 200, shift: float = 1.0) -> tuple[np.ndarray, ...]:
    """Scores, what was wanted at ``shift`` times the rate, and the user of each candidate."""
    rng = np.random.default_rng(seed)
    score = rng.random(users * 50)
    wanted = rng.random(score.size) < shift * rate(score)
    return score, wanted, np.repeat(np.arange(users), 50)


def error(curve: RateCurve | None, *rows: np.ndarray, seed: int = 0, **more: float) -> object:
    return calibration_error(curve, *rows, rng=np.random.default_rng(seed), **more)  # type: ignore[arg-type]


def test_an_error_by_hand() -> None:
    """Two tenths hold all that is wrong: .5 is said of each candidate, all or none is wanted."""
    flat = RateCurve(np.array([0.0]), np.array([0.5]))
    score = np.arange(200) / 200
    wanted = np.zeros(200, dtype=np.int64)
    wanted[:160:2] = 2  # every second one: eight tenths are right; counts are no more than wanted
    wanted[180:] = 1
    user = np.arange(200) % 20
    found = calibration_error(flat, score, wanted, user, rng=np.random.default_rng(0))
    assert found is not None
    assert found.mean == pytest.approx((20 * 0.5 + 20 * 0.5) / 200)
    assert found.users == 20
    assert found.low < found.mean < found.high


def test_a_map_of_the_past_fits_the_same_and_not_another_future() -> None:
    curve = fit_map(*candidates(0, users=2000)[:2])
    assert curve is not None
    known = np.array([0.3, 0.6, 0.9])
    np.testing.assert_allclose(curve(known), rate(known), atol=0.02)
    rng = np.random.default_rng(0)
    same = calibration_error(curve, *candidates(1), rng=rng)
    twice = calibration_error(curve, *candidates(2, shift=2.0), rng=rng)
    assert same is not None
    assert twice is not None
    assert same.high < 0.02
    expected = float(rate(np.linspace(0, 1, 1001)).mean())  # as much again as was foreseen
    assert twice.low < expected < twice.high
    assert same.high < twice.low


def test_users_are_resampled_whole() -> None:
    """All candidates of a user agree, so the interval is wider than for single candidates."""
    rng = np.random.default_rng(0)
    taste = np.repeat(rng.random(100) < 0.3, 50)
    flat = RateCurve(np.array([0.0]), np.array([0.1]))
    score = rng.random(5000)
    widths = []
    for user in (np.repeat(np.arange(100), 50), np.arange(5000)):
        found = calibration_error(flat, score, taste, user, rng=np.random.default_rng(1))
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > 3 * widths[1]


def test_level_seed_and_draws() -> None:
    curve, rows = fit_map(*candidates(0)[:2]), candidates(1, shift=2.0)
    assert error(curve, *rows) == error(curve, *rows)
    assert error(curve, *rows) != error(curve, *rows, seed=1)
    assert error(curve, *rows) != error(curve, *rows, resamples=50)
    wide, narrow = (error(curve, *rows, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low  # type: ignore[attr-defined]


def test_too_few_say_nothing() -> None:
    score, wanted, user = candidates(0)
    few = wanted & (np.cumsum(wanted) <= 49)
    assert fit_map(score, few) is None
    assert fit_map(score, np.ones_like(wanted)) is None
    assert error(LINE, score, few, user) is None
    assert error(None, score, wanted, user) is None
    with pytest.raises(ValueError, match=r"must be \[R\]"):
        error(LINE, score[:-1], wanted, user)


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_map(tmp_path) is None
    curve = fit_map(*candidates(0)[:2])
    assert curve is not None
    write_map(tmp_path, curve)
    found = read_map(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.score, curve.score)
    np.testing.assert_array_equal(found.rate, curve.rate)


@pytest.mark.parametrize(
    "values",
    [
        "no json",
        json.dumps([1, 2]),
        json.dumps({"format": 2, "score": [0, 1], "rate": [0.1, 0.2]}),
        json.dumps({"format": 1, "score": [0, 1]}),
        json.dumps({"format": 1, "score": [0, 1], "rate": [0.1]}),
        json.dumps({"format": 1, "score": [1, 0], "rate": [0.1, 0.2]}),
        json.dumps({"format": 1, "score": [0, 1], "rate": [0.2, 0.1]}),
        json.dumps({"format": 1, "score": [0, 1], "rate": [0.0, 0.1]}),
        json.dumps({"format": 1, "score": [], "rate": []}),
    ],
)
def test_a_damaged_map_is_told(tmp_path: Path, values: str) -> None:
    (tmp_path / CALIBRATION).write_text(values)
    with pytest.raises(
        ArtifactError, match=r"calibration\.json (is damaged|must have format 1).*; train again"
    ):
        read_map(tmp_path)
