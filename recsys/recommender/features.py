"""Features of pooled candidates, as the ranker takes them: in batches or for one live request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import polars as pl

from features.computation import FeatureComputer
from features.tables import Interactions, UserTable, Vocabulary
from recsys.ranking.ranker import RankingRows
from recsys.recommender.past import LiveItems, LivePast
from recsys.recommender.pool import CandidatePool

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
        past: LivePast,
        item_values: Mapping[str, np.ndarray],
    ) -> RankingRows:
        """Features of one live request from what its user did and published item values.

        Args:
            pool: one query, C candidates.
            user_id: who asks.
            past: what that user did.
            item_values: by name of a published definition, [C] values of the candidates.
        """
        computer, index = self.computer, pool.item_index[0]
        values = computer.live(
            user_id,
            self.live_items.known[index],
            past.moment_us,
            past.events,
            item_values,
            pool.retrieval_columns(),
        )
        names = tuple(values)
        features = np.stack([values[name] for name in names], axis=1)
        none = np.zeros(index.size, dtype=np.int64)
        return RankingRows(features, none, none, names)

    @cached_property
    def live_items(self) -> LiveItems:
        """The vocabulary beside the items of the definitions' tables."""
        return LiveItems(self.item_ids, self.computer.known_items)

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
