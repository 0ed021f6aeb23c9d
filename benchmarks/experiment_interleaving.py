"""How many queries interleaving needs beside an A/B test, in worlds whose clicks are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from recsys.simulation.experiment import (
    Preference,
    balanced,
    credit_balanced,
    credit_team_draft,
    preference,
    queries_needed,
    sensitivity,
    team_draft,
    welch,
)

Z = 1.959963984540054
CANDIDATES, PLACES = 30, 10


class World(NamedTuple):
    """Rankers and queries of the interleaving part.

    Attributes:
        noise: standard deviation of the error in each ranker's scores, A's and B's.
        shared: of the part of the error that both have.
        spread: of how readily queries are clicked, in log-odds.
    """

    noise: tuple[float, float]
    shared: float
    spread: float


WORLDS = {
    "queries alike": World((1.6, 0.8), 0.0, 0.0),
    "queries differ": World((1.6, 0.8), 0.0, 1.5),
    "queries differ, rankers share half of their error": World((1.0, 0.5), 1.0, 1.5),
}
SHOWN = "queries differ"


class Queries:
    """Candidates of some queries, two rankings of them, and their users."""

    def __init__(self, world: World, num: int, rng: np.random.Generator) -> None:
        self.rng, self.world = rng, world
        self.relevance = rng.standard_normal((num, CANDIDATES))
        self.ease = world.spread * rng.standard_normal((num, 1)) - 1.5
        self.common = world.shared * rng.standard_normal(self.relevance.shape)
        self.a, self.b = (self.ranked(noise) for noise in world.noise)

    def ranked(self, noise: float) -> np.ndarray:
        """[Q, C] candidates by a noisy score, best first."""
        own = noise * self.rng.standard_normal(self.relevance.shape)
        return np.argsort(-(self.relevance + self.common + own), axis=1)

    def clicks(self, items: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """[Q, k] bool: examined with 1 / rank, then clicked for what the item is worth."""
        logit = np.take_along_axis(self.relevance[rows], items, axis=1) + self.ease[rows]
        chance = 1 / (1 + np.exp(-logit)) / np.arange(1, items.shape[1] + 1)
        return self.rng.random(items.shape) < chance

    def drafted(self, other: np.ndarray) -> Preference:
        """What team draft says of A and another ranking."""
        merged = team_draft(self.a, other, k=PLACES, rng=self.rng)
        return preference(credit_team_draft(merged, self.clicks(merged.items)))


def interleaving(trials: int, rng: np.random.Generator) -> dict[str, Any]:
    """Power of team draft and of A/B on clicks per query, with the same number of queries."""
    rows = []
    for queries in (100, 300, 1000):
        draft = split = 0
        for _ in range(trials):
            world = Queries(WORLDS[SHOWN], queries, rng)
            seen = world.drafted(world.b)
            draft += seen.value > Z * seen.standard_error
            first, last = slice(0, queries // 2), slice(queries // 2, None)
            effect = welch(
                world.clicks(world.a[first, :PLACES], first).sum(axis=1),
                world.clicks(world.b[last, :PLACES], last).sum(axis=1),
            )
            split += effect.difference > Z * effect.standard_error
        rows.append({"queries": queries, "team draft": draft / trials, "A/B": split / trials})
    times: dict[str, dict[str, float]] = {}
    many = 300 * trials
    for name, one in WORLDS.items():
        world = Queries(one, many, rng)
        merged = balanced(world.a, world.b, k=PLACES, rng=rng)
        even = preference(credit_balanced(merged, world.clicks(merged.items), world.a, world.b))
        clicked = [world.clicks(lists[:, :PLACES]).sum(axis=1) for lists in (world.a, world.b)]
        difference = welch(*clicked).difference
        variance = float(np.mean([each.var(ddof=1) for each in clicked]))
        seen = world.drafted(world.b)
        times[name] = {
            "team draft": sensitivity(seen, difference, variance),
            "balanced": sensitivity(even, difference, variance),
            "queries for power .8": queries_needed(seen),
        }
    world = Queries(WORLDS[SHOWN], many, rng)
    same = world.drafted(world.ranked(WORLDS[SHOWN].noise[0]))
    return {
        "power": rows,
        "times fewer queries than A/B": times,
        "A/A preference": same.value,
        "A/A standard error": same.standard_error,
    }
