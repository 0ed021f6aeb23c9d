"""Slate estimators and policies as plain loops, float64; the fast ones must agree with these.

Formulas: methods of McInerney et al. (KDD 2020), Li et al. (KDD 2018), Swaminathan et al. (NeurIPS
2017) and Kiyohara et al. (WSDM 2022), one round and one place at a time. -1 ends a slate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

Next = Callable[[tuple[int, ...]], list[float]]  # P(item | items above)


def plackett_luce(score: Sequence[float], temperature: float) -> Next:
    def chance(above: tuple[int, ...]) -> list[float]:
        mass = [0.0 if a in above else math.exp(s / temperature) for a, s in enumerate(score)]
        return [one / math.fsum(mass) for one in mass]

    return chance


def factored(probability: Sequence[Sequence[float]]) -> Next:
    return lambda above: list(probability[len(above)])


def slates(chance: Next, slots: int, items: int) -> dict[tuple[int, ...], float]:
    """Every slate and its probability."""
    found = {}
    for slate in itertools.product(range(items), repeat=slots):
        p = 1.0
        for slot, item in enumerate(slate):
            p *= chance(slate[:slot])[item]
            if p == 0.0:
                break
        if p > 0.0:
            found[slate] = p
    return found


def marginals(chance: Next, slots: int, items: int) -> list[list[float]]:
    table = [[0.0] * items for _ in range(slots)]
    for slate, p in slates(chance, slots, items).items():
        for slot, item in enumerate(slate):
            table[slot][item] += p
    return table


def value(
    chance: Next, slots: int, items: int, reward: Callable[[tuple[int, ...]], list[float]]
) -> float:
    """Expected sum of the rewards of a slate."""
    return math.fsum(p * sum(reward(s)) for s, p in slates(chance, slots, items).items())


def lengths(action: Sequence[Sequence[int]]) -> list[int]:
    return [sum(1 for a in row if a >= 0) for row in action]


def standard(action, reward, propensity, target, normalise):  # type: ignore[no-untyped-def]
    top, weights = 0.0, 0.0
    for t, size in enumerate(lengths(action)):
        w = 1.0
        for k in range(size):
            w *= target[t][k] / propensity[t][k]
        top += w * sum(reward[t][k] for k in range(size))
        weights += w
    return top / (weights if normalise else len(action))


def reward_interaction(action, reward, propensity, target, normalise):  # type: ignore[no-untyped-def]
    slots = len(action[0])
    top, weights = [0.0] * slots, [0.0] * slots
    for t, size in enumerate(lengths(action)):
        w = 1.0
        for k in range(slots):
            if k < size:
                w *= target[t][k] / propensity[t][k]
                top[k] += w * reward[t][k]
            weights[k] += w
    return sum(a / (b if normalise else len(action)) for a, b in zip(top, weights, strict=True))


def independent(action, reward, target, logging, normalise):  # type: ignore[no-untyped-def]
    slots = len(action[0])
    top, weights = [0.0] * slots, [0.0] * slots
    for t, size in enumerate(lengths(action)):
        for k in range(slots):
            w = target[t][k] / logging[t][k] if k < size else 1.0
            weights[k] += w
            if k < size:
                top[k] += w * reward[t][k]
    return sum(a / (b if normalise else len(action)) for a, b in zip(top, weights, strict=True))


def short_pseudo_inverse(action, reward, target, logging, normalise):  # type: ignore[no-untyped-def]
    """Marginals [n][L][K]."""
    top, weights = 0.0, 0.0
    for t, slate in enumerate(action):
        w = 1.0 - len(slate)
        for k, a in enumerate(slate):
            w += target[t][k][a] / logging[t][k][a]
        top += w * sum(reward[t])
        weights += w
    return top / (weights if normalise else len(action))


def pseudo_inverse(action, reward, target: list[Next], logging: list[Next], items, normalise):  # type: ignore[no-untyped-def]
    top, weights = 0.0, 0.0
    for t, slate in enumerate(action):
        slots = len(slate)
        moment = np.zeros((slots * items, slots * items))
        for shown, p in slates(logging[t], slots, items).items():
            for j, a in enumerate(shown):
                for k, b in enumerate(shown):
                    moment[j * items + a, k * items + b] += p
        q = np.array(marginals(target[t], slots, items)).ravel()
        v = q @ np.linalg.pinv(moment, rcond=1e-11)
        w = sum(float(v[k * items + a]) for k, a in enumerate(slate))
        top += w * sum(reward[t])
        weights += w
    return top / (weights if normalise else len(action))


def cascade_dr(action, reward, propensity, target, shown_value, expected_value):  # type: ignore[no-untyped-def]
    total = 0.0
    for t, size in enumerate(lengths(action)):
        above = 1.0
        for k in range(size):
            w = above * target[t][k] / propensity[t][k]
            total += w * (reward[t][k] - shown_value[t][k]) + above * expected_value[t][k]
            above = w
    return total / len(action)
