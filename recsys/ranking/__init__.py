"""From candidates to a slate: LambdaMART, a listwise network, diversity, exploration."""

from __future__ import annotations

from recsys.ranking.exploration import (
    Drawn,
    epsilon_greedy,
    plackett_luce,
    seeded,
    uniform_shuffle,
)
from recsys.ranking.slate import build_slate

__all__ = [
    "Drawn",
    "build_slate",
    "epsilon_greedy",
    "plackett_luce",
    "seeded",
    "uniform_shuffle",
]
