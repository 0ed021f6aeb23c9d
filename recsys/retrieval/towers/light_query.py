"""The query of one history, in NumPy: for a single one torch keeps more books than it adds sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.special import erf

if TYPE_CHECKING:
    from torch import Tensor

    from recsys.retrieval.towers.model import TwoTower

__all__ = ["LightQuery"]


@dataclass(frozen=True, eq=False)
class LightQuery:
    """The user tower with recency pooling; see `recsys.retrieval.towers.model.TwoTower.queries`.

    Attributes:
        item_vector: [N + 1, D] float32.
        half_lives: [P, 1] float64, in events.
        start: [D] float32.
        gate: [P] float32.
        hidden_weight: [H, P * D] float32. None: no hidden layer.
        hidden_bias: [H] float32.
        output_weight: [D, H] float32.
    """

    item_vector: np.ndarray
    half_lives: np.ndarray
    start: np.ndarray
    gate: np.ndarray
    hidden_weight: np.ndarray | None
    hidden_bias: np.ndarray | None
    output_weight: np.ndarray | None

    @classmethod
    def of(cls, tower: TwoTower, item_vector: Tensor) -> Self | None:
        """Views of a tower's weights; None where it pools in another way."""
        options = tower.options
        if options.pooling != "recency":
            return None
        weights = {name: value.numpy() for name, value in tower.state_dict().items()}
        hidden = options.hidden_dim > 0
        return cls(
            item_vector.numpy(),
            np.array(options.half_lives, dtype=np.float64)[:, None],
            weights["start"],
            weights["gate"],
            weights["hidden_weight"] if hidden else None,
            weights["hidden_bias"] if hidden else None,
            weights["output_weight"] if hidden else None,
        )

    def __call__(self, items: np.ndarray, user_vector: np.ndarray | None) -> np.ndarray:
        """[D] float32, not normalised.

        Args:
            items: [E] int64 rows of the events that are seen, oldest first.
            user_vector: [D] row of the user. None: no row.
        """
        age = np.arange(items.size - 1, -1, -1, dtype=np.float64)
        weight = np.exp((-math.log(2) * age / self.half_lives).astype(np.float32))
        if items.size:
            weight /= weight.sum(axis=1, keepdims=True)
        pools = weight @ self.item_vector[items]  # [P, D]
        query: np.ndarray = self.start + self.gate @ pools
        if user_vector is not None:
            query = query + user_vector
        if self.hidden_weight is not None:
            hidden = self.hidden_weight @ pools.ravel() + self.hidden_bias
            hidden = (0.5 * hidden * (1.0 + erf(hidden / math.sqrt(2)))).astype(np.float32)
            query = query + self.output_weight @ hidden
        return query.astype(np.float32)
