"""Questions and filters are values: answering changes neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.messages import RecommendRequest
from serving.models.live import OneModel
from serving.request.filters import filters_of
from serving.request.service import RecommendationService
from serving.request.snapshot import Snapshot
from serving.store.candidate_codec import CandidateList


class Model:
    generation = "g1"
    as_of_us = 0
    item_fields = ()

    def recommend(self, asked: Any, k: int, **_: Any) -> list[tuple[str, float, str]]:
        return [("i4", 1.0, "tower"), ("i2", 0.5, "tower")]

    def rank(self, asked: Any, item_index: np.ndarray, item_values: Any) -> np.ndarray:
        return item_index.astype(np.float64)


@pytest.mark.parametrize(
    "request_",
    [
        RecommendRequest("ann", k=3, exclude=["i5", "zzz"]),
        RecommendRequest("ann", k=3, recent_items=["i6"]),
        RecommendRequest("nobody", k=9, only=["i1", "i2", "i5"]),
    ],
)
def test_a_question_gets_the_same_slate_again(
    store: Any, make: Any, request_: RecommendRequest
) -> None:
    make.publish(store, "g1", {"ann": [5, 6, 7, 8]})
    service = RecommendationService(store, models=OneModel(Model()))  # type: ignore[arg-type]
    (asked,) = service._intake.recommend([request_], local_only=False)
    slates = [service._ladder.recommend(asked)._replace(outcomes=()) for _ in range(2)]
    assert slates[0] == slates[1]
    assert slates[0].items == service.recommend(request_).items
    service.close()


def test_filters_judge_lists_as_they_judge_entries() -> None:
    rng = np.random.default_rng(0)
    ids = [f"i{number}" for number in range(1, 41)]
    nothing = CandidateList(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.uint8))
    for trial in range(200):
        alive = rng.random(41) < 0.8
        snapshot = Snapshot("g1", ids, nothing, (), alive, None)
        some = [list(rng.choice([*ids, "new"], 12)) for _ in range(3)]
        filters = filters_of(
            snapshot,
            exclude=some[0],
            silent_exclude=some[1],
            only=some[2] if trial % 2 else None,
            shown=(rng.permutation(40)[:5] + 1).tolist(),
        )
        rows = rng.permutation(45)[:20]  # some are beyond the vocabulary
        found = CandidateList(rows, rng.random(20), rng.integers(0, 3, 20))
        kept, left_out = filters.allowed_list(found)
        inside = [row for row in rows.tolist() if 1 <= row <= 40]
        entries, why = filters.allowed((ids[row - 1], 0.0, "") for row in inside)
        assert [ids[row - 1] for row in kept.item_index.tolist()] == [one[0] for one in entries]
        place = [rows.tolist().index(row) for row in kept.item_index.tolist()]
        np.testing.assert_array_equal(kept.score, found.score[place])
        np.testing.assert_array_equal(kept.source, found.source[place])
        assert left_out == why
        counts = filters.counts(left_out)
        assert counts.excluded + counts.not_in_only + counts.hidden == len(left_out)
        assert counts.unknown_exclude == ("new" in some[0])
