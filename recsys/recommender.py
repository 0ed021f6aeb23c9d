"""The whole funnel in process: retrievers, features, ranker, slate. Loaded from a bundle."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import polars as pl
from safetensors.numpy import load_file

from features.histories import Histories
from features.interactions import Interactions
from features.offline import FeatureComputer
from features.registry import load_definitions
from features.schema import EVENT, ITEM, TIMESTAMP, USER, WEIGHT
from features.tables import ItemTable
from features.vocabulary import Vocabulary
from recsys.candidate_features import EPOCH, FeatureInputs, microseconds
from recsys.candidates import CandidatePool, pool_candidates
from recsys.errors import ArtifactError
from recsys.index.choices import load_index
from recsys.ranking.ranker import Ranker
from recsys.ranking.slate import build_slate
from recsys.retrieval.protocol import Retriever
from recsys.retrieval.two_tower import TwoTowerRetriever
from recsys.sources import load_sources
from recsys.topk import TopK, top_k

__all__ = ["Ranked", "Recommender", "Slate", "SlateItem"]

SLATE_POOL = 50
"""Best candidates that the diversity rule may choose from."""
ANONYMOUS = "\N{REPLACEMENT CHARACTER}anonymous"
"""Stands for nobody in particular where feature rows need a user id."""


class SlateItem(NamedTuple):
    """One place of a slate; ``source`` is the retriever that ranked the item best."""

    item_id: str
    score: float
    source: str


class Slate(NamedTuple):
    """An ordered answer.

    Attributes:
        items: best first, no item twice.
        source: "ranker" where the user's history was used, "popularity" where there was none,
            "nothing left" where the filters left no candidate.
    """

    items: list[SlateItem]
    source: str


class Ranked(NamedTuple):
    """Ordered candidates of Q users.

    Attributes:
        item_index: [Q, K] int64, best first, -1 = nothing.
        score: [Q, K] float32 of each item, -inf where there is nothing; falling along K unless
            a diversity rule moved items.
        source: [Q, K] uint8 position of the retriever in `Recommender.source_names`.
    """

    item_index: np.ndarray
    score: np.ndarray
    source: np.ndarray


class Recommender:
    """Answers from histories: retrieve, compute features, rank, build the slate.

    Everything is a function of the histories handed in, so one object serves evaluation (histories
    that end at the split), the batch job (full histories) and live requests (recent items).

    Attributes:
        generation: id of the bundle.
        source_names: retrievers, in the order that sources count.
        item_ids: the item vocabulary.
        as_of: the moment of live requests: just after the newest event the item values know.
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
    ) -> None:
        self.generation = generation
        self.items = items
        self.item_ids = item_ids
        self.retrievers = list(retrievers)
        self.source_names = tuple(retriever.name for retriever in retrievers)
        self.features = features
        self.ranker = ranker
        self.content = content
        self.as_of = as_of
        self._item_values = item_values
        self._candidates_per_source = candidates_per_source
        self._diversity = diversity
        self._interactions = interactions
        self._titles = (
            None
            if title_column is None
            else dict(items.frame.select(ITEM, title_column).iter_rows())
        )

    @classmethod
    def load(cls, bundle: Path, *, interactions: Interactions | None = None) -> Self:
        """Read a bundle.

        Args:
            bundle: its directory.
            interactions: the log, for the histories of known users in `recommend`. None: only
                recent items count there.

        Raises:
            ArtifactError: a file is missing, damaged, or of another vocabulary.
        """
        try:
            header = json.loads((bundle / "recommender.json").read_text())
        except FileNotFoundError as error:
            raise ArtifactError(
                f"no recommender in {bundle}: recommender.json is missing; run `recsys train`"
            ) from error
        item_ids = Vocabulary.load(bundle / "data" / "items.parquet")
        if item_ids.sha256 != header["items_sha256"]:
            raise ArtifactError(
                f"{bundle}/data/items.parquet is not the vocabulary the models were trained with; "
                "restore the bundle"
            )
        roles = header["item_columns"]
        items = ItemTable(
            pl.read_parquet(bundle / "data" / "catalogue.parquet"),
            **{role: tuple(columns) for role, columns in roles.items()},
        )
        content = load_file(bundle / "content" / "vectors.safetensors")["vectors"]
        retrievers = load_sources(bundle / "retrieval", header["sources"])
        for retriever in retrievers:
            if isinstance(retriever, TwoTowerRetriever) and header["index"] != "exact":
                retriever.index = load_index(bundle / "index")
        published = bundle / "candidates" / "item_features.parquet"
        values = published if published.is_file() else bundle / "features" / "items.parquet"
        item_values = pl.read_parquet(values)
        as_of = item_values["as_of"][0] if "as_of" in item_values.columns else EPOCH
        definitions = json.loads((bundle / "features" / "definitions.json").read_text())
        return cls(
            generation=bundle.name,
            items=items,
            item_ids=item_ids,
            retrievers=retrievers,
            features=FeatureInputs(
                FeatureComputer(
                    load_definitions(definitions),
                    items,
                    vectors={"content": (item_ids, content)},
                ),
                item_ids,
            ),
            ranker=Ranker.load(bundle / "ranking"),
            content=content,
            item_values=item_values,
            as_of=as_of,
            title_column=header["title_column"],
            candidates_per_source=header["candidates_per_source"],
            diversity=header["diversity"],
            interactions=interactions,
        )

    def pool(
        self, histories: Histories, *, moment: np.ndarray, excluded: np.ndarray | None = None
    ) -> CandidatePool:
        """Candidates of all retrievers; see `recsys.candidates.pool_candidates`."""
        return pool_candidates(
            self.retrievers,
            histories,
            self._candidates_per_source,
            num_items=len(self.item_ids),
            moment=moment,
            excluded=excluded,
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
            excluded: [Q, N + 1] bool, True = must not appear. None: what is in the history.
            diversity: of the slate, 0..1. None: as configured.
        """
        if excluded is None:
            excluded = histories.seen_mask(len(self.item_ids))
        pool = self.pool(histories, moment=moment, excluded=excluded)
        rows = self.features.rows(pool, user_ids, moment, log)
        score = self.ranker.score(rows.features, rows.request_index)
        return self.order(pool, score, k, diversity=diversity)

    def order(
        self, pool: CandidatePool, score: np.ndarray, k: int, *, diversity: float | None = None
    ) -> Ranked:
        """The slate of each query from its candidates' scores.

        Args:
            pool: Q queries.
            score: [R] scores of the pool's real entries in row-major order.
            k: places.
            diversity: of the slate, 0..1. None: as configured.
        """
        diversity = self._diversity if diversity is None else diversity
        depth = max(k, SLATE_POOL) if diversity > 0 else k
        width = max(depth, pool.item_index.shape[1])
        dense = np.full((len(pool.item_index), width), -np.inf, dtype=np.float32)
        dense[:, : pool.item_index.shape[1]][pool.real] = score
        # Column 0 is the padding row of `top_k`, so positions are shifted by one.
        best = top_k(np.pad(dense, ((0, 0), (1, 0))), depth)
        position = np.maximum(best.item_index - 1, 0)
        nothing = best.item_index < 0
        item_index = np.take_along_axis(
            np.pad(pool.item_index, ((0, 0), (0, width - pool.item_index.shape[1]))),
            position,
            axis=1,
        )
        source = np.take_along_axis(
            np.pad(pool.source, ((0, 0), (0, width - pool.source.shape[1]))), position, axis=1
        )
        item_index[nothing] = -1
        ranked = Ranked(item_index, best.score, source)
        return self._diversified(ranked, k, diversity) if diversity > 0 else ranked

    def _diversified(self, ranked: Ranked, k: int, diversity: float) -> Ranked:
        out = Ranked(*(array[:, :k].copy() for array in ranked))
        for row, (items, score) in enumerate(zip(ranked.item_index, ranked.score, strict=True)):
            vectors = self.content[np.maximum(items, 0)]
            place = build_slate(items, score, k, vectors=vectors, diversity=diversity)
            for new, old in zip(out, ranked, strict=True):
                new[row, : place.size] = old[row, place]
        return out

    def recommend(
        self,
        user_id: str,
        k: int = 10,
        exclude: Collection[str] = (),
        only: Collection[str] | None = None,
        recent_items: Sequence[str] | None = None,
        *,
        diversity: float | None = None,
    ) -> Slate:
        """One live request, with features from published item values and the user's own events.

        Args:
            user_id: may be unknown; "" for nobody in particular.
            k: most items.
            exclude: item ids that must not appear; unknown ones are ignored.
            only: if given, nothing else may appear.
            recent_items: item ids the user just met, oldest first, on top of the logged history.
            diversity: of the slate, 0..1. None: as configured.

        Returns:
            At most k items; without any history the items popular just before ``as_of``.

        Raises:
            ValueError: k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be >= 1, got {k}")
        user_id = user_id or ANONYMOUS
        events = self._own_events(user_id, recent_items or ())
        history = Histories.from_interactions(events, [user_id], self.item_ids)
        moment = np.full(1, microseconds(self.as_of), dtype=np.int64)
        excluded = history.seen_mask(len(self.item_ids))
        excluded[0, self.item_ids.index(list(exclude))] = True
        if only is not None:
            kept = np.zeros(excluded.shape[1], dtype=bool)
            kept[self.item_ids.index(list(only))] = True
            excluded |= ~kept
        pool = self.pool(history, moment=moment, excluded=excluded)
        if pool.item_index.shape[1] == 0:
            return Slate([], "nothing left")
        if history.counts[0] == 0:
            score = pool.score[self._popularity.name][pool.real]
            return Slate(self._named(self.order(pool, score, k, diversity=0.0)), "popularity")
        rows = self.features.live_rows(pool, user_id, self.as_of, events, self._item_values)
        score = self.ranker.score(rows.features, rows.request_index)
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

    def _own_events(self, user_id: str, recent_items: Sequence[str]) -> Interactions:
        index = self.item_ids.index(list(recent_items))
        known = [item for item, found in zip(recent_items, index, strict=True) if found > 0]
        times = [self.as_of - timedelta(seconds=len(known) - n) for n in range(len(known))]
        recent = pl.DataFrame(
            {
                USER: pl.Series([user_id] * len(known), dtype=pl.String),
                ITEM: pl.Series(known, dtype=pl.String),
                TIMESTAMP: pl.Series(times, dtype=pl.Datetime("us")),
                EVENT: pl.Series(["recent"] * len(known), dtype=pl.String),
                WEIGHT: pl.Series([None] * len(known), dtype=pl.Float32).fill_null(
                    self._usual_weight
                ),
            }
        )
        if self._interactions is None or user_id == ANONYMOUS:
            return Interactions(recent)
        logged = self._interactions.frame.filter(
            (pl.col(USER) == user_id) & (pl.col(TIMESTAMP) < self.as_of)
        )
        merged = pl.concat([logged, recent.select(logged.columns)]).sort(
            TIMESTAMP, USER, ITEM, EVENT
        )
        return Interactions(merged)

    @property
    def _usual_weight(self) -> float:
        """Weight of an event whose weight nobody said: the mean of the log, or 1."""
        if self._interactions is None or len(self._interactions) == 0:
            return 1.0
        return float(self._interactions.frame[WEIGHT].mean())  # type: ignore[arg-type]

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

        Compared are the tower's item vectors and the content vectors side by side, so an item
        nobody met yet has neighbours too.
        """
        vectors = self._similarity_vectors
        score = vectors[item_index] @ vectors.T
        score[np.arange(item_index.size), item_index] = -np.inf
        return top_k(score, k)

    @cached_property
    def _similarity_vectors(self) -> np.ndarray:
        parts = [self.content]
        for retriever in self.retrievers:
            if isinstance(retriever, TwoTowerRetriever):
                parts.append(retriever.item_vectors)
        unit = [
            part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts
        ]
        return np.concatenate(unit, axis=1) / np.float32(np.sqrt(len(unit)))

    def title(self, item_id: str) -> str:
        """The title of an item, or its id where there is none."""
        found = None if self._titles is None else self._titles.get(item_id)
        return item_id if found is None else str(found)
