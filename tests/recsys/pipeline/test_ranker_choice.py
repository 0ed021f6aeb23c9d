"""What the ranker is chosen on where there are few users."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from features.definitions import Count, RetrievalRank, RetrievalScore, SlateRelative
from recsys.errors import LeakageError
from recsys.pipeline.ranker_choice import LEAST_WANTED, check_rows, draw_folds, write_fusion
from recsys.ranking.ranker import Ranker, RankingRows


def rows_of(wanted: list[int], requests: int, candidates: int = 4) -> RankingRows:
    """Requests of four candidates each; the first one of ``wanted`` requests is wanted."""
    label = np.zeros((requests, candidates), dtype=np.int64)
    label[wanted, 0] = 1
    request = np.repeat(np.arange(requests), candidates)
    return RankingRows(label.reshape(-1, 1).astype(np.float32), label.ravel(), request, ("answer",))


def test_folds_are_drawn_as_ever_where_they_part_the_wanted_ones() -> None:
    drawn = draw_folds(rows_of(list(range(40)), 40), 40, folds=4, seed=3)
    expected = np.random.default_rng(3).integers(0, 4, 40)
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("seed", range(20))
def test_every_fold_leaves_a_wanted_candidate_in_the_others(seed: int) -> None:
    fold = draw_folds(rows_of([1, 4], 6), 6, folds=2, seed=seed)
    assert fold is not None
    assert fold[1] != fold[4]


def test_one_user_with_a_wanted_candidate_is_too_few() -> None:
    assert draw_folds(rows_of([2], 6), 6, folds=2, seed=0) is None
    assert draw_folds(rows_of([], 6), 6, folds=2, seed=0) is None


def test_a_feature_that_is_the_answer_is_refused_where_luck_cannot_be_it() -> None:
    definitions = [Count(name="answer")]
    many = rows_of(list(range(LEAST_WANTED)), LEAST_WANTED)
    with pytest.raises(LeakageError, match="answer"):
        check_rows(many, definitions)
    check_rows(rows_of(list(range(LEAST_WANTED - 1)), LEAST_WANTED), definitions)
    # a retriever that is always right was fitted on the past alone
    check_rows(many, [RetrievalScore(name="answer", retriever="next_item")])
    score = RetrievalScore(name="score", retriever="next_item")
    check_rows(many, [score, SlateRelative(name="answer", of="score")])


def test_without_a_ranker_the_retrievers_shares_are_summed(tmp_path: Path) -> None:
    definitions = [
        Count(name="share__popularity"),  # of another meaning
        RetrievalScore(name="mine", retriever="item_item_share"),
        RetrievalRank(name="rank__item_item", retriever="item_item"),
    ]
    write_fusion(tmp_path, definitions, ["item_item", "popularity"])
    ranker = Ranker.load(tmp_path)
    names = ("share__popularity", "mine", "rank__item_item", "fused_share__popularity")
    assert ranker.feature_names == names
    features = np.array([[9, 1.0, 0, 0.25], [9, 0.5, 1, 1.0], [9, np.nan, 2, 0.5]], np.float32)
    np.testing.assert_allclose(
        ranker.score(features, np.zeros(3, dtype=np.int64)), [1.25, 1.5, 0.5]
    )
    shares = ranker.gbdt.contributions(features)
    np.testing.assert_allclose(shares.sum(axis=1), [1.25, 1.5, 0.5])
    assert shares[:, [0, 2, 4]].any() == np.False_
    assert list(ranker.gbdt.importance()) == ["mine", "fused_share__popularity"]
    with pytest.raises(ValueError, match=r"features must be \[R, 4\], got shape \(3, 2\)"):
        ranker.gbdt.predict(features[:, :2])
    written = json.loads((tmp_path / "definitions.json").read_text())
    assert [one["name"] for one in written] == list(names)
