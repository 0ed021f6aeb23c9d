"""Training losses as plain loops over examples, float64."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = Sequence[float]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a: Vector) -> list[float]:
    length = math.sqrt(dot(a, a))
    return [x / length for x in a]


def weighted_mean(values: Sequence[float], weight: Sequence[float] | None) -> float:
    weight = [1.0] * len(values) if weight is None else weight
    return sum(v * w for v, w in zip(values, weight, strict=True)) / sum(weight)


def bpr(positive: Vector, negative: Vector, weight: Vector | None = None) -> float:
    """-log sigmoid(positive - negative); Rendle et al., UAI 2009."""
    losses = [
        -math.log(1 / (1 + math.exp(-(p - n)))) for p, n in zip(positive, negative, strict=True)
    ]
    return weighted_mean(losses, weight)


def sampled_softmax(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    temperature: float = 1.0,
    log_q: Vector | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Negative j counts 1 / q_j, the counts scaled to mean 1."""
    count = [1.0] * len(negative)
    if log_q is not None:
        raw = [1 / math.exp(value) for value in log_q]
        count = [value * len(raw) / sum(raw) for value in raw]
    losses = []
    for b, (q, c) in enumerate(zip(query, candidate, strict=True)):
        own = math.exp(dot(q, c) / temperature)
        others = 0.0
        for j, n in enumerate(negative):
            if known_positive is None or not known_positive[b][j]:
                others += count[j] * math.exp(dot(q, n) / temperature)
        losses.append(-math.log(own / (own + others)))
    return weighted_mean(losses, weight)


def in_batch_softmax(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    *,
    temperature: float = 1.0,
    log_q: Vector | None = None,
    candidate_index: Sequence[int] | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Yi et al., RecSys 2019: s(x, y) - log p(y) inside the softmax, for every candidate."""
    losses = []
    for b, q in enumerate(query):
        mass = []
        for c, vector in enumerate(candidate):
            correction = 0.0 if log_q is None else log_q[c]
            mass.append(math.exp(dot(q, vector) / temperature - correction))
        kept = 0.0
        for c, value in enumerate(mass):
            same = candidate_index is not None and candidate_index[b] == candidate_index[c]
            known = known_positive is not None and known_positive[b][c]
            if c == b or not (same or known):
                kept += value
        losses.append(-math.log(mass[b] / kept))
    return weighted_mean(losses, weight)


def uniformity(vectors: Sequence[Vector], t: float = 2.0, weight: Vector | None = None) -> float:
    """Wang & Isola, ICML 2020: log of the mean over distinct pairs of exp(-t distance^2)."""
    weight = [1.0] * len(vectors) if weight is None else weight
    rows = [unit(v) for v in vectors]
    total, pairs = 0.0, 0.0
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            distance = sum((x - y) ** 2 for x, y in zip(rows[a], rows[b], strict=True))
            total += weight[a] * weight[b] * math.exp(-t * distance)
            pairs += weight[a] * weight[b]
    return math.log(total / pairs)


def directau(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    gamma: float,
    weight: Vector | None = None,
) -> float:
    """Wang et al., KDD 2022, with the official code's half in front of the uniformities."""
    apart = [
        sum((x - y) ** 2 for x, y in zip(unit(q), unit(c), strict=True))
        for q, c in zip(query, candidate, strict=True)
    ]
    spread = uniformity(query, weight=weight) + uniformity(candidate, weight=weight)
    return weighted_mean(apart, weight) + gamma * spread / 2
