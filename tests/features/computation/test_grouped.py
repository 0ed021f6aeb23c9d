from __future__ import annotations

import numpy as np
import pytest

from features.computation import grouped
from features.computation.dominance import DominanceSums
from features.computation.grouped import COUNT, WEIGHT, DistinctValues, EventArrays, GroupedEvents


@pytest.mark.parametrize("kept_bytes", [0, 1_000_000])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 8, 13, 100])
def test_dominance_sums_equal_plain_sums(size: int, kept_bytes: int) -> None:
    rng = np.random.default_rng(size)
    value, weight = rng.integers(0, 9, size), rng.random(size)
    sums = DominanceSums(value, weight, kept_bytes=kept_bytes)
    position, limit = rng.integers(0, size + 1, 50), rng.integers(-1, 11, 50)
    expected = [
        weight[:end][value[:end] < below].sum() for end, below in zip(position, limit, strict=True)
    ]
    for _ in range(2):
        np.testing.assert_allclose(sums.below(position, limit), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("pairs", "cells"), [(32, 4_000_000), (1_000, 3), (0, 0)], ids=["usual", "parts", "summed"]
)
@pytest.mark.parametrize("delay", [1, 5, 60])
def test_windows_of_late_events_equal_plain_loops(
    monkeypatch: pytest.MonkeyPatch, pairs: int, cells: int, delay: int
) -> None:
    """However many are late and by how much: one by one, in parts, or by sums."""
    monkeypatch.setattr(grouped, "_PAIRS_PER_QUESTION", pairs)
    monkeypatch.setattr(grouped, "_CELLS_AT_ONCE", cells)
    monkeypatch.setattr(grouped, "_SHORT", 0.7)
    rng = np.random.default_rng(delay)
    arrived = np.sort(rng.integers(0, 100, 200))
    happened = arrived - np.where(rng.random(200) < 0.8, rng.integers(0, delay + 1, 200), 0)
    group, weight = rng.integers(0, 4, 200), rng.random(200)
    value = rng.integers(1, 12, 200)
    times, arrival = np.unique(arrived, return_inverse=True)
    events = EventArrays(arrival, happened, happened < arrived, weight, times)
    of_group = GroupedEvents(group, events)
    values = DistinctValues(group, value, events)

    asked, moment = rng.integers(0, 5, 80), rng.integers(0, 130, 80)
    window = rng.integers(1, 60, 80)
    start = moment - window
    rank, start_rank = np.searchsorted(times, moment), np.searchsorted(times, start)
    place, start_place = of_group.locate(asked, rank), of_group.locate(asked, start_rank)
    for statistic, step in ((COUNT, np.ones(200)), (WEIGHT, weight)):
        found = of_group.at(statistic, place) - of_group.at(statistic, start_place)
        found -= of_group.late(statistic, asked, start_rank, rank, start)
        seen = (arrived < moment[:, None]) & (group == asked[:, None]) & (group > 0)
        inside = seen & (happened >= start[:, None])
        np.testing.assert_allclose(found, (inside * step).sum(axis=1), atol=1e-9)
        assert ((seen & ~inside) & (arrived >= start[:, None])).any()  # there is what to subtract
    expected = [np.unique(value[row]).size for row in inside]
    np.testing.assert_array_equal(values.count(asked, rank, start), expected)
    expected = [np.unique(value[row]).size for row in seen]
    np.testing.assert_array_equal(values.count(asked, rank, None), expected)
