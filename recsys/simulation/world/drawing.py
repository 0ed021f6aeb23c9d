"""Many slates drawn at once, with exact propensities: `recsys.ranking.exploration` for a block.

Candidates of a row stand best first, so a place is a rank from 0. The propensity of a place is
``P(item at this place | items above it)``, as there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recsys.config.experiment_design import DRAWING, ArmSettings

__all__ = ["DrawnSlates", "draw_slates", "rank_marginals"]


class DrawnSlates(NamedTuple):
    """Slates of n rows.

    Attributes:
        rank: [n, k] int64 ranks of the items among the row's candidates, 0 = its best.
        propensity: [n, k] float64 in (0, 1].
    """

    rank: np.ndarray
    propensity: np.ndarray


def draw_slates(
    settings: ArmSettings, score: np.ndarray, k: int, rng: np.random.Generator
) -> DrawnSlates:
    """A slate for each row, as the arm's ranker draws it.

    Args:
        settings: of the arm; a ranker that does not draw gives the first k.
        score: [n, M] never rising along a row; read by "softmax" alone.
        k: places, 1..M.
        rng: draws.

    Raises:
        ValueError: k is out of range.
    """
    n, width = score.shape
    if not 1 <= k <= width:
        raise ValueError(f"k must be in 1..{width}, the candidates of a row, got {k}")
    if settings.ranker not in DRAWING:
        return DrawnSlates(np.tile(np.arange(k), (n, 1)), np.ones((n, k)))
    m = min(int(settings.drawn_with("top")), width)
    if settings.ranker == "shuffle":
        drawn = _shuffled(n, m, min(k, m), rng)
    elif settings.ranker == "epsilon":
        drawn = _epsilon(n, m, min(k, m), settings.drawn_with("epsilon"), rng)
    else:
        logit = score[:, :m].astype(np.float64) / settings.drawn_with("temperature")
        drawn = _plackett_luce(logit, min(k, m), rng)
    if k <= m:
        return drawn
    rest = np.tile(np.arange(m, k), (n, 1))
    return DrawnSlates(
        np.concatenate([drawn.rank, rest], axis=1),
        np.concatenate([drawn.propensity, np.ones(rest.shape)], axis=1),
    )


def rank_marginals(settings: ArmSettings, width: int, k: int) -> np.ndarray:
    """[width, k] float64 P(the item of a rank stands at a place), whatever stands above.

    Exact. Columns sum to 1. Of rankers that draw by rank alone, so not of "softmax".

    Under "epsilon", while an item of rank r is not shown, the future depends on the number of
    better ones shown alone: one recursion over places and that number.

    Args:
        settings: of the arm.
        width: M, candidates of a row.
        k: places, 1..M.

    Raises:
        ValueError: the ranker draws by score, or k is out of range.
    """
    if settings.ranker == "softmax":
        raise ValueError(
            "ranker must draw by rank alone for exact marginals, got 'softmax'; use epsilon or "
            "shuffle"
        )
    if not 1 <= k <= width:
        raise ValueError(f"k must be in 1..{width}, the candidates of a row, got {k}")
    marginal = np.zeros((width, k))
    if settings.ranker not in DRAWING:
        marginal[np.arange(k), np.arange(k)] = 1.0
        return marginal
    m = min(int(settings.drawn_with("top")), width)
    epsilon = 1.0 if settings.ranker == "shuffle" else settings.drawn_with("epsilon")
    rank, shown = np.arange(m)[:, None], np.arange(m)[None, :]  # [m, 1], [1, m]
    better_left = np.maximum(rank - shown, 0)  # [m, m]
    state = np.zeros((m, m))  # P(not shown yet, this many better ones shown)
    state[:, 0] = 1.0
    for place in range(min(k, m)):
        left = m - place
        is_best = shown == rank
        drawn = epsilon / left + (1.0 - epsilon) * is_best
        marginal[:m, place] = (state * drawn).sum(axis=1)
        better = epsilon * better_left / left + (1.0 - epsilon) * (better_left > 0)
        worse = epsilon * np.maximum(left - 1 - better_left, 0) / left
        moved = np.zeros_like(state)
        moved[:, 1:] = (state * better)[:, :-1]
        state = state * worse + moved
    marginal[np.arange(m, k), np.arange(m, k)] = 1.0
    return marginal


def _shuffled(n: int, m: int, k: int, rng: np.random.Generator) -> DrawnSlates:
    """The first k steps of Fisher and Yates, in all rows at once."""
    order = np.tile(np.arange(m), (n, 1))
    rows = np.arange(n)
    draws = rng.random((k, n))
    for place in range(k):
        chosen = place + (draws[place] * (m - place)).astype(np.int64)
        taken = order[rows, chosen]
        order[rows, chosen] = order[:, place]
        order[:, place] = taken
    propensity = np.tile(1.0 / np.arange(m, m - k, -1), (n, 1))
    return DrawnSlates(order[:, :k].copy(), propensity)


def _epsilon(n: int, m: int, k: int, epsilon: float, rng: np.random.Generator) -> DrawnSlates:
    rank = np.empty((n, k), dtype=np.int64)
    propensity = np.empty((n, k))
    shown = np.zeros((n, m), dtype=bool)
    rows = np.arange(n)
    explores = rng.random((k, n)) < epsilon
    for place in range(k):
        left = m - place
        best = shown[:, : place + 1].argmin(axis=1)  # of place + 1 ranks one is not shown yet
        chosen = best.copy()
        at_random = np.nonzero(explores[place])[0]
        wanted = rng.integers(left, size=at_random.size)  # among those left, best first
        free = np.cumsum(~shown[at_random], axis=1, dtype=np.int32)
        chosen[at_random] = (free > wanted[:, None]).argmax(axis=1)
        rank[:, place] = chosen
        propensity[:, place] = epsilon / left + (1.0 - epsilon) * (chosen == best)
        shown[rows, chosen] = True
    return DrawnSlates(rank, propensity)


def _plackett_luce(logit: np.ndarray, k: int, rng: np.random.Generator) -> DrawnSlates:
    drawn = np.argsort(-(logit + rng.gumbel(size=logit.shape)), axis=1, kind="stable")
    ordered = np.take_along_axis(logit, drawn, axis=1)
    below = np.logaddexp.accumulate(ordered[:, ::-1], axis=1)[:, ::-1]
    propensity = np.exp(np.minimum(ordered - below, 0.0))
    return DrawnSlates(drawn[:, :k], propensity[:, :k])
