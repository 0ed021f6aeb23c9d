"""The union of what several retrievers found, as the ranker's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.tables import ITEM, USER, Histories, Vocabulary
from recsys.retrieval.protocol import Question, Retriever

__all__ = ["CandidatePool", "pool_candidates", "score_candidates"]


@dataclass(frozen=True)
class CandidatePool:
    """Candidates of Q queries, every retriever's score of every candidate.

    Attributes:
        item_index: [Q, C] int64, distinct within a row, ascending, padded with -1.
        source: [Q, C] uint8, position in ``score`` of the retriever that ranks the item best.
        score: by retriever, [Q, C] float32; -inf in the padding.
        rank: by retriever, [Q, C] float32 rank within the row's candidates, 0 the best.
    """

    item_index: np.ndarray
    source: np.ndarray
    score: Mapping[str, np.ndarray]
    rank: Mapping[str, np.ndarray]

    @property
    def names(self) -> tuple[str, ...]:
        """The retrievers, in the order that ``source`` counts."""
        return tuple(self.score)

    @property
    def real(self) -> np.ndarray:
        """[Q, C] bool, False in the padding."""
        return self.item_index > 0

    def to_requests(
        self, user_ids: Sequence[str], items: Vocabulary, moment: np.ndarray
    ) -> pl.DataFrame:
        """One row per candidate, in row-major order, as `features.compute_features` takes them.

        A score column is the retriever's own; ``score__<name>_share`` is it divided by the
        best of the row, which compares across users; 0 in rows where no score is positive.

        Args:
            user_ids: [Q].
            items: the vocabulary the indices are of.
            moment: [Q] int64 microseconds since the epoch.
        """
        row, column = np.nonzero(self.real)
        columns: dict[str, pl.Series] = {
            "request_id": pl.Series(row.astype(np.int64)),
            USER: pl.Series(list(user_ids), dtype=pl.String).gather(row),
            ITEM: items.to_series().gather(self.item_index[row, column] - 1),
            "moment": pl.Series(moment[row]).cast(pl.Datetime("us")),
        }
        for name, values in self.retrieval_columns().items():
            columns[name] = pl.Series(values)
        return pl.DataFrame(columns)

    def retrieval_columns(self) -> dict[str, np.ndarray]:
        """What the retrievers say of each candidate, [R] float32 by column; see `to_requests`."""
        real = self.real
        columns: dict[str, np.ndarray] = {}
        for name, score in self.score.items():
            best = np.max(score, axis=1, initial=0.0, where=real, keepdims=True)
            share = np.divide(score, best, out=np.zeros_like(score), where=real & (best > 0))
            columns[f"score__{name}"] = score[real]
            columns[f"score__{name}_share"] = share[real]
            columns[f"rank__{name}"] = self.rank[name][real]
        return columns


def pool_candidates(
    retrievers: Sequence[Retriever],
    histories: Histories,
    per_source: int,
    *,
    num_items: int,
    moment: np.ndarray,
    excluded: np.ndarray | None = None,
    included: np.ndarray | None = None,
    user_index: np.ndarray | None = None,
) -> CandidatePool:
    """Best ``per_source`` items of each retriever, merged; then scored by all of them.

    Args:
        retrievers: at least one, of distinct names.
        histories: Q rows.
        per_source: candidates that each retriever brings, >= 1.
        num_items: N.
        moment: [Q] int64 microseconds since the epoch.
        excluded: [Q, N + 1] bool, True = must not be a candidate.
        included: [Q, N + 1] bool, True = is a candidate whoever finds it, unless excluded.
        user_index: [Q] int64, the user's row in the training data + 1, 0 = unknown. None: all
            unknown.

    Raises:
        ValueError: no retriever, a name used twice, or per_source < 1.
    """
    names = [retriever.name for retriever in retrievers]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"retrievers must be named, each once, got {names}")
    found = np.zeros((len(histories), num_items + 1), dtype=bool)
    questions = {
        retriever.name: retriever.ask(histories, moment=moment, user_index=user_index)
        for retriever in retrievers
    }
    for question in questions.values():
        top = question.retrieve(per_source, excluded=excluded)
        np.put_along_axis(found, np.maximum(top.item_index, 0), True, axis=1)
    if included is not None:
        found |= included if excluded is None else included & ~excluded
    found[:, 0] = False
    row, item = np.nonzero(found)
    counts = found.sum(axis=1)
    column = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    item_index = np.full((len(histories), int(counts.max(initial=0))), -1, dtype=np.int64)
    item_index[row, column] = item
    return _scored(questions, item_index)


def score_candidates(
    retrievers: Sequence[Retriever],
    histories: Histories,
    item_index: np.ndarray,
    *,
    moment: np.ndarray,
    user_index: np.ndarray | None = None,
) -> CandidatePool:
    """Given candidates, scored by all retrievers as `pool_candidates` scores what it finds.

    Args:
        retrievers: at least one, of distinct names.
        histories: Q rows.
        item_index: [Q, C] int64, distinct and rising within a row, padded with -1.
        moment: see `pool_candidates`.
        user_index: see there.
    """
    questions = {
        retriever.name: retriever.ask(histories, moment=moment, user_index=user_index)
        for retriever in retrievers
    }
    return _scored(questions, item_index)


def _scored(questions: Mapping[str, Question], item_index: np.ndarray) -> CandidatePool:
    score = {name: question.score(item_index) for name, question in questions.items()}
    rank = {name: _rank(values) for name, values in score.items()}
    source = np.stack(list(rank.values())).argmin(axis=0).astype(np.uint8)
    return CandidatePool(item_index, source, score, rank)


def _rank(score: np.ndarray) -> np.ndarray:
    """[Q, C] float32 rank of each column within its row, 0 the best; ties by column."""
    order = np.argsort(-score, axis=1, kind="stable")
    rank = np.empty(score.shape, dtype=np.float32)
    if len(score) == 1:
        rank[0, order[0]] = np.arange(score.shape[1], dtype=np.float32)
        return rank
    places = np.broadcast_to(np.arange(score.shape[1], dtype=np.float32), score.shape)
    np.put_along_axis(rank, order, places, axis=1)
    return rank
