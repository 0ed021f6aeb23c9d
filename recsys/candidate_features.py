"""Features of pooled candidates, as the ranker takes them: in batches or for one live request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

import numpy as np
import polars as pl

from features.interactions import Interactions
from features.moments import microseconds
from features.offline import FeatureComputer
from features.tables import UserTable
from features.vocabulary import Vocabulary
from recsys.candidates import CandidatePool
from recsys.ranking.ranker import RankingRows

__all__ = ["FeatureInputs"]


@dataclass(frozen=True)
class FeatureInputs:
    """What the features of candidates are computed from.

    Attributes:
        computer: definitions and tables.
        item_ids: vocabulary of the candidates' indices.
    """

    computer: FeatureComputer
    item_ids: Vocabulary

    def with_users(self, users: UserTable) -> Self:
        """The same inputs with another user table.

        Raises:
            DataError: it lacks a column that a definition reads.
        """
        old = self.computer
        computer = FeatureComputer(old.definitions, old.items, users, old.tables.vectors)
        return replace(self, computer=computer)

    def rows(
        self,
        pool: CandidatePool,
        user_ids: Sequence[str],
        moment: np.ndarray,
        log: Interactions,
        *,
        label: np.ndarray | None = None,
    ) -> RankingRows:
        """Features of every candidate as of its user's moment.

        Args:
            pool: Q queries.
            user_ids: [Q].
            moment: [Q] int64 microseconds.
            log: events; only those strictly before a row's moment are seen.
            label: [Q, N + 1] bool, what is wanted. None: unknown.
        """
        requests = pool.to_requests(user_ids, self.item_ids, moment)
        frame = self.computer.compute(requests, log)
        return self._rows(frame, pool, label)

    def live_rows(
        self,
        pool: CandidatePool,
        user_id: str,
        moment: datetime,
        events: Interactions,
        item_values: pl.DataFrame,
    ) -> RankingRows:
        """Features of one live request from the user's own events and published item values."""
        item_ids = self.item_ids.ids(pool.item_index[0][pool.real[0]])
        moments = np.full(1, microseconds(moment), dtype=np.int64)
        requests = pool.to_requests([user_id], self.item_ids, moments)
        retrieval = {
            name: requests[name].to_numpy()
            for name in requests.columns
            if name.startswith(("score__", "rank__"))
        }
        frame = self.computer.request_features(
            user_id, item_ids, moment, events, item_values, retrieval
        )
        return self._rows(frame, pool, None)

    def _rows(
        self, frame: pl.DataFrame, pool: CandidatePool, label: np.ndarray | None
    ) -> RankingRows:
        names = tuple(definition.name for definition in self.computer.definitions)
        query, column = np.nonzero(pool.real)
        wanted = (
            np.zeros(query.size, dtype=np.int64)
            if label is None
            else label[query, pool.item_index[query, column]].astype(np.int64)
        )
        features = frame.select(names).to_numpy().astype(np.float32, copy=False)
        return RankingRows(features, wanted, query.astype(np.int64), names)
