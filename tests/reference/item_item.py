"""The linear item-item model as plain loops, float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Table = Sequence[Sequence[float]]


def degrees(x: Table) -> tuple[list[float], list[float]]:
    """Of users and of items: sums of squares."""
    users = [sum(cell**2 for cell in row) for row in x]
    items = [sum(row[item] ** 2 for row in x) for item in range(len(x[0]))]
    return users, items


def squares(x: Table, user_power: float) -> np.ndarray:
    """X' D_U^-user_power X."""
    users, _ = degrees(x)
    width = len(x[0])
    found = np.zeros((width, width))
    for row, degree in zip(x, users, strict=True):
        for i in range(width):
            for j in range(width):
                if degree > 0:
                    found[i, j] += row[i] * row[j] / degree**user_power
    return found


def penalty(x: Table, l2: float, dropout: float) -> list[float]:
    return [l2 + dropout / (1 - dropout) * degree for degree in degrees(x)[1]]


def rescaled(b: np.ndarray, x: Table, item_power: float) -> np.ndarray:
    """D_I^item_power B D_I^-item_power; an item nobody met has degree 1."""
    _, items = degrees(x)
    scale = [(degree if degree > 0 else 1.0) ** item_power for degree in items]
    found = np.zeros_like(b)
    for i in range(len(scale)):
        for j in range(len(scale)):
            found[i, j] = scale[i] * b[i, j] / scale[j]
    return found


def dan_ease(
    x: Table, *, l2: float, dropout: float = 0.0, item_power: float = 0.0, user_power: float = 0.0
) -> np.ndarray:
    """DAN-EASE (Park et al., SIGIR 2025); with l2 alone EASE (Steck, WWW 2019, equation 8)."""
    inverse = np.linalg.inv(squares(x, user_power) + np.diag(penalty(x, l2, dropout)))
    b = np.zeros_like(inverse)
    for i in range(len(inverse)):
        for j in range(len(inverse)):
            if i != j:
                b[i, j] = -inverse[i, j] / inverse[j, j]
    return rescaled(b, x, item_power)


def neighbour_ease(
    x: Table,
    neighbours: int,
    *,
    l2: float,
    dropout: float = 0.0,
    item_power: float = 0.0,
    user_power: float = 0.0,
) -> np.ndarray:
    """Each column's least squares on the items with the largest cosine to it, ties to the lower."""
    gram = squares(x, user_power)
    ridge = penalty(x, l2, dropout)
    b = np.zeros_like(gram)
    for j in range(len(gram)):
        cosine = {
            i: gram[i, j] / (gram[i, i] * gram[j, j]) ** 0.5
            for i in range(len(gram))
            if i != j and gram[i, j] > 0
        }
        chosen = sorted(cosine, key=lambda i: (-round(cosine[i], 6), i))[:neighbours]
        if chosen:
            inner = gram[np.ix_(chosen, chosen)] + np.diag([ridge[i] for i in chosen])
            b[chosen, j] = np.linalg.solve(inner, gram[chosen, j])
    return rescaled(b, x, item_power)
