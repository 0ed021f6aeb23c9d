"""STYLE 2.8 as plain loops over one user, float64; the fast metrics must agree with these.

Formulas: Manning, Raghavan and Schütze, Introduction to Information Retrieval, 2008, chapter 8
(precision, recall, average precision, reciprocal rank); Järvelin and Kekäläinen, TOIS 20(4), 2002
(discounted gain), with discount log2(rank + 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log2

Grades = Mapping[int, float]


def num_hits(items: Sequence[int], relevant: Grades, k: int) -> int:
    return sum(1 for item in items[:k] if relevant.get(item, 0) > 0)


def recall(items: Sequence[int], relevant: Grades, k: int) -> float:
    return num_hits(items, relevant, k) / len(relevant)


def capped_recall(items: Sequence[int], relevant: Grades, k: int) -> float:
    return num_hits(items, relevant, k) / min(len(relevant), k)


def precision(items: Sequence[int], relevant: Grades, k: int) -> float:
    return num_hits(items, relevant, k) / k


def hit_rate(items: Sequence[int], relevant: Grades, k: int) -> float:
    return float(num_hits(items, relevant, k) > 0)


def reciprocal_rank(items: Sequence[int], relevant: Grades, k: int) -> float:
    for rank, item in enumerate(items[:k], start=1):
        if item in relevant:
            return 1 / rank
    return 0.0


def average_precision(items: Sequence[int], relevant: Grades, k: int) -> float:
    total, hits = 0.0, 0
    for rank, item in enumerate(items[:k], start=1):
        if item in relevant:
            hits += 1
            total += hits / rank
    return total / min(len(relevant), k)


def _discounted(grades: Sequence[float], worth: Callable[[float], float]) -> float:
    return sum(worth(grade) / log2(rank + 1) for rank, grade in enumerate(grades, start=1))


def _ndcg(items: Sequence[int], relevant: Grades, k: int, worth: Callable[[float], float]) -> float:
    got = [relevant.get(item, 0.0) for item in items[:k]]
    best = sorted(relevant.values(), reverse=True)[:k]
    return _discounted(got, worth) / _discounted(best, worth)


def ndcg(items: Sequence[int], relevant: Grades, k: int) -> float:
    return _ndcg(items, relevant, k, lambda grade: grade)


def exponential_ndcg(items: Sequence[int], relevant: Grades, k: int) -> float:
    return _ndcg(items, relevant, k, lambda grade: 2**grade - 1)


METRICS: Mapping[str, Callable[[Sequence[int], Grades, int], float]] = {
    "recall": recall,
    "capped_recall": capped_recall,
    "precision": precision,
    "ndcg": ndcg,
    "exponential_ndcg": exponential_ndcg,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "hit_rate": hit_rate,
}
