"""Policies over slates: who may come next, given what stands above.

A policy is one function, ``P(item at this place | items above)`` for every round and item. The same
distributions are drawn one request at a time by `recsys.ranking.exploration`; a test holds the two
together.

The order of the items above must not matter, only which they are: the marginals of
`recsys.simulation.slates.probabilities` count on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import numpy as np

__all__ = [
    "EpsilonGreedyPolicy",
    "FactoredPolicy",
    "PlackettLucePolicy",
    "SlatePolicy",
]


class SlatePolicy(Protocol):
    """Probabilities of the next item, for many rounds at once."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, L, K): rounds, places, items."""

    def next_probabilities(self, above: np.ndarray) -> np.ndarray:
        """Who comes next.

        Args:
            above: [n, j] int64 items above this place, j < L; -1 is no item.

        Returns:
            [n, K] float64. Rows sum to 1, or to 0 where no item is left.
        """

    def take(self, rows: np.ndarray) -> Self:
        """The policy on the rounds of ``rows``, [m] row numbers."""


@dataclass(frozen=True)
class FactoredPolicy:
    """Every place draws on its own; an item may stand on two places.

    Attributes:
        probability: [n, L, K] float64, sums to 1 over K.
    """

    probability: np.ndarray

    def __post_init__(self) -> None:
        if self.probability.ndim != 3:
            raise ValueError(f"probability must be [n, L, K], got shape {self.probability.shape}")
        sums = self.probability.sum(axis=2)
        wrong = ~(np.abs(sums - 1) <= 1e-6) | (self.probability < 0).any(axis=2)
        if wrong.any():
            row, slot = (int(one[0]) for one in np.nonzero(wrong))
            raise ValueError(
                f"probability must be >= 0 and sum to 1 over the items; broken in "
                f"{int(wrong.any(axis=1).sum())} of {len(sums)} rounds, first: place {slot + 1} of "
                f"round {row} sums to {sums[row, slot]:.6g}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, L, K)."""
        n, slots, items = self.probability.shape
        return n, slots, items

    def next_probabilities(self, above: np.ndarray) -> np.ndarray:
        """[n, K], that of the place below ``above`` [n, j]."""
        place: np.ndarray = self.probability[:, above.shape[1]]
        return place

    def take(self, rows: np.ndarray) -> FactoredPolicy:
        """The policy on some rounds."""
        return FactoredPolicy(self.probability[rows])


@dataclass(frozen=True)
class _ByScore:
    """Draws among the best ``top`` items that are left; when none is, the rest by score.

    Attributes:
        score: [n, K] float, higher is better; an entry that is not finite is no candidate.
        slots: L.
        top: how many of the best take part in the draw; None: all.
    """

    score: np.ndarray
    slots: int
    top: int | None = None

    def __post_init__(self) -> None:
        if self.score.ndim != 2:
            raise ValueError(f"score must be [n, K], got shape {self.score.shape}")
        if self.slots < 1 or (self.top is not None and self.top < 1):
            raise ValueError(f"slots and top must be >= 1, got {self.slots} and {self.top}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n, L, K)."""
        n, items = self.score.shape
        return n, self.slots, items

    @cached_property
    def _usable(self) -> np.ndarray:
        """[n, K] bool, who is a candidate."""
        usable: np.ndarray = np.isfinite(self.score)
        return usable

    @cached_property
    def _rank(self) -> np.ndarray:
        """[n, K] int, 0 for the best score; ties to the earlier item."""
        order = np.argsort(np.where(self._usable, -self.score, np.inf), axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :], axis=1)
        return rank

    def by_score(self, slot: int) -> np.ndarray:
        """[n, K] bool, the item of this place, from 0, when nothing is drawn."""
        found: np.ndarray = self._usable & (self._rank == slot)
        return found

    def _left(self, above: np.ndarray) -> np.ndarray:
        """[n, K] bool, who takes part in the draw."""
        n, items = self.score.shape
        free = np.zeros((n, items + 1), dtype=bool)
        free[:, :items] = self._usable
        if above.shape[1]:
            np.put_along_axis(free, above % (items + 1), False, axis=1)  # -1: the extra column
        free = free[:, :items]
        if self.top is None:
            return free
        drawn = free & (self._rank < self.top)
        best = np.where(free, self._rank, items).min(axis=1, keepdims=True)
        return np.where(drawn.any(axis=1, keepdims=True), drawn, free & (self._rank == best))


@dataclass(frozen=True)
class PlackettLucePolicy(_ByScore):
    """Each place drawn from the softmax of ``score / temperature`` over the items left.

    Attributes:
        score: [n, K] float, higher is better; an entry that is not finite is no candidate.
        slots: L.
        top: how many of the best take part in the draw, the rest follows by score; None: all.
        temperature: > 0.

    Source: Plackett, The analysis of permutations, 1975; Luce, Individual choice behavior, 1959.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")

    def logits(self) -> np.ndarray:
        """[n, K] float64, -inf for what takes no part in the draw."""
        left = self._left(np.empty((len(self.score), 0), dtype=np.int64))
        return np.where(left, self.score.astype(np.float64) / self.temperature, -np.inf)

    def next_probabilities(self, above: np.ndarray) -> np.ndarray:
        """[n, K], the softmax over those left below ``above`` [n, j]."""
        left = self._left(above)
        logit = np.where(left, self.score.astype(np.float64) / self.temperature, -np.inf)
        highest = logit.max(axis=1, keepdims=True)
        mass = np.exp(logit - np.where(np.isfinite(highest), highest, 0.0))
        total = mass.sum(axis=1, keepdims=True)
        result: np.ndarray = mass / np.where(total > 0, total, 1.0)
        return result

    def take(self, rows: np.ndarray) -> PlackettLucePolicy:
        """The policy on some rounds."""
        return PlackettLucePolicy(self.score[rows], self.slots, self.top, self.temperature)


@dataclass(frozen=True)
class EpsilonGreedyPolicy(_ByScore):
    """For each place the best item left, or with probability ``epsilon`` any of those left.

    Attributes:
        score: [n, K] float, higher is better; an entry that is not finite is no candidate. Ties go
            to the earlier item.
        slots: L.
        top: how many of the best take part in the draw, the rest follows by score; None: all.
        epsilon: 0 (by score alone) to 1 (a uniform shuffle).
    """

    epsilon: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.epsilon <= 1.0:
            raise ValueError(f"epsilon must be 0..1, got {self.epsilon}")

    def next_probabilities(self, above: np.ndarray) -> np.ndarray:
        """[n, K], most of it on the best of those left below ``above`` [n, j]."""
        left, rank = self._left(above), self._rank
        best = np.where(left, rank, left.shape[1]).min(axis=1, keepdims=True)
        count = np.maximum(left.sum(axis=1, keepdims=True), 1)
        chance = self.epsilon / count + (1.0 - self.epsilon) * (rank == best)
        result: np.ndarray = np.where(left, chance, 0.0)
        return result

    def take(self, rows: np.ndarray) -> EpsilonGreedyPolicy:
        """The policy on some rounds."""
        return EpsilonGreedyPolicy(self.score[rows], self.slots, self.top, self.epsilon)
