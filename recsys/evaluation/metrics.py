"""Ranking metrics under one written convention.

Relevance metrics give one number per user who has a relevant item; the mean over users is the
caller's. List metrics look at what was recommended, not at whether it was right. All rank the
full catalogue, ranks count from 1, and ``k`` may not exceed the length of the lists (a list that
ran out of items is padded with -1 and counts as wrong in the places it did not fill).

Names such as "recall@20" are read by `parse_metric` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from recsys.errors import ConfigError
from recsys.evaluation.popularity import checked_popularity, head_items, self_information
from recsys.evaluation.truth import Judged, check_lists
from recsys.lookup import lookup

__all__ = [
    "LIST_METRICS",
    "USER_METRICS",
    "ListMetric",
    "MetricName",
    "UserMetric",
    "average_precision",
    "capped_recall",
    "coverage",
    "head_share",
    "hit_rate",
    "ndcg",
    "novelty",
    "parse_metric",
    "precision",
    "recall",
    "reciprocal_rank",
]

UserMetric = Callable[[Judged, int], np.ndarray]
ListMetric = Callable[[np.ndarray, int, np.ndarray], float]


def recall(judged: Judged, k: int) -> np.ndarray:
    """[U] hits in the first k / number of relevant items."""
    values: np.ndarray = _hits(judged, k).sum(axis=1) / judged.num_relevant
    return values


def capped_recall(judged: Judged, k: int) -> np.ndarray:
    """[U] hits in the first k / min(number of relevant items, k)."""
    values: np.ndarray = _hits(judged, k).sum(axis=1) / np.minimum(judged.num_relevant, k)
    return values


def precision(judged: Judged, k: int) -> np.ndarray:
    """[U] hits in the first k / k, also where fewer than k items were returned."""
    values: np.ndarray = _hits(judged, k).sum(axis=1) / k
    return values


def hit_rate(judged: Judged, k: int) -> np.ndarray:
    """[U] 1.0 where at least one of the first k is relevant."""
    return np.where(_hits(judged, k).any(axis=1), 1.0, 0.0)


def reciprocal_rank(judged: Judged, k: int) -> np.ndarray:
    """[U] 1 / rank of the first hit, 0 where there is none in the first k."""
    hits = _hits(judged, k)
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1.0), 0.0)


def average_precision(judged: Judged, k: int) -> np.ndarray:
    """[U] sum of precision@rank over the ranks of the hits / min(number of relevant items, k)."""
    hits = _hits(judged, k)
    at_rank = np.cumsum(hits, axis=1) / np.arange(1, k + 1)  # [U, k]
    total = (at_rank * hits).sum(axis=1)
    values: np.ndarray = total / np.minimum(judged.num_relevant, k)
    return values


def ndcg(
    judged: Judged, k: int, *, gain: Literal["linear", "exponential"] = "linear"
) -> np.ndarray:
    """[U] discounted gain of the first k / that of the best possible first k.

    Args:
        judged: lists joined to their truth.
        k: places counted.
        gain: "linear": an item is worth its grade; "exponential": 2^grade - 1. The discount of a
            rank is log2(rank + 1). Without grades the two are the same.

    Raises:
        ValueError: ``gain`` is something else, or k is out of range.

    Source: Järvelin and Kekäläinen, TOIS 20(4), 2002; exponential gain: Burges et al., ICML 2005.
    """
    if gain not in ("linear", "exponential"):
        raise ValueError(f"gain must be 'linear' or 'exponential', got {gain!r}")
    _check_k(k, judged.grade.shape[1])
    got, best = judged.grade[:, :k], judged.ideal[:, :k]
    if gain == "exponential":
        got, best = np.exp2(got) - 1.0, np.exp2(best) - 1.0
    discount = 1.0 / np.log2(np.arange(2, k + 2))  # [k]
    values: np.ndarray = (got * discount).sum(axis=1) / (best * discount).sum(axis=1)
    return values


def coverage(item_index: np.ndarray, k: int, popularity: np.ndarray) -> float:
    """Share of the catalogue's N items that stand in the first k of at least one list.

    Args:
        item_index: [Q, K] lists, -1 = nothing.
        k: places counted.
        popularity: [N + 1] training counts; only N is used.
    """
    shown, counts = _shown(item_index, k, popularity)
    return float(np.unique(shown[shown >= 1]).size / (counts.size - 1))


def novelty(item_index: np.ndarray, k: int, popularity: np.ndarray) -> float:
    """Mean self-information in bits of the first k: the rarer in training, the higher.

    The mean over each list's items, then over the lists that are not empty; 0 if all are.

    Args:
        item_index: [Q, K] lists, -1 = nothing.
        k: places counted.
        popularity: [N + 1] training counts; see `self_information`.
    """
    shown, counts = _shown(item_index, k, popularity)
    return _mean_of_lists(shown, self_information(counts))


def head_share(item_index: np.ndarray, k: int, popularity: np.ndarray) -> float:
    """Share of the first k that is head (see `head_items`), mean over lists not empty.

    Args:
        item_index: [Q, K] lists, -1 = nothing.
        k: places counted.
        popularity: [N + 1] training counts.
    """
    shown, counts = _shown(item_index, k, popularity)
    return _mean_of_lists(shown, head_items(counts).astype(np.float64))


USER_METRICS: Mapping[str, UserMetric] = {
    "recall": recall,
    "capped_recall": capped_recall,
    "precision": precision,
    "ndcg": ndcg,
    "exponential_ndcg": partial(ndcg, gain="exponential"),
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}
LIST_METRICS: Mapping[str, ListMetric] = {
    "coverage": coverage,
    "novelty": novelty,
    "head_share": head_share,
}


class MetricName(NamedTuple):
    """A metric and its cutoff.

    Attributes:
        name: a key of `USER_METRICS` or `LIST_METRICS`.
        k: places counted, >= 1.
    """

    name: str
    k: int

    def __str__(self) -> str:
        return f"{self.name}@{self.k}"

    @property
    def is_per_user(self) -> bool:
        """Whether it has one number per user (`USER_METRICS`)."""
        return self.name in USER_METRICS


def parse_metric(text: str) -> MetricName:
    """Read "recall@20".

    >>> parse_metric("recall@20")
    MetricName(name='recall', k=20)

    Raises:
        ConfigError: not of the form name@k with k >= 1, or an unknown name.
    """
    name, at, cutoff = text.partition("@")
    lookup({**USER_METRICS, **LIST_METRICS}, name, "metric")
    if not at or not cutoff.isascii() or not cutoff.isdigit() or int(cutoff) < 1:
        raise ConfigError(f"a metric must read like {name}@20 with a cutoff >= 1, got {text!r}")
    return MetricName(name, int(cutoff))


def _check_k(k: int, width: int) -> None:
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    if k > width:
        raise ValueError(
            f"k must not exceed the length of the lists: got {k} for lists of {width}; recommend "
            "at least k items"
        )


def _hits(judged: Judged, k: int) -> np.ndarray:
    """[U, k] bool."""
    _check_k(k, judged.grade.shape[1])
    hits: np.ndarray = judged.grade[:, :k] > 0
    return hits


def _shown(item_index: np.ndarray, k: int, popularity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[Q, k] item indices and [N + 1] counts, checked."""
    counts = checked_popularity(popularity)
    check_lists(item_index)
    _check_k(k, item_index.shape[1])
    largest = int(item_index.max(initial=0))
    if largest >= counts.size:
        raise ValueError(
            f"popularity must cover every recommended item: got {counts.size} rows for item index "
            f"{largest}"
        )
    return item_index[:, :k], counts


def _mean_of_lists(shown: np.ndarray, value: np.ndarray) -> float:
    present = shown >= 1
    length = present.sum(axis=1)
    filled = length > 0
    if not filled.any():
        return 0.0
    total = np.where(present, value[np.maximum(shown, 0)], 0.0).sum(axis=1)
    return float(np.mean(total[filled] / length[filled]))
