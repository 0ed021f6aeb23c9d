"""How well one threshold over all users separates what was clicked from what was not.

Scores are [Q, K] as `recsys.topk.TopK` gives them: entries that are not finite are no candidates.
Everything is pooled over users, because a threshold is one number for all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["FilterReport", "filter_report", "pooled_auc", "threshold_at_recall"]


class FilterReport(NamedTuple):
    """What a threshold does to the candidates of many users.

    Attributes:
        auc: pooled AUC of the score, before any threshold.
        recall: share of the positives kept.
        precision: share of positives among the kept; 0 if nothing is kept.
        filtered_share: share of the candidates removed.
        empty_share: share of the users with candidates who are left with none: a guardrail.
    """

    auc: float
    recall: float
    precision: float
    filtered_share: float
    empty_share: float


def pooled_auc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a positive scores above a negative, over all users together; a tie counts half.

    Args:
        score: [Q, K] float, not finite = no candidate.
        label: [Q, K] bool.

    Raises:
        ValueError: shapes disagree, or positives or negatives are missing.
    """
    value, positive = _candidates(score, label)
    num_positives = int(positive.sum())
    num_negatives = len(positive) - num_positives
    if not num_positives or not num_negatives:
        raise ValueError(
            f"label must hold positives and negatives: got {num_positives} and {num_negatives}"
        )
    _, group, size = np.unique(value, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(size) - (size - 1) / 2.0  # ranks from 1, equal ones share theirs
    above = mean_rank[group][positive].sum() - num_positives * (num_positives + 1) / 2
    return float(above / (num_positives * num_negatives))


def threshold_at_recall(score: np.ndarray, label: np.ndarray, *, recall: float) -> float:
    """The highest threshold t for which ``score >= t`` keeps that share of the positives.

    Args:
        score: [Q, K] float, not finite = no candidate.
        label: [Q, K] bool.
        recall: share of the positives to keep, in (0, 1].

    Raises:
        ValueError: shapes disagree, there is no positive, or ``recall`` is out of range.
    """
    if not 0.0 < recall <= 1.0:
        raise ValueError(f"recall must be in (0, 1], got {recall}")
    value, positive = _candidates(score, label)
    kept = np.sort(value[positive])[::-1]
    if not len(kept):
        raise ValueError("label must hold a positive to keep, got none")
    return float(kept[math.ceil(recall * len(kept) - 1e-9) - 1])  # 1e-9: 0.95 * 20 is 19


def filter_report(score: np.ndarray, label: np.ndarray, threshold: float) -> FilterReport:
    """What remains of ``score >= threshold``; on users whom the threshold was not chosen on.

    Args:
        score: [Q, K] float, not finite = no candidate.
        label: [Q, K] bool.
        threshold: on the scale of ``score``.

    Raises:
        ValueError: see `pooled_auc`.
    """
    auc = pooled_auc(score, label)
    real = np.isfinite(score)
    kept = real & (score >= threshold)
    asked = real.any(axis=1)
    hits = int((kept & label).sum())
    return FilterReport(
        auc=auc,
        recall=hits / int((real & label).sum()),
        precision=hits / max(1, int(kept.sum())),
        filtered_share=1.0 - int(kept.sum()) / int(real.sum()),
        empty_share=float((asked & ~kept.any(axis=1)).sum() / asked.sum()),
    )


def _candidates(score: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if score.ndim != 2 or score.shape != label.shape or label.dtype != bool:
        raise ValueError(
            f"score and label must both be [Q, K] and label bool: got {score.shape} and "
            f"{label.dtype} of shape {label.shape}"
        )
    real = np.isfinite(score)
    return score[real], label[real]
