"""Off-policy estimators as plain loops over rounds, float64; slow and meant to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def replay(agrees: Sequence[bool], reward: Sequence[float]) -> float:
    accepted = [r for same, r in zip(agrees, reward, strict=True) if same]
    return mean(accepted)


def weighted(
    weight: Sequence[float], reward: Sequence[float], shape: Callable[[float], float]
) -> float:
    """IPS with every weight put through ``shape``."""
    return mean([shape(w) * r for w, r in zip(weight, reward, strict=True)])


def snips(weight: Sequence[float], reward: Sequence[float]) -> float:
    total = math.fsum(w * r for w, r in zip(weight, reward, strict=True))
    return total / math.fsum(weight)


def dr(
    weight: Sequence[float],
    reward: Sequence[float],
    predicted: Sequence[float],
    expected: Sequence[float],
    shape: Callable[[float], float],
) -> float:
    rows = zip(weight, reward, predicted, expected, strict=True)
    return mean([v + shape(w) * (r - q) for w, r, q, v in rows])


def sndr(
    weight: Sequence[float],
    reward: Sequence[float],
    predicted: Sequence[float],
    expected: Sequence[float],
) -> float:
    rows = list(zip(weight, reward, predicted, strict=True))
    return mean(expected) + math.fsum(w * (r - q) for w, r, q in rows) / math.fsum(weight)


def marginal_weight(
    action: int, logging: Sequence[float], target: Sequence[float], cell: Sequence[int]
) -> float:
    """Of one round: probability of the logged cell under either policy."""
    same = [a for a in range(len(cell)) if cell[a] == cell[action]]
    return math.fsum(target[a] for a in same) / math.fsum(logging[a] for a in same)


def clustered_error(contribution: Sequence[float], unit: Sequence[int]) -> float:
    """Standard error of a mean whose rounds come in independent units."""
    centre, n = mean(contribution), len(contribution)
    totals: dict[int, float] = {}
    for value, one in zip(contribution, unit, strict=True):
        totals[one] = totals.get(one, 0.0) + value - centre
    units = len(totals)
    return math.sqrt(units / (units - 1) * math.fsum(t * t for t in totals.values())) / n


def slope(values: Sequence[float], half: Sequence[float]) -> int:
    """The narrowest among the candidates before the first that disagrees with an earlier one."""
    kept = [0]
    for i in range(1, len(values)):
        allowed = [half[i] + (math.sqrt(6) - 1) * half[j] for j in kept]
        if any(abs(values[i] - values[j]) > limit for j, limit in zip(kept, allowed, strict=True)):
            break
        kept.append(i)
    return min(kept, key=lambda i: half[i])
