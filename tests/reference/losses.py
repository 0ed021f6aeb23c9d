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


def kept_negatives(
    negative: Sequence[Vector],
    log_q: Vector | None,
    known_positive: Sequence[Sequence[bool]] | None,
    row: int,
) -> list[tuple[float, Vector]]:
    """How often each negative left to a row counts, and the negative."""
    count = [1.0] * len(negative)
    if log_q is not None:
        raw = [1 / math.exp(value) for value in log_q]
        count = [value * len(raw) / sum(raw) for value in raw]
    return [
        (count[j], n)
        for j, n in enumerate(negative)
        if known_positive is None or not known_positive[row][j]
    ]


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
    include_positive: bool = True,
    focal_gamma: float = 0.0,
    weight: Vector | None = None,
) -> float:
    """Negative j counts 1 / q_j, the counts scaled to mean 1; focal: (1 - p)^gamma."""
    weight = [1.0] * len(query) if weight is None else weight
    losses, weights = [], []
    for b, (q, c) in enumerate(zip(query, candidate, strict=True)):
        own = math.exp(dot(q, c) / temperature)
        others = sum(
            count * math.exp(dot(q, n) / temperature)
            for count, n in kept_negatives(negative, log_q, known_positive, b)
        )
        if include_positive or others:
            losses.append(-math.log(own / (own * include_positive + others)))
        else:
            losses.append(0.0)
        weights.append(weight[b] * (1 - min(1.0, math.exp(-losses[-1]))) ** focal_gamma)
    return weighted_mean(losses, weights)


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


def bsl(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    temperature: float = 1.0,
    negative_weight: float = 1.0,
    reduction: str = "sum",
    query_index: Sequence[int] | None = None,
    log_q: Vector | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Wu et al., ICDE 2024: -log(positive / negatives^w); "multi" averages a user's positives."""
    own = [math.exp(dot(q, c) / temperature) for q, c in zip(query, candidate, strict=True)]
    losses = []
    for b, q in enumerate(query):
        kept = kept_negatives(negative, log_q, known_positive, b)
        if not kept:
            losses.append(0.0)
            continue
        others = sum(count * math.exp(dot(q, n) / temperature) for count, n in kept)
        if reduction == "mean":
            others /= sum(count for count, _ in kept)
        rows = [b]
        if query_index is not None:
            rows += [
                a
                for a in range(len(query))
                if a != b and query_index[a] == query_index[b] and (weight is None or weight[a] > 0)
            ]
        positive = sum(own[a] for a in rows) / len(rows)
        losses.append(-math.log(positive / others**negative_weight))
    return weighted_mean(losses, weight)


def psl(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    sigma: str = "relu",
    temperature: float = 1.0,
    inner_temperature: float = 2.0,
    log_q: Vector | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Yang et al., NeurIPS 2024: log sum sigma(d)^(1 / temperature)."""
    surrogate = {
        "relu": lambda d: max(0.0, 1 + d),
        "tanh": lambda d: 1 + math.tanh(d),
        "atan": lambda d: max(0.0, 1 + math.atan(d)),
        "exp": math.exp,
    }[sigma]
    losses = []
    for b, (q, c) in enumerate(zip(query, candidate, strict=True)):
        total = sum(
            count * surrogate((dot(q, n) - dot(q, c)) / inner_temperature) ** (1 / temperature)
            for count, n in kept_negatives(negative, log_q, known_positive, b)
        )
        losses.append(math.log(total) if total else 0.0)
    return weighted_mean(losses, weight)


def sl_at_k(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    threshold: Vector,
    temperature: float = 1.0,
    threshold_temperature: float = 1.0,
    log_q: Vector | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Yang et al., KDD 2025: sigmoid((s - beta) / tau_w) * SL."""
    losses = []
    for b, (q, c) in enumerate(zip(query, candidate, strict=True)):
        loss = sampled_softmax(
            [q],
            [c],
            negative,
            temperature=temperature,
            log_q=log_q,
            known_positive=None if known_positive is None else [known_positive[b]],
            include_positive=False,
        )
        above = (dot(q, c) - threshold[b]) / threshold_temperature
        losses.append(loss / (1 + math.exp(-above)))
    return weighted_mean(losses, weight)


def ccl(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    margin: float,
    negative_weight: float,
    log_q: Vector | None = None,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Mao et al., CIKM 2021: (1 - s) + w * mean max(0, s_j - m)."""
    losses = []
    for b, (q, c) in enumerate(zip(query, candidate, strict=True)):
        kept = kept_negatives(negative, log_q, known_positive, b)
        push = sum(count * max(0.0, dot(q, n) - margin) for count, n in kept)
        mass = sum(count for count, _ in kept)
        losses.append(1 - dot(q, c) + (negative_weight * push / mass if mass else 0.0))
    return weighted_mean(losses, weight)


def mann_whitney(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    negative: Sequence[Vector],
    *,
    temperature: float = 1.0,
    known_positive: Sequence[Sequence[bool]] | None = None,
    weight: Vector | None = None,
) -> float:
    """Every positive against the negative scores of all queries."""
    scores = [
        dot(q, n)
        for b, q in enumerate(query)
        for _, n in kept_negatives(negative, None, known_positive, b)
    ]
    losses = [
        sum(math.log(1 + math.exp((s - dot(q, c)) / temperature)) for s in scores) / len(scores)
        for q, c in zip(query, candidate, strict=True)
    ]
    return weighted_mean(losses, weight)


def mawu(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    *,
    query_margin: Vector,
    candidate_margin: Vector,
    query_gamma: float,
    candidate_gamma: float,
    weight: Vector | None = None,
) -> float:
    """Park et al., CIKM 2023: -cos(angle + 1 - sigmoid(margins)), angle within [0, pi]."""
    losses = []
    for q, c, mq, mc in zip(query, candidate, query_margin, candidate_margin, strict=True):
        angle = math.acos(dot(unit(q), unit(c))) + 1 - 1 / (1 + math.exp(-(mq + mc)))
        losses.append(-math.cos(min(math.pi, angle)))
    return (
        weighted_mean(losses, weight)
        + query_gamma * uniformity(query, weight=weight)
        + candidate_gamma * uniformity(candidate, weight=weight)
    )


def calibrated_uniformity(
    vectors: Sequence[Vector],
    content: Sequence[Vector],
    *,
    t: float = 2.0,
    max_sim: float = 1.0,
    weight: Vector | None = None,
) -> float:
    """CM3: log mean exp(-t (distance^2 - 2 + 2 sim)), sim = cosine clamped to [0, max_sim]."""
    weight = [1.0] * len(vectors) if weight is None else weight
    rows, alike = [unit(v) for v in vectors], [unit(f) for f in content]
    total, pairs = 0.0, 0.0
    for a in range(len(rows)):
        for b in range(a + 1, len(rows)):
            sim = min(max_sim, max(0.0, dot(alike[a], alike[b])))
            distance = sum((x - y) ** 2 for x, y in zip(rows[a], rows[b], strict=True))
            total += weight[a] * weight[b] * math.exp(-t * (distance - 2 + 2 * sim))
            pairs += weight[a] * weight[b]
    return math.log(total / pairs)


def cm3(
    query: Sequence[Vector],
    candidate: Sequence[Vector],
    content: Sequence[Vector],
    *,
    gamma: float,
    max_sim: float = 1.0,
    weight: Vector | None = None,
) -> float:
    """DirectAU with the items' uniformity calibrated."""
    spread = uniformity(query, weight=weight) + calibrated_uniformity(
        candidate, content, max_sim=max_sim, weight=weight
    )
    return directau(query, candidate, 0.0, weight) + gamma * spread / 2


def top_k_threshold(
    query: Sequence[Vector],
    negative: Sequence[Vector],
    place: int,
    known_positive: Sequence[Sequence[bool]] | None = None,
) -> list[float]:
    """The score at a place of each query's sorted negatives."""
    found = []
    for b, q in enumerate(query):
        scores = sorted(
            (dot(q, n) for _, n in kept_negatives(negative, None, known_positive, b)),
            reverse=True,
        )
        found.append(scores[place - 1] if place <= len(scores) else -math.inf)
    return found
