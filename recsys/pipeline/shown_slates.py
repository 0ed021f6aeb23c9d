"""What was shown together and chosen from, as lists that the ranker may learn from as well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from features.tables import EVENT, ITEM, TIMESTAMP, USER, Histories, Interactions
from recsys.dataset import Dataset
from recsys.pipeline.origins import Fit, fit_beside
from recsys.ranking.ranker import RankerFit, RankingRows
from recsys.recommender.features import FeatureInputs
from recsys.recommender.pool import score_candidates
from recsys.retrieval.protocol import Retriever

__all__ = ["ShownSlates", "better_with", "shown_slates", "slate_rows"]

log = logging.getLogger(__name__)

_ROW, _INDEX, _LIKED, _SLATE = "row", "index", "liked", "slate"


class ShownSlates(NamedTuple):
    """S slates that users were shown, of what they chose and of what they left alone.

    Attributes:
        row: [S] int64 place of the user among those asked.
        moment: [S] int64 microseconds.
        item_index: [S, C] int64, rising within a row, padded with -1.
        wanted: [S, C] bool, what was chosen.
    """

    row: np.ndarray
    moment: np.ndarray
    item_index: np.ndarray
    wanted: np.ndarray


def shown_slates(
    data: Dataset, user_ids: Sequence[str], moment: np.ndarray, *, most: int = 20_000
) -> ShownSlates | None:
    """The slates that a log tells of: what a user met at one time, liked in part.

    Args:
        data: the run's; what was shown and left alone is neutral in its log.
        user_ids: [Q] who is asked.
        moment: [Q] int64 microseconds; earlier slates are left out.
        most: of these the newest.

    Returns:
        None where the log tells of none.
    """
    neutral, likes = data.interactions.neutral, data.interactions.frame
    if neutral is None:
        return None
    if data.targets:
        likes = likes.filter(pl.col(EVENT).is_in(list(data.targets)))
    asked = pl.DataFrame({USER: pl.Series(user_ids, dtype=pl.String), "asked_at": moment})
    met = pl.concat(
        part.select(USER, ITEM, TIMESTAMP, pl.lit(liked).alias(_LIKED))
        for part, liked in ((likes, True), (neutral, False))
    ).join(asked.with_row_index(_ROW), on=USER)
    time = pl.col(TIMESTAMP).to_physical()
    met = met.with_columns(pl.Series(_INDEX, data.item_ids.index(met[ITEM]), dtype=pl.Int64))
    met = met.filter((time >= pl.col("asked_at")) & (pl.col(_INDEX) > 0))
    slate = [_ROW, TIMESTAMP]
    met = met.group_by(*slate, _INDEX).agg(pl.col(_LIKED).any())
    met = met.filter(pl.col(_LIKED).any().over(slate) & ~pl.col(_LIKED).all().over(slate))
    if met.is_empty():
        return None
    slates = met.select(slate).unique().sort(TIMESTAMP, _ROW).tail(most).sort(slate)
    met = met.join(slates.with_row_index(_SLATE), on=slate).sort(_SLATE, _INDEX)
    row = met[_SLATE].to_numpy()
    counts = np.bincount(row, minlength=slates.height)
    column = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
    item_index = np.full((slates.height, int(counts.max())), -1, dtype=np.int64)
    wanted = np.zeros(item_index.shape, dtype=bool)
    item_index[row, column] = met[_INDEX].to_numpy()
    wanted[row, column] = met[_LIKED].to_numpy()
    return ShownSlates(
        slates[_ROW].to_numpy().astype(np.int64),
        slates[TIMESTAMP].to_physical().to_numpy().astype(np.int64),
        item_index,
        wanted,
    )


def slate_rows(
    slates: ShownSlates,
    retrievers: Sequence[Retriever],
    inputs: FeatureInputs,
    history: Histories,
    user_ids: Sequence[str],
    user_index: np.ndarray,
    seen: Interactions,
) -> RankingRows:
    """The items of slates as the ranker takes candidates.

    Args:
        slates: S slates.
        retrievers: of the past, which score the items.
        inputs: what features are computed from.
        history: S rows, what their users did before they were asked.
        user_ids: [Q] of those asked.
        user_index: [Q] as retrievers take it.
        seen: events that features may see.
    """
    pool = score_candidates(
        retrievers,
        history,
        slates.item_index,
        moment=slates.moment,
        user_index=user_index[slates.row],
    )
    users = [user_ids[row] for row in slates.row]
    rows = inputs.rows(pool, users, slates.moment, seen)
    return replace(rows, label=slates.wanted[pool.real].astype(np.int64))


def better_with(
    fitted: RankerFit,
    fit: Fit,
    quality: Callable[[np.ndarray], float],
    rows: RankingRows,
    folds: np.ndarray,
    others: RankingRows,
    slates: ShownSlates,
) -> RankerFit:
    """The ranker that learned from slates too, where that serves the candidates of retrievers.

    Args:
        fitted: of ``rows`` alone.
        fit: makes such a one of rows, their folds and ``quality``.
        quality: of [R] scores of ``rows``, on held-out users.
        rows: candidates of Q requests.
        folds: [Q] fold of each.
        others: of the slates.
        slates: S slates; each is in the fold of its user.

    Returns:
        With scores of ``rows``, whichever it is.
    """
    found = fit_beside(fit, quality, rows, folds, others, folds[slates.row])
    better = quality(found.held_out) > quality(fitted.held_out)
    log.info("%s shown slates: %s", slates.row.size, "learned from" if better else "no use")
    return found if better else fitted
