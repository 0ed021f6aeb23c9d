from __future__ import annotations

import numpy as np
import pytest

from features import Histories
from recsys.errors import LeakageError
from recsys.ranking.leakage import check_feature_leakage, check_time_leakage
from recsys.ranking.ranker import RankingRows


def histories(*rows: list[tuple[int, int]]) -> Histories:
    flat = [event for row in rows for event in row]
    return Histories(
        np.cumsum([0, *map(len, rows)]).astype(np.int64),
        np.array([item for item, _ in flat], dtype=np.int64),
        np.array([time for _, time in flat], dtype=np.int64),
        np.ones(len(flat), dtype=np.float32),
    )


PAST = histories([(1, 10), (2, 20)], [(3, 5)])
FUTURE = histories([(4, 30)], [(5, 6)])
MOMENT = np.array([30, 6])


def test_a_clean_cut_passes() -> None:
    check_time_leakage(PAST, FUTURE, PAST, MOMENT)


def test_a_target_that_shares_the_last_timestamp_of_the_history_passes() -> None:
    check_time_leakage(PAST, histories([(4, 20)], [(5, 6)]), PAST, np.array([21, 6]))


def test_a_history_that_reaches_the_moment_is_refused() -> None:
    with pytest.raises(LeakageError, match=r"1 history events are at or after.*row 0, item 2"):
        check_time_leakage(PAST, FUTURE, PAST, np.array([20, 6]))


def test_a_target_before_the_moment_is_refused() -> None:
    with pytest.raises(LeakageError, match=r"1 targets are before the moment.*row 1, item 5"):
        check_time_leakage(PAST, FUTURE, PAST, np.array([30, 9]))


def test_retrievers_fitted_on_the_targets_are_refused() -> None:
    everything = histories([(1, 10), (2, 20), (4, 30)], [(3, 5)])
    with pytest.raises(LeakageError, match="1 targets are among the events the retrievers"):
        check_time_leakage(PAST, FUTURE, everything, MOMENT)


def rows(feature: np.ndarray, label: np.ndarray) -> RankingRows:
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.normal(size=label.size), feature]).astype(np.float32)
    return RankingRows(features, label, np.arange(label.size) // 20, ("honest", "suspect"))


def test_a_planted_leak_is_found_by_name_either_way_round() -> None:
    rng = np.random.default_rng(1)
    label = (rng.random(400) < 0.2).astype(np.int64)
    # A target that slipped into a count: every wanted item has one event more.
    leak = rng.poisson(0.2, 400) * 0.0 + label
    for planted in (leak, -leak, np.where(label > 0, np.nan, 1.0)):
        with pytest.raises(LeakageError, match=r"suspect \(AUC"):
            check_feature_leakage(rows(planted, label))


def test_a_strong_but_honest_feature_passes() -> None:
    rng = np.random.default_rng(2)
    label = (rng.random(4000) < 0.2).astype(np.int64)
    check_feature_leakage(rows(label + rng.normal(size=4000), label))


def test_the_auc_is_taken_within_requests() -> None:
    # Perfect between requests, worthless within: no leak.
    label = np.tile([1, 0], 20)
    feature = np.repeat(np.arange(2.0), 20)
    check_feature_leakage(rows(feature, label))
