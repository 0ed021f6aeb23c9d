"""What a threshold over all users keeps and removes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recsys.retrieval.finishing.filtering import filter_report, pooled_auc, threshold_at_recall

SCORE = np.array([[3.0, 2.0, 2.0], [1.0, 0.0, -np.inf]])
LABEL = np.array([[True, True, False], [False, True, True]])


def test_measures_by_hand() -> None:
    # Positives 3, 2, 0 against 2, 1: 2 wins, 1 win and a tie, nothing: 3.5 of 6.
    assert pooled_auc(SCORE, LABEL) == pytest.approx(3.5 / 6)
    assert pooled_auc(-SCORE, LABEL & np.isfinite(SCORE)) == pytest.approx(2.5 / 6)
    assert [threshold_at_recall(SCORE, LABEL, recall=r) for r in (0.3, 0.5, 2 / 3, 1.0)] == [
        3.0,
        2.0,
        2.0,
        0.0,
    ]
    twenty = np.arange(20.0)[None]
    assert threshold_at_recall(twenty, np.ones((1, 20), bool), recall=0.95) == 1.0
    report = filter_report(SCORE, LABEL, 2.0)
    assert report.recall == pytest.approx(2 / 3)
    assert report.precision == pytest.approx(2 / 3)
    assert report.filtered_share == pytest.approx(2 / 5)
    assert report.empty_share == 0.5
    nobody = filter_report(SCORE, LABEL, 9.0)
    assert nobody[1:] == (0.0, 0.0, 1.0, 1.0)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    rng = np.random.default_rng(0)
    score = rng.integers(0, 6, (8, 9)).astype(float)
    label = rng.random((8, 9)) < 0.4
    above, below = score[label], score[~label]
    pairs = [(p > n) + 0.5 * (p == n) for p in above for n in below]
    assert pooled_auc(score, label) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pooled_auc(SCORE, LABEL[:1]), "score and label must both be"),
        (lambda: pooled_auc(SCORE, np.ones((2, 3), bool)), "got 5 and 0"),
        (lambda: threshold_at_recall(SCORE, ~np.isfinite(SCORE), recall=0.9), "a positive to keep"),
        (lambda: filter_report(SCORE, LABEL.astype(int), 0.0), "label bool: got"),
        (lambda: threshold_at_recall(SCORE, LABEL, recall=1.1), r"recall must be in \(0, 1\]"),
    ],
)
def test_wrong_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
