"""Statistics of experiments as plain loops over units, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_and_variance(values: Sequence[float]) -> tuple[float, float]:
    """Mean and variance with n - 1 below."""
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / (len(values) - 1)


def ratio_and_error(top: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Ratio of sums and its standard error: var(y) - 2 R cov + R^2 var(x), over n mean(x)^2."""
    n = len(top)
    mean_y, var_y = mean_and_variance(top)
    mean_x, var_x = mean_and_variance(below)
    pairs = zip(top, below, strict=True)
    cov = sum((y - mean_y) * (x - mean_x) for y, x in pairs) / (n - 1)
    ratio = mean_y / mean_x
    variance = (var_y - 2 * ratio * cov + ratio**2 * var_x) / mean_x**2 / n
    return ratio, math.sqrt(variance)


def welch(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Difference b - a, its standard error, degrees of freedom (Satterthwaite)."""
    mean_a, var_a = mean_and_variance(a)
    mean_b, var_b = mean_and_variance(b)
    part_a, part_b = var_a / len(a), var_b / len(b)
    freedom = (part_a + part_b) ** 2 / (part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    return mean_b - mean_a, math.sqrt(part_a + part_b), freedom


def cuped(y: Sequence[float], x: Sequence[float], arm: Sequence[int]) -> list[float]:
    """y - theta (x - mean x), theta from sums of products within arms."""
    top = below = 0.0
    for one in set(arm):
        rows = [i for i in range(len(y)) if arm[i] == one]
        mean_y = sum(y[i] for i in rows) / len(rows)
        mean_x = sum(x[i] for i in rows) / len(rows)
        top += sum((y[i] - mean_y) * (x[i] - mean_x) for i in rows)
        below += sum((x[i] - mean_x) ** 2 for i in rows)
    mean = sum(x) / len(x)
    return [y[i] - top / below * (x[i] - mean) for i in range(len(y))]


def msprt_pairs(differences: Sequence[float], variance: float, tau: float) -> list[float]:
    """Lambda after each pair: sqrt(V / (V + n tau^2)) exp(n^2 tau^2 d^2 / (2 V (V + n tau^2)))."""
    found, total = [], 0.0
    for n, value in enumerate(differences, start=1):
        total += value
        d, wide = total / n, variance + n * tau**2
        found.append(
            math.sqrt(variance / wide) * math.exp(n**2 * tau**2 * d**2 / (2 * variance * wide))
        )
    return found


def holm(p: Sequence[float]) -> list[float]:
    """Step down: the i-th smallest times what is left, never below an earlier one."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, top = [0.0] * len(p), 0.0
    for step, i in enumerate(order):
        top = max(top, min(1.0, p[i] * (len(p) - step)))
        found[i] = top
    return found


def team_draft(
    a: Sequence[int], b: Sequence[int], k: int, a_first: Sequence[bool]
) -> tuple[list[int], list[int]]:
    """One query; ``a_first`` is the coin of each round."""
    items: list[int] = []
    team: list[int] = []
    for first in a_first:
        for who in (0, 1) if first else (1, 0):
            left = [item for item in (a, b)[who] if item >= 0 and item not in items]
            if left and len(items) < k:
                items.append(left[0])
                team.append(who)
    return items, team


def balanced(a: Sequence[int], b: Sequence[int], k: int, a_first: bool) -> list[int]:
    """One query (Joachims 2002): the list that is behind gives its next item."""
    items: list[int] = []
    at_a = at_b = 0
    while len(items) < k and (at_a < len(a) or at_b < len(b)):
        turn_a = at_a < at_b or (at_a == at_b and a_first)
        if (turn_a and at_a < len(a)) or at_b >= len(b):
            item, at_a = a[at_a], at_a + 1
        else:
            item, at_b = b[at_b], at_b + 1
        if item not in items:
            items.append(item)
    return items


def credit_balanced(
    items: Sequence[int], clicked: Sequence[bool], a: Sequence[int], b: Sequence[int]
) -> int:
    """Clicks in B's first r less those in A's, r the nearer rank of the lowest click."""
    places = [i for i, hit in enumerate(clicked) if hit]
    if not places:
        return 0
    last = items[places[-1]]
    ranks = [one.index(last) for one in (list(a), list(b)) if last in one]
    depth = min(ranks) + 1
    hits = [items[i] for i in places]
    return sum(item in b[:depth] for item in hits) - sum(item in a[:depth] for item in hits)
