from __future__ import annotations

import math

import numpy as np
import pytest

from serving.store.estimates import mean_of, share_of


def test_a_share_by_hand():
    # Wilson's interval of 1 in 10, by the formula with z = 1.96.
    found = share_of(1, 10, total=1000)
    assert found.value == 0.1
    assert found.low == pytest.approx(0.01788, abs=1e-4)
    assert found.high == pytest.approx(0.40415, abs=1e-4)
    assert found.to_text() == "0.100 (0.018 to 0.404)"


@pytest.mark.parametrize(("hits", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
def test_a_share_stays_within_its_bounds(hits, low, high):
    found = share_of(hits, 10, total=11)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


def test_everything_has_no_interval():
    assert share_of(3, 4, total=4) == (0.75, 0.75, 0.75, 4)
    assert mean_of([1.0, 3.0], total=2) == (2.0, 2.0, 2.0, 2)
    assert share_of(0, 0, total=5) is None
    assert mean_of([], total=5) is None


def test_a_mean_by_hand():
    found = mean_of([1.0, 3.0], total=9)  # deviation sqrt(2), so its error is 1
    assert (found.value, found.low, found.high) == pytest.approx((2, 2 - 1.96, 2 + 1.96), abs=1e-3)
    assert found.to_text("{:.1f}") == "2.0 (0.0 to 4.0)"
    alone = mean_of([1.0], total=9)
    assert (alone.low, alone.high) == (-math.inf, math.inf)


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_intervals_hold_what_they_promise(share):
    rng = np.random.default_rng(5)
    hits = rng.binomial(200, share, 2000)
    held = [share_of(int(one), 200, total=10**9) for one in hits]
    covered = np.mean([one.low <= share <= one.high for one in held])
    assert abs(covered - 0.95) < 0.03  # Wilson's own deviation, and 4 errors of 2,000 draws
