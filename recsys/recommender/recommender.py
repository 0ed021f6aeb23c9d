"""The whole funnel in process: retrievers, features, ranker, slate. Loaded from a bundle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl

from features.moments import microseconds
from features.tables import ITEM, Histories, Interactions, ItemTable, Vocabulary
from features.tables.repeats import RepeatRule
from features.tables.rules import EventRules
from recsys.dataset.user_events import USER_EVENTS, UserEvents
from recsys.ranking.ranker import Ranker
from recsys.recommender.features import FeatureInputs
from recsys.recommender.live_funnel import LiveFunnel
from recsys.recommender.parts import read_parts
from recsys.recommender.past import FreshEvent, LoggedPasts, MappedPasts
from recsys.recommender.pool import CandidatePool, pool_candidates
from recsys.recommender.similar_items import SimilarItems, after_item
from recsys.recommender.slates import Ranked, Slate, SlateItem, order_pool
from recsys.retrieval.finishing.extras import FinishedTowers
from recsys.retrieval.protocol import Retriever
from recsys.topk import TopK

__all__ = ["Ranked", "Recommender", "Slate", "SlateItem"]


class Recommender:
    """Answers from histories: retrieve, compute features, rank, build the slate.

    Everything is a function of the histories handed in, so one object serves evaluation (histories
    that end at the split), the batch job (full histories) and live requests (recent items). Where
    the towers learned a row for each user of the training data, a known user is asked for by it
    too, an unknown one by the history alone. A live request goes through the light user tower
    where the bundle has one; rows of users mean nothing to that.

    Attributes:
        generation: id of the bundle.
        source_names: retrievers, in the order that sources count.
        item_ids: the item vocabulary.
        towers: the two-tower retriever and what was made of it; None without one.
        repeats: for how long what a user met is hidden from that user.
        as_of: the moment of live requests: just after the newest event the item values know.
        live: the funnel for one user at a time, and for given items.
    """

    def __init__(
        self,
        *,
        generation: str,
        items: ItemTable,
        item_ids: Vocabulary,
        retrievers: Sequence[Retriever],
        features: FeatureInputs,
        ranker: Ranker,
        content: np.ndarray,
        item_values: pl.DataFrame,
        as_of: datetime,
        title_column: str | None,
        candidates_per_source: int,
        diversity: float,
        interactions: Interactions | None = None,
        events: UserEvents | None = None,
        user_ids: Vocabulary | None = None,
        towers: FinishedTowers | None = None,
        rules: EventRules | None = None,
        repeats: RepeatRule | None = None,
    ) -> None:
        self.generation = generation
        self.items = items
        self.item_ids = item_ids
        self.retrievers = list(retrievers)
        self.source_names = tuple(retriever.name for retriever in retrievers)
        self.features = features
        self.ranker = ranker
        self.content = content
        self.towers = towers
        self._user_ids = user_ids
        self.as_of = as_of
        self._candidates_per_source = candidates_per_source
        self._diversity = diversity
        self.repeats = repeats or RepeatRule()
        online = retrievers
        if towers is not None:
            online = [towers.online if one is towers.retriever else one for one in retrievers]
        self.live = LiveFunnel(
            retrievers=online,
            features=features,
            ranker=ranker,
            item_ids=item_ids,
            item_values=item_values,
            logged=(LoggedPasts(interactions, item_ids) if events is None else MappedPasts(events)),
            as_of=as_of,
            candidates_per_source=candidates_per_source,
            user_index=self.user_index,
            rules=rules or EventRules(),
            repeats=self.repeats,
        )
        self._titles = (
            None
            if title_column is None
            else dict(items.frame.select(ITEM, title_column).iter_rows())
        )

    @classmethod
    def load(
        cls, bundle: Path, *, interactions: Interactions | None = None, mapped: bool = False
    ) -> Self:
        """Read a bundle.

        Args:
            bundle: its directory.
            interactions: the log, for the histories of known users in `recommend`. None: only
                recent and fresh events count there.
            mapped: take the log from the bundle's own file instead, which processes share.

        Raises:
            ArtifactError: a file is missing, damaged, or of another vocabulary.
        """
        events = UserEvents.open(bundle / "candidates" / USER_EVENTS) if mapped else None
        return cls(**read_parts(bundle), interactions=interactions, events=events)

    def histories(self, log: Interactions, user_ids: Sequence[str]) -> Histories:
        """[Q] histories of users in a log, of the items of the bundle."""
        return Histories.from_interactions(log, user_ids, self.item_ids, repeats=self.repeats)

    def user_index(self, user_ids: Sequence[str]) -> np.ndarray | None:
        """[Q] int64 rows of users in the training data + 1, 0 = unknown; None: nobody has one."""
        return None if self._user_ids is None else self._user_ids.index(user_ids)

    def pool(
        self,
        histories: Histories,
        *,
        moment: np.ndarray,
        excluded: np.ndarray | None = None,
        user_ids: Sequence[str] | None = None,
    ) -> CandidatePool:
        """Candidates of all retrievers.

        Args:
            histories: Q rows.
            moment: see `recsys.recommender.pool.pool_candidates`.
            excluded: see there.
            user_ids: [Q] whose histories. None: nobody's the training data knows.
        """
        return pool_candidates(
            self.retrievers,
            histories,
            self._candidates_per_source,
            num_items=len(self.item_ids),
            moment=moment,
            excluded=excluded,
            user_index=None if user_ids is None else self.user_index(user_ids),
        )

    def rank(
        self,
        histories: Histories,
        user_ids: Sequence[str],
        moment: np.ndarray,
        log: Interactions,
        k: int,
        *,
        excluded: np.ndarray | None = None,
        diversity: float | None = None,
    ) -> Ranked:
        """The funnel for Q users at once.

        Args:
            histories: Q rows.
            user_ids: [Q].
            moment: [Q] int64 microseconds since the epoch, when each user asks.
            log: events that features are computed from, each row from those before its moment.
            k: places.
            excluded: [Q, N + 1] bool, True = must not appear. None: what their histories
                hide.
            diversity: of the slate, 0..1. None: as configured.
        """
        if excluded is None:
            excluded = histories.hidden_mask(len(self.item_ids), moment)
        pool = self.pool(histories, moment=moment, excluded=excluded, user_ids=user_ids)
        rows = self.features.rows(pool, user_ids, moment, log)
        score = self.ranker.score(rows.features, rows.request_index)
        return self.order(pool, score, k, diversity=diversity)

    def order(
        self, pool: CandidatePool, score: np.ndarray, k: int, *, diversity: float | None = None
    ) -> Ranked:
        """The slate of each query from its candidates' scores.

        Args:
            pool: Q queries.
            score: [R] scores of the pool's real entries in row-major order; -inf = leave out.
            k: places.
            diversity: of the slate, 0..1. None: as configured.
        """
        diversity = self._diversity if diversity is None else diversity
        return order_pool(pool, score, k, diversity=diversity, vectors=self.content)

    def recommend(
        self,
        user_id: str,
        k: int = 10,
        exclude: Collection[str] = (),
        only: Collection[str] | None = None,
        recent_items: Sequence[str] | None = None,
        *,
        fresh: Sequence[FreshEvent] = (),
        moment: datetime | None = None,
        diversity: float | None = None,
        threshold: bool = False,
    ) -> Slate:
        """One live request, with features from published item values and the user's own events.

        Args:
            user_id: may be unknown; "" for nobody in particular.
            k: most items.
            exclude: item ids that must not appear; unknown ones are ignored.
            only: if given, nothing else may appear.
            recent_items: item ids the user just met, oldest first, on top of the logged history.
            fresh: what the user did since the log ended, likewise; dated.
            moment: of the request, UTC. None: ``as_of``, or just after the newest fresh event.
            diversity: of the slate, 0..1. None: as configured.
            threshold: leave out what the bundle's threshold head holds for unlikely, and rather
                show little or nothing; for "send this, or do not send".

        Returns:
            At most k items. Without any history the items popular just before ``as_of``, which no
            threshold holds back: the source tells, and the caller decides.

        Raises:
            ValueError: k < 1, or ``threshold`` is asked of a bundle without a head.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        if threshold and (self.towers is None or self.towers.head is None):
            raise ValueError(
                f"threshold must be False for bundle {self.generation}, which has no threshold "
                "head; train with one"
            )
        past = self.live.past(user_id, recent_items or (), fresh, moment)
        excluded = past.hidden(len(self.item_ids))
        excluded[0, self.item_ids.index(list(exclude))] = True
        if only is not None:
            kept = np.zeros(excluded.shape[1], dtype=bool)
            kept[self.item_ids.index(list(only))] = True
            excluded |= ~kept
        moments = np.full(1, past.moment_us, dtype=np.int64)
        pool = self.live.find(user_id, past, excluded)
        if pool.item_index.shape[1] == 0:
            return Slate([], "nothing left")
        if past.history.counts[0] == 0:
            score = pool.score[self._popularity.name][pool.real]
            return Slate(self._named(self.order(pool, score, k, diversity=0.0)), "popularity")
        rows = self.live.rows(pool, user_id, past)
        score = self.ranker.score(rows.features, rows.request_index)
        if threshold:
            likely = self._likely(pool, past.history, moments, [user_id])
            if not likely.any():
                return Slate([], "nothing likely")
            score = np.where(likely, score, -np.inf)
        return Slate(self._named(self.order(pool, score, k, diversity=diversity)), "ranker")

    def popular(self, k: int, moment: datetime) -> list[SlateItem]:
        """The ``k`` items popular just before ``moment``, best first."""
        none = np.zeros(0, dtype=np.int64)
        nobody = Histories(np.zeros(2, dtype=np.int64), none, none, none.astype(np.float32))
        source = self.source_names.index(self._popularity.name)
        top = self._popularity.retrieve(
            nobody, k, moment=np.full(1, microseconds(moment), dtype=np.int64)
        )
        return self._named(Ranked(*top, np.full(top.item_index.shape, source, dtype=np.uint8)))

    @property
    def _popularity(self) -> Retriever:
        return self.retrievers[self.source_names.index("popularity")]

    def _named(self, ranked: Ranked) -> list[SlateItem]:
        real = ranked.item_index[0] > 0
        ids = self.item_ids.ids(ranked.item_index[0][real])
        return [
            SlateItem(item_id, float(score), self.source_names[int(source)])
            for item_id, score, source in zip(
                ids, ranked.score[0][real], ranked.source[0][real], strict=True
            )
        ]

    def _likely(
        self, pool: CandidatePool, history: Histories, moment: np.ndarray, user_ids: list[str]
    ) -> np.ndarray:
        """[R] bool of the pool's real entries: at or above the threshold of the head."""
        if self.towers is None:
            raise ValueError("threshold must be False without the two_tower retriever")
        score = pool.score[self.towers.retriever.name]
        kept = self.towers.likely(
            history, score, moment=moment, user_index=self.user_index(user_ids)
        )
        likely: np.ndarray = kept[pool.real]
        return likely

    def similar(self, item_id: str, k: int = 10) -> list[SlateItem]:
        """Items most like ``item_id``, by `similar_index`; empty for an unknown item."""
        index = self.item_ids.index([item_id])
        if int(index[0]) == 0:
            return []
        top = self.similar_index(index, k)
        real = top.item_index[0] > 0
        ids = self.item_ids.ids(top.item_index[0][real])
        return [
            SlateItem(each, float(score), "similar")
            for each, score in zip(ids, top.score[0][real], strict=True)
        ]

    def similar_index(self, item_index: np.ndarray, k: int) -> TopK:
        """The ``k`` items closest to each of ``item_index`` [Q], by cosine.

        Compared are the towers' item vectors and the content vectors side by side. Where there
        are neither, it is what the first retriever but popularity finds for whoever met the item
        alone.
        """
        if self.towers is None and not self.content.any():
            counted = [one for one in self.retrievers if one.name != "popularity"]
            return after_item(
                (counted or self.retrievers)[0],
                item_index,
                k,
                num_items=len(self.item_ids),
                moment=microseconds(self.as_of),
            )
        return self._similar_items.of(item_index, k)

    @cached_property
    def _similar_items(self) -> SimilarItems:
        towers = [] if self.towers is None else [self.towers.retriever.item_vectors]
        return SimilarItems([self.content, *towers])

    def title(self, item_id: str) -> str:
        """The title of an item, or its id where there is none."""
        found = None if self._titles is None else self._titles.get(item_id)
        return item_id if found is None else str(found)
