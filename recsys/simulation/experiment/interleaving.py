"""Two rankers in one list: which of them do users click?

Each query is its own comparison, so far fewer are needed than for two arms. What is measured is a
preference between two lists, not what a launch is worth; rules that change the list after the
merge blur it.

All functions work on many queries at once. Items are ids >= 0, a list may end in -1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recsys.simulation.experiment.effect import normal_quantile, two_sided_p

__all__ = [
    "Interleaved",
    "Preference",
    "balanced",
    "credit_balanced",
    "credit_team_draft",
    "preference",
    "queries_needed",
    "sensitivity",
    "team_draft",
]


class Interleaved(NamedTuple):
    """Merged lists.

    Attributes:
        items: [Q, k] int64, -1 behind the end.
        team: [Q, k] int8: 0 for A's picks, 1 for B's, -1 behind the end. In a balanced list: the
            ranker from whose list the item was taken.
        a_first: [Q] bool; whether A began (balanced), or began the first round (team draft).
    """

    items: np.ndarray
    team: np.ndarray
    a_first: np.ndarray


class Preference(NamedTuple):
    """How often B wins a query less how often A does.

    Attributes:
        value: mean of sign(credit B - credit A), -1..1; above 0 where B is preferred.
        standard_error: over queries.
        low: lower end of the interval.
        high: upper end.
        p: two-sided, against no preference.
        queries: number of them, ties included.
        ties: queries that neither won.
    """

    value: float
    standard_error: float
    low: float
    high: float
    p: float
    queries: int
    ties: int


def team_draft(a: np.ndarray, b: np.ndarray, *, k: int, rng: np.random.Generator) -> Interleaved:
    """Team draft: in each round a coin says who picks first, then each picks its best unseen item.

    Args:
        a: [Q, C] int64 ids of ranker A, best first, distinct in a row; -1 behind the end.
        b: [Q, C] of ranker B.
        k: length of the merged list, >= 1; shorter where both lists end.
        rng: the coins.

    Raises:
        ValueError: the lists are not [Q, C] of the same queries, or k is below 1.

    Source: Radlinski, Kurup and Joachims, CIKM 2008, section 4.2.
    """
    a, b = _lists(a, b, k)
    num = a.shape[0]
    heads = np.asarray(rng.random((num, k)) < 0.5)
    lists = np.stack([a, b])  # [2, Q, C]
    taken = np.stack([a < 0, b < 0])  # what cannot be picked any more, in each list
    rows = np.arange(num)
    items = np.full((num, k), -1, dtype=np.int64)
    team = np.full((num, k), -1, dtype=np.int8)
    # A list that ends leaves its turn to nobody: places close up behind it.
    filled = np.zeros(num, dtype=np.int64)
    for turn in range(2 * k):  # a round picks at least one while a list has any
        first = heads[:, turn // 2]
        who = np.where(first, 0, 1) if turn % 2 == 0 else np.where(first, 1, 0)
        free = ~taken[who, rows]  # [Q, C]
        able = free.any(axis=1) & (filled < k)
        picked = lists[who, rows, free.argmax(axis=1)]
        items[rows[able], filled[able]] = picked[able]
        team[rows[able], filled[able]] = who[able]
        filled += able
        taken |= (lists == picked[:, None]) & able[:, None]
    return Interleaved(items, team, heads[:, 0])


def credit_team_draft(merged: Interleaved, clicked: np.ndarray) -> np.ndarray:
    """Clicks on B's picks less clicks on A's, [Q] int64.

    Args:
        merged: the lists that were shown.
        clicked: [Q, k] bool.
    """
    clicked = _clicks(merged, clicked)
    found: np.ndarray = (clicked & (merged.team == 1)).sum(axis=1) - (
        clicked & (merged.team == 0)
    ).sum(axis=1)
    return found


def balanced(a: np.ndarray, b: np.ndarray, *, k: int, rng: np.random.Generator) -> Interleaved:
    """Balanced interleaving: one coin says who begins, then both lists are read in step.

    Every prefix holds the best of A and of B in numbers that differ by at most one.

    Args:
        a: [Q, C] int64 ids of ranker A, as in `team_draft`.
        b: [Q, C] of ranker B.
        k: length of the merged list, >= 1.
        rng: the coins.

    Raises:
        ValueError: as in `team_draft`.

    Source: Joachims, KDD 2002; Radlinski, Kurup and Joachims, CIKM 2008, algorithm 1.
    """
    a, b = _lists(a, b, k)
    num, width = a.shape
    a_first = np.asarray(rng.random(num) < 0.5)
    lists, at = np.stack([a, b]), np.zeros((2, num), dtype=np.int64)
    rows = np.arange(num)
    items = np.full((num, k), -1, dtype=np.int64)
    team = np.full((num, k), -1, dtype=np.int8)
    filled = np.zeros(num, dtype=np.int64)
    ends = (lists >= 0).sum(axis=2)  # [2, Q]
    for _ in range(2 * width):
        a_next = (at[0] < at[1]) | ((at[0] == at[1]) & a_first)
        who = np.where(a_next, 0, 1)
        who = np.where(at[who, rows] < ends[who, rows], who, 1 - who)
        here = at[who, rows]
        able = (here < ends[who, rows]) & (filled < k)
        if not able.any():
            break
        item = lists[who, rows, np.minimum(here, width - 1)]
        new = able & ~(items == item[:, None]).any(axis=1)
        items[rows[new], filled[new]] = item[new]
        team[rows[new], filled[new]] = who[new]
        filled += new
        at[who[able], rows[able]] += 1
    return Interleaved(items, team, a_first)


def credit_balanced(
    merged: Interleaved, clicked: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """Clicks among B's first items less clicks among A's, [Q] int64.

    With the lowest clicked item at rank r of the nearer list, the first r items of each list are
    compared.

    Args:
        merged: the lists that were shown.
        clicked: [Q, k] bool.
        a: [Q, C] ids of ranker A, as they were merged.
        b: [Q, C] of ranker B.

    Source: Joachims, KDD 2002; Radlinski, Kurup and Joachims, CIKM 2008, section 4.1.
    """
    clicked = _clicks(merged, clicked)
    a, b = _lists(a, b, 1)
    width = a.shape[1]
    rank_a, rank_b = _ranks(merged.items, a, width), _ranks(merged.items, b, width)  # [Q, k]
    place = np.where(clicked, np.arange(clicked.shape[1]), -1)
    lowest = place.argmax(axis=1)
    rows = np.arange(a.shape[0])
    depth = np.minimum(rank_a[rows, lowest], rank_b[rows, lowest])[:, None]
    won_b = (clicked & (rank_b <= depth)).sum(axis=1)
    found: np.ndarray = won_b - (clicked & (rank_a <= depth)).sum(axis=1)
    return found


def preference(credit: np.ndarray, *, level: float = 0.95) -> Preference:
    """Test of the mean sign of the credits.

    Args:
        credit: [Q] B's less A's. Queries of one user go together: sum them first, and one user is
            one entry.
        level: of the interval, 0 < level < 1.

    Raises:
        ValueError: fewer than two entries, or a level out of range.
    """
    signs = np.sign(np.asarray(credit, dtype=np.float64))
    if signs.ndim != 1 or signs.size < 2:
        raise ValueError(f"credit must be [Q] with Q >= 2 queries, got shape {signs.shape}")
    if not 0 < level < 1:
        raise ValueError(f"level must be above 0 and below 1, got {level}")
    value = float(signs.mean())
    error = float(signs.std(ddof=1)) / math.sqrt(signs.size)
    half = normal_quantile(0.5 + level / 2) * error
    p = two_sided_p(value / error) if error > 0 else float(value == 0)
    ties = int((signs == 0).sum())
    return Preference(value, error, value - half, value + half, p, signs.size, ties)


def queries_needed(found: Preference, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Queries that find a preference as large as this one.

    (z_{1-a/2} + z_power)^2 Var(sign) / value^2.

    Args:
        found: from a pilot or the simulator.
        alpha: two-sided.
        power: chance to find it.

    Returns:
        A number of queries, infinite for a preference of 0.
    """
    need = (normal_quantile(1 - alpha / 2) + normal_quantile(power)) ** 2
    variance = found.standard_error**2 * found.queries
    return need * variance / found.value**2 if found.value else math.inf


def sensitivity(found: Preference, difference: float, variance: float) -> float:
    """How many times fewer queries interleaving needs than an A/B test on the same two rankers.

    The A/B test has half of its queries in each arm, so Q of them give its difference the variance
    4 v / Q; interleaving has Var(sign) / Q. The figure is (value^2 / Var(sign)) / (d^2 / (4 v)).

    Args:
        found: the preference.
        difference: of the A/B test's means per query.
        variance: of one query of it.

    Returns:
        Above 1 where interleaving needs fewer. An estimate of small effects, so a noisy one.

    Raises:
        ValueError: a variance is not above 0, or the difference is 0.
    """
    spread = found.standard_error**2 * found.queries
    if not variance > 0 or not spread > 0 or difference == 0:
        raise ValueError(
            "sensitivity needs variances > 0 and a difference other than 0, got "
            f"{variance}, {spread} and {difference}"
        )
    return (found.value**2 / spread) / (difference**2 / (4 * variance))


def _ranks(items: np.ndarray, ranked: np.ndarray, missing: int) -> np.ndarray:
    """[Q, k] place of each item in a list, ``missing`` where it is not there."""
    same = items[:, :, None] == ranked[:, None, :]  # [Q, k, C]
    return np.where(same.any(axis=2), same.argmax(axis=2), missing)


def _lists(a: np.ndarray, b: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, dtype=np.int64), np.asarray(b, dtype=np.int64)
    if a.ndim != 2 or a.shape != b.shape or a.shape[1] == 0:
        raise ValueError(
            f"a and b must be [Q, C] of the same queries, got shapes {a.shape} and {b.shape}"
        )
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}")
    return a, b


def _clicks(merged: Interleaved, clicked: np.ndarray) -> np.ndarray:
    found = np.asarray(clicked, dtype=bool)
    if found.shape != merged.items.shape:
        raise ValueError(f"clicked must be [Q, k] = {merged.items.shape}, got shape {found.shape}")
    return found
