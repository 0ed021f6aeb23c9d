"""Retrievers as plain loops, float64; the fast ones must agree with these.

A history is a list of (item, time in microseconds, weight), oldest first; items are 1..N. Scores
are lists of N + 1. Formulas: Kim et al. (SIGIR 2025), Christoffel et al. (RecSys 2015), Breese et
al. (UAI 1998), and those of the retrievers' own docstrings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Event = tuple[int, int, float]
History = Sequence[Event]


def cells(log: Sequence[History], num_items: int) -> list[list[float]]:
    """[U][N + 1] root of the largest weight of a cell, in terms of the mean weight."""
    weights = [weight for history in log for _, _, weight in history]
    mean = math.fsum(weights) / len(weights)
    made = [[0.0] * (num_items + 1) for _ in log]
    for row, history in zip(made, log, strict=True):
        for item, _, weight in history:
            row[item] = max(row[item], math.sqrt(weight / mean))
    return made


def asked(history: History, num_items: int, half_life: float | None) -> list[float]:
    """[N + 1] sum of the weights of an item's events, each halved every ``half_life`` events."""
    made = [0.0] * (num_items + 1)
    for age, (item, _, weight) in enumerate(reversed(history)):
        made[item] += weight * (1.0 if half_life is None else 0.5 ** (age / half_life))
    return made


def chebyshev_weights(degree: int, plateau: float) -> list[float]:
    wanted = []
    for j in range(degree + 1):
        p = round(math.cos((degree - j) / degree * math.pi), 3)
        wanted.append(round(0.5 * (-p) ** plateau + 0.5 if p < 0 else 0.5 - 0.5 * p**plateau, 3))
    found = []
    for k in range(degree + 1):
        total = 0.0
        for j in range(1, degree + 2):
            root = math.cos((degree + 1 + 0.5 - j) / (degree + 1) * math.pi)
            total += wanted[j - 1] * math.cos(k * math.acos(root))
        found.append(2 / (degree + 1) * total)
    found[0] /= 2
    return found


def graph_filter(
    log: Sequence[History],
    history: Sequence[float],
    *,
    degree: int,
    plateau: float,
    rank: int,
    ideal_weight: float,
    degree_power: float,
) -> list[float]:
    """Scores of an asked history [N + 1]; the operators are dense matrices."""
    matrix = np.array(cells(log, len(history) - 1))
    users, width = matrix.shape
    of_user = [math.fsum(row) for row in matrix]
    of_item = [math.fsum(column) for column in matrix.T]
    scaled = np.zeros_like(matrix)
    for u in range(users):
        for i in range(width):
            if matrix[u, i]:
                scaled[u, i] = matrix[u, i] / math.sqrt(of_user[u] * of_item[i])
    signal = np.array(
        [x * d**-degree_power if d else 0.0 for x, d in zip(history, of_item, strict=True)]
    )
    operator = np.eye(width) - 2 * scaled.T @ scaled
    bases = [signal, operator @ signal]
    while len(bases) <= degree:
        bases.append(2 * operator @ bases[-1] - bases[-2])
    score = np.zeros(width)
    for weight, base in zip(chebyshev_weights(degree, plateau), bases, strict=False):
        score += weight * base
    _, value, vectors = np.linalg.svd(scaled)
    for place in range(min(rank, users - 1, width - 2)):
        if value[place] ** 2 > 1e-6 * value[0] ** 2:
            score += ideal_weight * (vectors[place] @ signal) * vectors[place]
    return [float(s) * d**degree_power if d else 0.0 for s, d in zip(score, of_item, strict=True)]


def rp3beta(
    log: Sequence[History],
    history: Sequence[float],
    *,
    power: float,
    popularity_power: float,
    neighbours: int,
) -> list[float]:
    matrix = cells(log, len(history) - 1)
    width = len(history)
    of_user = [math.fsum(row) for row in matrix]
    of_item = [math.fsum(row[i] for row in matrix) for i in range(width)]
    score = [0.0] * width
    for i in range(1, width):
        reached = []
        for j in range(1, width):
            chance = math.fsum(
                (row[i] / of_item[i]) ** power * (row[j] / of_user[u]) ** power
                for u, row in enumerate(matrix)
                if row[i] and row[j]
            )
            if j != i and chance:
                reached.append((-chance * of_item[j] ** -popularity_power, j))
        for negative, j in sorted(reached)[:neighbours]:
            score[j] -= history[i] * negative
    return score


def user_knn(log: Sequence[History], history: Sequence[float], *, neighbours: int) -> list[float]:
    matrix = cells(log, len(history) - 1)
    width = len(history)
    met = [sum(row[i] > 0 for row in matrix) for i in range(width)]
    rarity = [math.log(1 + len(matrix) / max(1, number)) for number in met]
    own = [x * f for x, f in zip(history, rarity, strict=True)]
    near = []
    for u, row in enumerate(matrix):
        if all(history[i] for i in range(width) if row[i]):
            continue
        other = [x * f for x, f in zip(row, rarity, strict=True)]
        product = math.fsum(a * b for a, b in zip(own, other, strict=True))
        if product > 0:
            near.append((-product / math.hypot(*own) / math.hypot(*other), u))
    score = [0.0] * width
    for negative, u in sorted(near)[:neighbours]:
        for i in range(width):
            score[i] -= negative * matrix[u][i]
    return score


def counted(log: Sequence[History], num_items: int, begin: float, end: float) -> list[float]:
    """[N + 1] weight of the events at ``begin <= time < end``."""
    found = [0.0] * (num_items + 1)
    for history in log:
        for item, time, weight in history:
            if begin <= time < end:
                found[item] += weight
    return found


def trending(
    log: Sequence[History], num_items: int, moment: int, *, window_us: int, past_us: int
) -> list[float]:
    newest = counted(log, num_items, moment - window_us, moment)
    past = counted(log, num_items, moment - window_us - past_us, moment - window_us)
    growth = sum(newest) / sum(past) if sum(past) else 0.0
    return [(n - growth * p) / math.sqrt(growth * p + 1) for n, p in zip(newest, past, strict=True)]


def popular_in_category(
    log: Sequence[History],
    history: Sequence[float],
    category: Sequence[int],
    moment: int,
    *,
    window_us: int,
) -> list[float]:
    num_items = len(history) - 1
    window = counted(log, num_items, moment - window_us, moment)
    ever = counted(log, num_items, -math.inf, moment)
    popular = [w + e / (sum(ever) + 1) for w, e in zip(window, ever, strict=True)]
    score = [0.0] * (num_items + 1)
    for i in range(1, num_items + 1):
        alike = [j for j in range(1, num_items + 1) if category[j] == category[i]]
        of_category = math.fsum(popular[j] for j in alike)
        if of_category:
            liked = math.fsum(history[j] for j in alike)
            share = (liked + of_category / sum(popular)) / (sum(history) + 1)
            score[i] = share * popular[i] / of_category
    return score
