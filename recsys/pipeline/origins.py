"""Asking retrievers of the past about what followed, at one moment or at earlier ones as well.

The ranker learns from lists of candidates and what their users went on to. One cut of the training
part gives one list a user; cuts before it give more, each with retrievers of its own, which have
seen nothing later. Lists of earlier cuts are learned from and never judged on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import numpy as np

from features.moments import EPOCH, microseconds
from features.tables import TIMESTAMP, Histories, Interactions
from recsys.dataset import Cut, Dataset, cut_histories, passed_over
from recsys.dataset.tables import cut_moment
from recsys.ranking.ranker import RankerFit, RankingRows
from recsys.recommender.features import FeatureInputs
from recsys.recommender.pool import CandidatePool, pool_candidates
from recsys.retrieval.protocol import Retriever

__all__ = [
    "AskedPast",
    "Fit",
    "Origin",
    "ask_past",
    "earlier_origins",
    "fit_beside",
    "graded",
    "rows_of_earlier",
    "thinned",
]

_STEPS = 3
"""Origins lie a third of what is held out after each of them apart."""

Fit = Callable[[RankingRows, np.ndarray, Callable[[np.ndarray], float]], RankerFit]


@dataclass(frozen=True, eq=False)
class AskedPast:
    """Candidates of the users who went on to something, and what they went on to.

    Attributes:
        users: [Q] int64 rows of the training data.
        user_ids: [Q].
        cut: Q rows.
        pool: of Q queries.
        rows: R candidates of the pool, labelled.
    """

    users: np.ndarray
    user_ids: Sequence[str]
    cut: Cut
    pool: CandidatePool
    rows: RankingRows

    def folds_of_users(self, folds: np.ndarray, num_users: int, *, seed: int) -> np.ndarray:
        """[U] int64 fold of everybody: of the Q users ``folds`` [Q], of the others one drawn."""
        drawn = np.random.default_rng(seed).integers(0, int(folds.max()) + 1, num_users)
        drawn[self.users] = folds
        return drawn


def ask_past(
    retrievers: Sequence[Retriever],
    cut: Cut,
    data: Dataset,
    inputs: FeatureInputs,
    log: Interactions,
    *,
    per_source: int,
    levels: np.ndarray | None = None,
) -> AskedPast:
    """Ask retrievers for candidates of everybody who went on to something.

    Args:
        retrievers: that learned from the past of the cut alone.
        cut: U rows.
        data: the run's.
        inputs: what features are computed from.
        log: events that features may see.
        per_source: candidates that each retriever brings.
        levels: see `graded`.
    """
    users = np.nonzero(cut.target.counts > 0)[0]
    cut = Cut(cut.history.take(users), cut.target.take(users), cut.moment[users])
    everybody = data.user_list
    user_ids = [everybody[row] for row in users]
    pool = pool_candidates(
        retrievers,
        cut.history,
        per_source,
        num_items=data.num_items,
        moment=cut.moment,
        excluded=cut.history.hidden_mask(data.num_items, cut.moment),
        included=passed_over(data, user_ids, cut.moment),
        user_index=users + 1,
    )
    wanted = graded(cut.target, data.num_items, levels)
    rows = inputs.rows(pool, user_ids, cut.moment, log, label=wanted)
    return AskedPast(users, user_ids, cut, pool, rows)


def graded(target: Histories, num_items: int, levels: np.ndarray | None) -> np.ndarray:
    """[Q, N + 1] int8 labels: 0 for what was not wanted, else the place of the weight in levels.

    Args:
        target: Q rows.
        num_items: N.
        levels: [G] rising weights that kinds of event have; of several events of an item the
            heaviest counts, and a weight between two levels is at the lower. None: all are 1.
    """
    label = np.zeros((len(target), num_items + 1), dtype=np.int8)
    place = np.ones(target.item_index.size, dtype=np.int8)
    if levels is not None:
        place = np.clip(np.searchsorted(levels, target.weight, side="right"), 1, levels.size)
    np.maximum.at(label, (target.rows, target.item_index), place.astype(np.int8))
    return label


class Origin(NamedTuple):
    """An earlier cut of the training part.

    Attributes:
        log: what came before it.
        past: U rows of the same.
        future: U rows of what followed, for as long as after the main cut.
    """

    log: Interactions
    past: Histories
    future: Histories


def earlier_origins(
    learned: Interactions, histories: Histories, fraction: float, count: int
) -> list[Origin]:
    """Cuts in time before that of `Dataset.past_and_future`, the latest first.

    The main cut leaves a window until the end of the log. Each earlier one lies a third of it
    before the next, with a window as long; there are fewer where the log begins too late to leave
    an earlier one as much past as window.

    Args:
        learned: the training part.
        histories: the same, U rows.
        fraction: share of the events before the main cut.
        count: most of them, >= 0.
    """
    times = learned.frame[TIMESTAMP].to_physical()
    if times.is_empty() or count < 1:
        return []
    main = microseconds(cut_moment(learned, fraction))
    window = int(times.max()) + 1 - main  # type: ignore[arg-type]
    origins = []
    for number in range(1, count + 1):
        moment = main - number * window // _STEPS
        if moment - int(times.min()) < window:  # type: ignore[arg-type]
            break
        until = np.full(len(histories), moment + window, dtype=np.int64)
        past, future = histories.before(until).at_moment(moment)
        origins.append(Origin(learned.before(EPOCH + timedelta(microseconds=moment)), past, future))
    return origins


def rows_of_earlier(
    origins: Sequence[Origin],
    fit: Callable[[Histories], Sequence[Retriever]],
    ask: Callable[..., AskedPast],
    fold_of: np.ndarray,
    *,
    most: int,
    seed: int,
) -> tuple[RankingRows, np.ndarray] | None:
    """Candidates of earlier cuts, and the fold of each request.

    Args:
        origins: the cuts.
        fit: makes the retrievers of a past.
        ask: `ask_past` of retrievers, a cut and ``log``.
        fold_of: [U] fold of each user.
        most: see `thinned`.
        seed: of what is drawn.

    Returns:
        None without origins.
    """
    rng = np.random.default_rng(seed)
    parts, folds = list[RankingRows](), list[np.ndarray]()
    for origin in origins:
        cut = cut_histories(origin.past, origin.future, together=True)
        found = ask(fit(origin.past), cut, log=origin.log)
        parts.append(thinned(found.rows, most, rng))
        folds.append(fold_of[found.users])
    if not parts:
        return None
    return _joined(parts, [part.size for part in folds]), np.concatenate(folds)


def _joined(parts: Sequence[RankingRows], requests: Sequence[int]) -> RankingRows:
    """Rows of several sets of so many requests, which are numbered on."""
    first = np.cumsum([0, *requests])
    return RankingRows(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate(
            [part.request_index + before for part, before in zip(parts, first, strict=False)]
        ),
        parts[0].feature_names,
    )


def thinned(rows: RankingRows, most: int, rng: np.random.Generator) -> RankingRows:
    """What is wanted, and at most about ``most`` other candidates of each request, drawn.

    Requests without a wanted candidate are left out: nothing is to be learned of their order.
    """
    request = rows.request_index
    count = np.bincount(request, minlength=1)
    wanted = rows.label > 0
    kept = wanted | (rng.random(request.size) * count[request] < most)
    kept &= np.bincount(request, wanted, minlength=count.size)[request] > 0
    return rows.take(kept)


def fit_beside(
    fit: Fit,
    quality: Callable[[np.ndarray], float],
    rows: RankingRows,
    folds: np.ndarray,
    others: RankingRows,
    other_folds: np.ndarray,
) -> RankerFit:
    """A ranker that learns from other lists too and is judged on its own alone.

    Args:
        fit: makes a ranker of rows, the fold of each row and ``quality``.
        quality: of [R] scores of ``rows``, on held-out users.
        rows: candidates of Q requests.
        folds: [Q] fold of each.
        others: candidates of P other requests.
        other_folds: [P] fold of each; a user is in one fold whichever requests are theirs.

    Returns:
        With scores of ``rows`` alone.
    """
    own = rows.label.size
    both = _joined([rows, others], [folds.size])
    fold = np.concatenate([folds, other_folds])[both.request_index]
    found = fit(both, fold, lambda score: quality(score[:own]))
    return found._replace(held_out_first=found.held_out_first[:own], held_out=found.held_out[:own])
