"""What a logging policy did and what came of it: the input of every estimate."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

__all__ = ["LoggedFeedback"]


@dataclass(frozen=True)
class LoggedFeedback:
    """Rounds of a log: one action each, its probability, its reward.

    Only shapes and kinds are checked here. Whether the numbers can carry an estimate is said by
    `recsys.simulation.problems`, which names every problem with its rows.

    Attributes:
        action: [n] int64 in 0..K - 1.
        reward: [n] float64.
        propensity: [n] float64 in (0, 1], probability that the logging policy chose this action.
        num_actions: K.
        position: [n] int64 place on the slate from 1; None where there was one place.
        unit: [n] int64 user or session; rounds of one unit depend on each other. None: each round
            is its own unit.
        context: [n, D] float32; None where nothing is known of a round.
        time: [n] float64 seconds, any origin; None where only the order of rows is known.
    """

    action: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    num_actions: int
    position: np.ndarray | None = None
    unit: np.ndarray | None = None
    context: np.ndarray | None = None
    time: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.action)
        if self.num_actions < 1:
            raise ValueError(f"num_actions must be >= 1, got {self.num_actions}")
        for field in fields(self):
            values = getattr(self, field.name)
            if field.name == "num_actions" or values is None:
                continue
            wanted = 2 if field.name == "context" else 1
            if values.ndim != wanted or len(values) != n:
                shape = "[n, D]" if wanted == 2 else "[n]"
                raise ValueError(
                    f"{field.name} must be {shape} with n = {n}, got shape {values.shape}"
                )
            if field.name in ("action", "position", "unit") and values.dtype != np.int64:
                raise TypeError(f"{field.name} must be int64, got {values.dtype}")
            if field.name in ("reward", "propensity", "time") and values.dtype != np.float64:
                raise TypeError(f"{field.name} must be float64, got {values.dtype}")

    def __len__(self) -> int:
        return len(self.action)

    def take(self, rows: np.ndarray) -> Self:
        """The rounds of ``rows``, [m] row numbers or [n] bool."""
        picked: dict[str, Any] = {
            field.name: None if (values := getattr(self, field.name)) is None else values[rows]
            for field in fields(self)
            if field.name != "num_actions"
        }
        return type(self)(num_actions=self.num_actions, **picked)
