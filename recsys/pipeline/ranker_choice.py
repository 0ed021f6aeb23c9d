"""What the ranker is chosen on: folds of users, and what stands where there are too few."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from features.computation.declarations import dump_definitions
from features.definitions import Definition, RetrievalScore
from recsys.bundle.left_out import LeftOut, write_left_out
from recsys.evaluation import Truth, judge
from recsys.evaluation.metrics import ndcg
from recsys.pipeline.measuring import MEASURED_AT
from recsys.ranking.fusion import ShareFusion
from recsys.ranking.leakage import check_feature_leakage
from recsys.ranking.ranker import Ranker, RankerFit, RankingRows, lists_of
from recsys.recommender.pool import CandidatePool

__all__ = [
    "LEAST_WANTED",
    "check_rows",
    "draw_folds",
    "held_out_ndcg",
    "write_definitions",
    "write_fusion",
    "write_validation",
]

LEAST_WANTED = 50
"""Below this many wanted candidates an honest feature can separate them by luck."""


def draw_folds(rows: RankingRows, num_requests: int, *, folds: int, seed: int) -> np.ndarray | None:
    """[Q] int64 fold of each request, drawn; each leaves a wanted candidate in the others.

    Args:
        rows: of all requests.
        num_requests: Q.
        folds: at most so many; fewer where fewer requests have a wanted candidate.
        seed: of the draw.

    Returns:
        None where fewer than two requests have one.
    """
    rng = np.random.default_rng(seed)
    fold = rng.integers(0, folds, num_requests)
    wanted = np.unique(rows.request_index[rows.label > 0])
    if wanted.size < 2:
        return None
    if np.unique(fold[wanted]).size < 2:
        fold[wanted] = rng.permutation(wanted.size) % min(folds, wanted.size)
    return fold


def check_rows(rows: RankingRows, definitions: Sequence[Definition]) -> None:
    """Refuse features that hold the target, where there are enough candidates to tell.

    Retrievers were fitted on the past alone, so one that is always right is right.

    Raises:
        LeakageError: see `check_feature_leakage`.
    """
    if int((rows.label > 0).sum()) < LEAST_WANTED:
        return
    honest = {
        one.name
        for one in definitions
        if any(name.startswith("request.") for name in one.columns())
    }
    honest |= {one.name for one in definitions if getattr(one, "of", None) in honest}
    judged = [place for place, name in enumerate(rows.feature_names) if name not in honest]
    names = tuple(rows.feature_names[place] for place in judged)
    check_feature_leakage(
        RankingRows(rows.features[:, judged], rows.label, rows.request_index, names)
    )


def held_out_ndcg(
    rows: RankingRows, item_index: np.ndarray, truth: Truth, score: np.ndarray
) -> float:
    """Mean ndcg of the lists that [R] scores of candidates make; 0 of a request without any."""
    lists = lists_of(score, rows.request_index, MEASURED_AT)
    items = np.full((len(truth), MEASURED_AT), -1, dtype=np.int64)
    items[np.unique(rows.request_index)] = np.where(
        lists >= 0, item_index[np.maximum(lists, 0)], -1
    )
    return float(ndcg(judge(items, truth), MEASURED_AT).mean())


def write_fusion(
    out: Path,
    definitions: Sequence[Definition],
    sources: Sequence[str],
    left_out: Sequence[LeftOut] = (),
) -> None:
    """Write a ranker that learned nothing, with the definitions that it needs.

    Args:
        out: directory of the ranker.
        definitions: the run's; what the retrievers say of a candidate is added where it lacks.
        sources: the retrievers.
        left_out: why there is no other.
    """
    definitions, shares = list(definitions), []
    for source in sources:
        wanted = f"{source}_share"
        known = [
            one.name
            for one in definitions
            if isinstance(one, RetrievalScore) and one.retriever == wanted and one.default is None
        ]
        if not known:
            known = [f"share__{source}"]
            while known[0] in {one.name for one in definitions}:
                known = [f"fused_{known[0]}"]
            definitions.append(RetrievalScore(name=known[0], retriever=wanted))
        shares.append(known[0])
    Ranker(ShareFusion([one.name for one in definitions], shares), None).save(out)
    (out / "validation.json").write_text(json.dumps({"users": 0}) + "\n")
    write_definitions(out, definitions)
    write_left_out(out, left_out)


def write_validation(
    out: Path,
    fitted: RankerFit,
    pool: CandidatePool,
    quality: Callable[[np.ndarray], float],
    users: int,
) -> None:
    """Say beside the ranker what it was chosen by.

    Args:
        out: directory of the ranker.
        fitted: on the candidates of ``pool``.
        pool: of all users asked.
        quality: of [R] scores of its real entries.
        users: that were asked.
    """
    validation = {
        f"ndcg@{MEASURED_AT}": {
            "trees": quality(fitted.held_out_first),
            "trees and listwise": quality(fitted.held_out),
            **{name: quality(pool.score[name][pool.real]) for name in pool.names},
        },
        "users": users,
        "num_trees": fitted.num_trees,
        "listwise_strength": fitted.strength,
        "by_num_trees": fitted.first_value,
        "by_listwise_strength": fitted.listwise_value,
        "importance": fitted.ranker.gbdt.importance(),
    }
    (out / "validation.json").write_text(json.dumps(validation, indent=2) + "\n")


def write_definitions(out: Path, definitions: Sequence[Definition]) -> None:
    """Say beside the ranker what its features are."""
    text = json.dumps(dump_definitions(definitions), indent=2)
    (out / "definitions.json").write_text(text + "\n")
