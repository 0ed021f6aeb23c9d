"""A small log with structure, and the world fitted to it."""

from __future__ import annotations

from functools import cache

import numpy as np

from features.tables import Histories
from recsys.simulation.world.fit import Honesty, fit_world
from recsys.simulation.world.world import World

NUM_USERS, NUM_ITEMS = 240, 80


def two_tastes(seed: int = 0) -> Histories:
    """Users like one half of the items four times as much as the other; some items are popular."""
    rng = np.random.default_rng(seed)
    taste = np.arange(NUM_USERS) % 2
    liked = (np.arange(NUM_ITEMS) % 2)[None, :] == taste[:, None]
    popular = np.exp(-np.arange(NUM_ITEMS) / 30.0)[None, :]
    met = rng.random((NUM_USERS, NUM_ITEMS)) < np.where(liked, 0.8, 0.2) * popular
    user, item = np.nonzero(met)
    order = np.lexsort((rng.random(user.size), user))
    user, item = user[order], item[order]
    good = rng.random(user.size) < np.where(liked[user, item], 0.8, 0.3)
    return Histories(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(user, minlength=NUM_USERS))]),
        item_index=item + 1,
        timestamp=np.arange(user.size, dtype=np.int64) * 10**6,
        weight=np.where(good, 5.0, 2.0).astype(np.float32),
    )


@cache
def fitted(known: float = 0.5) -> tuple[World, Honesty]:
    """The world of `two_tastes`; made once."""
    return fit_world(
        two_tastes(), NUM_ITEMS, rng=np.random.default_rng(1), dim=4, known=known, held_out=0.3
    )
