"""Why the ranker scores an item as it does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recsys.ranking.ranker import Ranker, RankingRows
from recsys.recommender.pool import CandidatePool

__all__ = ["ExplainedItem", "explain_rows"]


@dataclass(frozen=True, slots=True)
class ExplainedItem:
    """One item of one request.

    Attributes:
        item_index: of the vocabulary.
        score: of both ranking stages.
        place: among all candidates by that score, from 1.
        candidate: a retriever brought it; otherwise it was scored because somebody asked.
        seen: the user met it before.
        retrieval: retriever -> (score, rank among the candidates from 1).
        features: value by feature; None where it is missing.
        contributions: what each feature adds to the score of the trees, largest first in size.
        base: score of the trees that no feature moves; with the contributions it sums up to
            ``trees``.
        trees: score of the first stage.
    """

    item_index: int
    score: float
    place: int
    candidate: bool
    seen: bool
    retrieval: Mapping[str, tuple[float, int]]
    features: Mapping[str, float | None]
    contributions: Mapping[str, float]
    base: float
    trees: float


def explain_rows(
    ranker: Ranker,
    rows: RankingRows,
    pool: CandidatePool,
    asked: np.ndarray,
    *,
    found: np.ndarray,
    seen: np.ndarray,
) -> list[ExplainedItem]:
    """Explain some candidates of one request.

    Args:
        ranker: both stages.
        rows: of the pool's C candidates.
        pool: one query.
        asked: [A] int64 item indices, all in the pool.
        found: [C] bool, a retriever brought the candidate.
        seen: [C] bool, the user met it before.

    Returns:
        A items in the order of ``asked``.

    Source: the contributions are TreeSHAP's (Lundberg et al., Consistent Individualized Feature
    Attribution for Tree Ensembles, 2018), as LightGBM computes them.
    """
    trees = ranker.gbdt.predict(rows.features)
    score = ranker.reorder(rows.features, trees, rows.request_index)
    place = np.empty(score.size, dtype=np.int64)
    place[np.argsort(-score, kind="stable")] = np.arange(1, score.size + 1)
    index = pool.item_index[0]
    at = np.searchsorted(index, asked)
    shares = ranker.gbdt.contributions(rows.features[at])
    explained = []
    for row, share in zip(at.tolist(), shares, strict=True):
        by_size = np.argsort(-np.abs(share[:-1]), kind="stable")
        explained.append(
            ExplainedItem(
                item_index=int(index[row]),
                score=float(score[row]),
                place=int(place[row]),
                candidate=bool(found[row]),
                seen=bool(seen[row]),
                retrieval={
                    name: (float(values[0, row]), int(pool.rank[name][0, row]) + 1)
                    for name, values in pool.score.items()
                },
                features={
                    name: None if math.isnan(value) else value
                    for name, value in zip(
                        rows.feature_names, rows.features[row].tolist(), strict=True
                    )
                },
                contributions={
                    rows.feature_names[feature]: float(share[feature])
                    for feature in by_size.tolist()
                },
                base=float(share[-1]),
                trees=float(trees[row]),
            )
        )
    return explained
