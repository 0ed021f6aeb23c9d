"""The funnel for one user at a time: a live request, a list to be ranked, an explanation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from features.moments import microseconds
from features.tables import ITEM, Vocabulary
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.ranking.ranker import Ranker, RankingRows
from recsys.recommender.explanation import ExplainedItem, explain_rows
from recsys.recommender.features import FeatureInputs
from recsys.recommender.past import FreshEvent, LivePast, LoggedEvents
from recsys.recommender.pool import CandidatePool, pool_candidates, score_candidates
from recsys.retrieval.protocol import Retriever

__all__ = ["LiveFunnel"]

ANONYMOUS = "\N{REPLACEMENT CHARACTER}anonymous"
"""Stands for nobody in particular where feature rows need a user id."""


class LiveFunnel:
    """Retrievers, features and ranker for single requests.

    Args:
        retrievers: those of live requests.
        features: what features are computed from.
        ranker: both stages.
        item_ids: the vocabulary, N ids.
        item_values: published values of the items, as `features.item_features` gives them.
        logged: where the past of a user is looked up.
        as_of: just after the newest event that ``item_values`` know.
        candidates_per_source: that each retriever brings.
        user_index: rows of users in the training data, see `Recommender.user_index`.
        rules: what events mean that came after the log.
        repeats: for how long what a user met is hidden from that user.
    """

    def __init__(
        self,
        *,
        retrievers: Sequence[Retriever],
        features: FeatureInputs,
        ranker: Ranker,
        item_ids: Vocabulary,
        item_values: pl.DataFrame,
        logged: LoggedEvents,
        as_of: datetime,
        candidates_per_source: int,
        user_index: Callable[[Sequence[str]], np.ndarray | None],
        rules: EventRules,
        repeats: RepeatRule,
    ) -> None:
        self._retrievers = list(retrievers)
        self._features = features
        self._ranker = ranker
        self._item_ids = item_ids
        self._value_names = [one for one in item_values.columns if one not in (ITEM, "as_of")]
        # [N + 1, V]: an item's values lie side by side, and are found together.
        self._item_values = np.empty((item_ids.size, len(self._value_names)), dtype=np.float32)
        for place, name in enumerate(self._value_names):
            self._item_values[:, place] = _by_index(item_ids, item_values, name)
        self._logged = logged
        self._as_of = as_of
        self._candidates_per_source = candidates_per_source
        self._user_index = user_index
        self._rules = rules
        self._repeats = repeats

    def rank_items(
        self,
        user_id: str,
        item_index: np.ndarray,
        recent_items: Sequence[str] = (),
        *,
        fresh: Sequence[FreshEvent] = (),
        moment: datetime | None = None,
        item_values: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Scores of given candidates, by both ranking stages.

        A set that the retrievers would find is ranked as `Recommender.recommend` ranks it; in a
        smaller one an item's rank among the candidates is another, and so may be its score.

        Args:
            user_id: see `Recommender.recommend`.
            item_index: [C] int64 different indices of the vocabulary.
            recent_items: see `Recommender.recommend`.
            fresh: see `Recommender.recommend`.
            moment: see `Recommender.recommend`.
            item_values: by name of a published definition, [C] values. None: those of the bundle.

        Returns:
            [C] float64, higher is better.
        """
        if item_index.size == 0:
            return np.zeros(0)
        past = self.past(user_id, recent_items, fresh, moment)
        order = np.argsort(item_index)
        pool = self.pool_of(item_index[order], user_id, past)
        if item_values is not None:
            item_values = {name: values[order] for name, values in item_values.items()}
        rows = self.rows(pool, user_id, past, item_values)
        score = np.empty(item_index.size)
        score[order] = self._ranker.score(rows.features, rows.request_index)
        return score

    def explain(
        self,
        user_id: str,
        item_index: np.ndarray,
        recent_items: Sequence[str] = (),
        *,
        fresh: Sequence[FreshEvent] = (),
        moment: datetime | None = None,
    ) -> list[ExplainedItem]:
        """Why given items are scored as they are, beside what would be recommended.

        Args:
            user_id: see `Recommender.recommend`.
            item_index: [A] int64 different indices of the vocabulary.
            recent_items: see `Recommender.recommend`.
            fresh: see `Recommender.recommend`.
            moment: see `Recommender.recommend`.

        Returns:
            A items in the order asked.
        """
        past = self.past(user_id, recent_items, fresh, moment)
        hidden = past.hidden(len(self._item_ids))
        found = self.find(user_id, past, hidden).item_index[0]
        pool = self.pool_of(np.union1d(found, item_index), user_id, past)
        index = pool.item_index[0]
        return explain_rows(
            self._ranker,
            self.rows(pool, user_id, past),
            pool,
            item_index,
            found=np.isin(index, found),
            seen=hidden[0, index],
        )

    def past(
        self,
        user_id: str,
        recent_items: Sequence[str] = (),
        fresh: Sequence[FreshEvent] = (),
        moment: datetime | None = None,
    ) -> LivePast:
        """What a user did up to a moment; see `recsys.recommender.past.LiveItems.past`."""
        return self._features.live_items.past(
            user_id,
            self._logged,
            recent_items,
            fresh,
            as_of_us=microseconds(self._as_of),
            moment_us=None if moment is None else microseconds(moment),
            rules=self._rules,
            repeats=self._repeats,
        )

    def find(self, user_id: str, past: LivePast, excluded: np.ndarray) -> CandidatePool:
        """Candidates of all retrievers.

        Args:
            user_id: whose.
            past: what that user did.
            excluded: [1, N + 1] bool, True = must not be a candidate.
        """
        return pool_candidates(
            self._retrievers,
            past.history,
            self._candidates_per_source,
            num_items=len(self._item_ids),
            moment=np.full(1, past.moment_us, dtype=np.int64),
            excluded=excluded,
            user_index=self._user_index([user_id]),
        )

    def pool_of(self, item_index: np.ndarray, user_id: str, past: LivePast) -> CandidatePool:
        """Given candidates, scored by all retrievers.

        Args:
            item_index: [C] int64, rising.
            user_id: whose.
            past: what that user did.
        """
        return score_candidates(
            self._retrievers,
            past.history,
            item_index[None],
            moment=np.full(1, past.moment_us, dtype=np.int64),
            user_index=self._user_index([user_id]),
        )

    def item_values(self, item_index: np.ndarray) -> dict[str, np.ndarray]:
        """[C] float32 by published definition: the values of items [C] that the bundle has."""
        columns = self._item_values[item_index].T.copy()
        return dict(zip(self._value_names, columns, strict=True))

    def rows(
        self,
        pool: CandidatePool,
        user_id: str,
        past: LivePast,
        item_values: Mapping[str, np.ndarray] | None = None,
    ) -> RankingRows:
        """What the ranker is told of each candidate.

        Args:
            pool: one query.
            user_id: whose.
            past: what that user did.
            item_values: see `rank_items`.
        """
        if item_values is None:
            item_values = self.item_values(pool.item_index[0])
        return self._features.live_rows(pool, user_id or ANONYMOUS, past, item_values)


def _by_index(items: Vocabulary, frame: pl.DataFrame, column: str) -> np.ndarray:
    """[N + 1] float32 values of a column by item index, NaN where the frame has no value."""
    values = np.full(items.size, np.nan, dtype=np.float32)
    values[items.index(frame[ITEM])] = frame[column].cast(pl.Float32).fill_null(float("nan"))
    values[0] = np.nan
    return values
