"""Checks that a ranking example could have been known at its own moment."""

from __future__ import annotations

import numpy as np

from features.tables import Histories
from recsys.errors import LeakageError
from recsys.ranking.ranker import RankingRows

__all__ = ["MAX_FEATURE_AUC", "check_feature_leakage", "check_time_leakage"]

MAX_FEATURE_AUC = 0.995


def check_time_leakage(
    histories: Histories, targets: Histories, fitted_on: Histories, moment: np.ndarray
) -> None:
    """Refuse examples whose inputs reach into their own future.

    Args:
        histories: Q rows, what the retrievers are asked with.
        targets: Q rows, what the labels are made of.
        fitted_on: Q rows, the same users' events that the retrievers were fitted on.
        moment: [Q] int64 microseconds since the epoch, when the question is asked.

    Raises:
        LeakageError: a history event is not strictly before the moment, a target event is before
            it, or a target event is among those the retrievers were fitted on; says how many and
            the first.
    """
    late = histories.timestamp >= np.repeat(moment, histories.counts)
    if bool(late.any()):
        raise LeakageError(
            f"{int(late.sum())} history events are at or after the moment of their example, first: "
            f"{_first(histories, late)}; cut the history before the moment"
        )
    # A tie with the history's last event moves the moment one microsecond past both.
    early = targets.timestamp < np.repeat(moment, targets.counts) - 1
    if bool(early.any()):
        raise LeakageError(
            f"{int(early.sum())} targets are before the moment of their example, first: "
            f"{_first(targets, early)}; the split is not in time order"
        )
    known = _keys(fitted_on)
    leaked = np.isin(_keys(targets), known)
    if bool(leaked.any()):
        raise LeakageError(
            f"{int(leaked.sum())} targets are among the events the retrievers were fitted on, "
            f"first: {_first(targets, leaked)}; fit them on the histories only"
        )


def check_feature_leakage(rows: RankingRows, *, max_auc: float = MAX_FEATURE_AUC) -> None:
    """Refuse a feature that separates the labels (almost) perfectly: it was made from them.

    The AUC of a feature is taken within requests (a pair of rows of one request) and both ways
    round; missing values count as a value of their own.

    Args:
        rows: training rows.
        max_auc: largest believable AUC, in (0.5, 1].

    Raises:
        LeakageError: names the features and their AUC.
    """
    found = {}
    for column, name in enumerate(rows.feature_names):
        auc = _auc_within(rows.features[:, column], rows.label > 0, rows.request_index)
        if max(auc, 1.0 - auc) > max_auc:
            found[name] = auc
    if found:
        listed = ", ".join(f"{name} (AUC {auc:.4f})" for name, auc in found.items())
        raise LeakageError(
            f"features that tell the label from the rest almost perfectly: {listed}; nothing known "
            "before the moment does that, so they hold the target: compute them point-in-time"
        )


def _auc_within(value: np.ndarray, positive: np.ndarray, request_index: np.ndarray) -> float:
    """AUC over the pairs of one request, pooled; 0.5 where there is no pair."""
    value = np.where(np.isfinite(value), value, np.float32(np.finfo(np.float32).min))
    _, query = np.unique(request_index, return_inverse=True)
    order = np.lexsort((value, query))
    q, v, y = query[order], value[order], positive[order].astype(np.float64)
    new_tie = np.ones(q.size, dtype=bool)
    new_tie[1:] = (q[1:] != q[:-1]) | (v[1:] != v[:-1])
    tie = np.cumsum(new_tie) - 1
    place = np.arange(q.size, dtype=np.float64)
    mean_place = np.bincount(tie, place) / np.bincount(tie)  # ties share the mean of their places
    start = np.searchsorted(q, np.arange(query.max() + 1 if query.size else 0))
    rank = mean_place[tie] - start[q]
    positives = np.bincount(q, y)
    negatives = np.bincount(q) - positives
    rank_sum = np.bincount(q, rank * y)
    wins = rank_sum - positives * (positives - 1) / 2
    pairs = float((positives * negatives).sum())
    return float(wins.sum() / pairs) if pairs > 0 else 0.5


def _first(events: Histories, marked: np.ndarray) -> str:
    """Where the first of the ``marked`` [E] events stands."""
    event = int(np.argmax(marked))
    return f"row {int(events.rows[event])}, item {int(events.item_index[event])}"


def _keys(histories: Histories) -> np.ndarray:
    """[E] one structured value per (row, item, time)."""
    keys = np.empty(
        histories.rows.size, dtype=[("row", np.int64), ("item", np.int64), ("time", np.int64)]
    )
    keys["row"], keys["item"] = histories.rows, histories.item_index
    keys["time"] = histories.timestamp
    return keys
