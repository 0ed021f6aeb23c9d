"""From candidates to a slate: LambdaMART, a listwise network, diversity, exploration.

Imports `files` and `settings`, and nothing of `retrieval`; may be imported from `config` upwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.lazy import lazy_names

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_names(__name__, __file__)
