"""What a slate is like, whoever clicks on it: well known, new, and alike among themselves."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from recsys.evaluation.popularity import cold_items, head_items
from recsys.simulation.world.world import World

__all__ = ["SlateTraits"]


class SlateTraits(NamedTuple):
    """Of the N items of a catalogue; row 0 is nothing.

    Attributes:
        head: [N + 1] bool, the most popular tenth; see `head_items`.
        new: [N + 1] bool, nobody met it yet; see `cold_items`.
        direction: [N + 1, D] float32 of length 1 by who likes an item; 0 where nobody met it.
    """

    head: np.ndarray
    new: np.ndarray
    direction: np.ndarray

    @classmethod
    def of(cls, world: World) -> Self:
        """Those of a world's items, by the events and factors it was fitted with."""
        factor = world.item_factor
        length = np.linalg.norm(factor, axis=1, keepdims=True)
        direction = np.divide(factor, length, out=np.zeros_like(factor), where=length > 0)
        return cls(head_items(world.item_events), cold_items(world.item_events), direction)

    def measure(self, item_index: np.ndarray) -> np.ndarray:
        """[n, 3] float64: share of head places, share of new places, diversity of slates [n, k].

        Diversity is the mean of ``1 - cosine`` over the pairs of a slate, in [0, 2]; 0 where a
        slate has one place.
        """
        k = item_index.shape[1]
        found = np.zeros((len(item_index), 3))
        found[:, 0] = self.head[item_index].mean(axis=1)
        found[:, 1] = self.new[item_index].mean(axis=1)
        if k > 1:
            shown = self.direction[item_index]  # [n, k, D]
            together = np.square(shown.sum(axis=1)).sum(axis=1)
            alone = np.square(shown).sum(axis=(1, 2))
            found[:, 2] = 1.0 - (together - alone) / (k * (k - 1))
        return found
