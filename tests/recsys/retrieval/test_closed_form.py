from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from features.tables import Histories
from recsys.retrieval.blocks import moments_of, retrieve_in_blocks, score_in_blocks
from recsys.retrieval.co_occurrence import CoOccurrenceRetriever
from recsys.retrieval.item_item import ItemItemRetriever
from recsys.retrieval.popularity import DAY_US, PopularityRetriever
from recsys.retrieval.recency import recency_weights

MakeHistories = Callable[[list[list[int]]], Histories]
LOG = [[1, 2, 3], [2, 3, 4], [1, 3], [5, 4, 3, 2], [6, 1]]


def ease(rows: list[list[int]], num_items: int, l2: float) -> np.ndarray:
    """Steck's closed form, in float64, straight from the paper."""
    matrix = np.zeros((len(rows), num_items + 1))
    for user, items in enumerate(rows):
        matrix[user, items] = 1.0
    inverse = np.linalg.inv(matrix.T @ matrix + l2 * np.eye(num_items + 1))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights


@pytest.mark.parametrize("num_items", [4, 60])
def test_both_forms_of_ease_are_the_closed_form(
    make_histories: MakeHistories, num_items: int
) -> None:
    rng = np.random.default_rng(0)
    rows = [list(1 + rng.permutation(num_items)[: rng.integers(1, 5)]) for _ in range(12)]
    histories = make_histories(rows)
    model = ItemItemRetriever.fit(histories, num_items, l2=2.0, half_life=None)
    # 12 users: the items' form below 12 items, the users' form above.
    assert ("weights" in model._tensors) == (num_items < 12)
    asked = histories.to_csr(num_items).toarray()
    np.testing.assert_allclose(
        model.score_all(histories), asked @ ease(rows, num_items, 2.0), atol=1e-5
    )


def test_recency_halves_every_half_life(make_histories: MakeHistories) -> None:
    weights = recency_weights(make_histories([[7, 8, 9], [5]]), 1.0)
    assert weights.tolist() == [0.25, 0.5, 1.0, 1.0]
    assert recency_weights(make_histories([[7, 8]]), None).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="half_life must be > 0 events, got 0"):
        recency_weights(make_histories([[7]]), 0)


def test_co_occurrence_by_hand(make_histories: MakeHistories) -> None:
    histories = make_histories([[1, 2, 3], [2, 3]])
    forward = CoOccurrenceRetriever.fit(
        histories, 3, direction="forward", window=2, shrinkage=1.0, popularity_power=1.0
    )
    # 1 met once, 2 and 3 twice; 2 -> 3 twice at distance 1, 1 -> 3 once at distance 2
    expected = {(1, 2): 1 / (2 * 3), (1, 3): 0.5 / (2 * 3), (2, 3): 2 / (3 * 3)}
    for (asked, found), value in expected.items():
        score = forward.score_all(make_histories([[asked]]))
        assert score[0, found] == pytest.approx(value)
        assert forward.score_all(make_histories([[found]]))[0, asked] == 0.0
    both = CoOccurrenceRetriever.fit(
        histories, 3, direction="both", window=2, shrinkage=1.0, popularity_power=1.0
    )
    assert both.score_all(make_histories([[3]]))[0, 2] == pytest.approx(2 / 9)


def test_popularity_counts_the_window_before_the_moment() -> None:
    times = np.array([1, 2, 3, 9, 10], dtype=np.int64) * DAY_US
    items = np.array([1, 1, 2, 2, 3], dtype=np.int64)
    log = Histories(np.array([0, 5]), items, times, np.ones(5, dtype=np.float32))
    model = PopularityRetriever.fit(log, 4, window_days=5)
    empty = log.take([0, 0]).last(0)
    score = model.score_all(empty, np.array([10 * DAY_US, 4 * DAY_US]))
    # Day 10 itself is not before day 10; item 2 has one event in days 5..9, item 1 none.
    assert np.floor(score).astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 2, 1, 0, 0]]
    # Outside the window the earlier events decide: 1 and 2 have two each of four, 3 and 4 none.
    assert score[0, 1] == pytest.approx(2 / 5)
    assert model.retrieve(empty, 2, moment=np.array([10, 4]) * DAY_US).item_index.tolist() == [
        [2, 1],
        [1, 2],
    ]
    everything = PopularityRetriever.fit(log, 4, window_days=None)
    assert everything.score_all(log, np.array([11 * DAY_US])).tolist() == [[0, 2, 2, 1, 0]]


def test_blocks_do_not_change_the_answer(make_histories: MakeHistories) -> None:
    histories = make_histories(LOG)
    model = ItemItemRetriever.fit(histories, 6)
    whole = model.retrieve(histories, 3)
    small = retrieve_in_blocks(
        model.score_all, histories, 3, num_items=6, moment=None, excluded=None, block_bytes=1
    )
    np.testing.assert_array_equal(small.item_index, whole.item_index)
    scores = score_in_blocks(
        model.score_all,
        histories,
        whole.item_index,
        num_items=6,
        moment=None,
        block_bytes=1,
    )
    np.testing.assert_allclose(scores, whole.score, rtol=1e-6)


def test_moments(make_histories: MakeHistories) -> None:
    histories = make_histories([[1, 2], [], [3]])
    assert moments_of(histories, None).tolist() == [2_000_001, 2_000_001, 1_000_001]
    with pytest.raises(ValueError, match=r"one entry per history: got shape \(2,\) for 3 rows"):
        moments_of(histories, np.zeros(2))


def test_wrong_arguments_are_named(make_histories: MakeHistories) -> None:
    histories = make_histories(LOG)
    with pytest.raises(ValueError, match="l2 must be > 0, got 0"):
        ItemItemRetriever.fit(histories, 6, l2=0)
    with pytest.raises(ValueError, match="window must be >= 1 event, got 0"):
        CoOccurrenceRetriever.fit(histories, 6, window=0)
    with pytest.raises(ValueError, match="shrinkage must be > 0, got 0"):
        CoOccurrenceRetriever.fit(histories, 6, shrinkage=0)
    with pytest.raises(ValueError, match="direction must be 'forward' or 'both', got 'up'"):
        CoOccurrenceRetriever.fit(histories, 6, direction="up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="window_days must be > 0, got -1"):
        PopularityRetriever.fit(histories, 6, window_days=-1)
