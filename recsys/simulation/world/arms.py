"""An arm of a simulated experiment: the candidates of every user, and how a slate is drawn.

What a pipeline would answer is asked once for every user; sessions are drawn from these lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from recsys.config.experiment_design import ArmSettings
from recsys.simulation.world.drawing import rank_marginals
from recsys.simulation.world.world import World

__all__ = ["ArmTables", "SimulatedArm", "arm_from_scores", "tables_of"]


@dataclass(frozen=True)
class SimulatedArm:
    """One arm.

    Attributes:
        name: in the log and the report.
        item_index: [U, M] int64, the candidates of each of the world's users, best first; no item
            twice in a row.
        score: [U, M] float, never rising along a row.
        settings: its ranker draws the slate; one that does not draw shows the first k.

    Raises:
        ValueError: shapes differ, an index is below 1, a row holds an item twice, or a score
            rises.
    """

    name: str
    item_index: np.ndarray
    score: np.ndarray
    settings: ArmSettings = field(default_factory=ArmSettings)

    def __post_init__(self) -> None:
        items, score = self.item_index, self.score
        if items.ndim != 2 or items.shape != score.shape or 0 in items.shape:
            raise ValueError(
                f"item_index and score of arm {self.name!r} must be [U, M], got shapes "
                f"{items.shape} and {score.shape}"
            )
        if int(items.min()) < 1:
            short = int((items < 1).any(axis=1).sum())
            raise ValueError(
                f"item_index of arm {self.name!r} must be >= 1, got less in {short} rows; take "
                "fewer candidates, so that every user has as many"
            )
        ordered = np.sort(items, axis=1)
        if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
            raise ValueError(f"item_index of arm {self.name!r} must not repeat an item in a row")
        if bool((np.diff(score, axis=1) > 0).any()):
            raise ValueError(f"score of arm {self.name!r} must never rise along a row")

    @property
    def draws(self) -> bool:
        """Whether the slate has a propensity below 1 anywhere."""
        return bool((self.marginals(1) < 1.0).all()) if self.settings.ranker != "softmax" else True

    def marginals(self, k: int) -> np.ndarray:
        """[M, k] P(rank at place); see `rank_marginals`."""
        return rank_marginals(self.settings, self.item_index.shape[1], k)


def arm_from_scores(
    name: str,
    item_index: np.ndarray,
    score: np.ndarray,
    settings: ArmSettings | None = None,
) -> SimulatedArm:
    """An arm whose candidates are ``item_index`` [U, M] in the order of ``score`` [U, M].

    Ties go to the earlier candidate.
    """
    order = np.argsort(-score, axis=1, kind="stable")
    return SimulatedArm(
        name,
        np.take_along_axis(item_index, order, axis=1),
        np.take_along_axis(score, order, axis=1),
        settings or ArmSettings(),
    )


@dataclass(frozen=True)
class ArmTables:
    """What the session loop reads of A arms in a world.

    Attributes:
        arms: A arms.
        attraction: A tables [U, M] float32: probability of a click once looked at.
        conversion: A tables [U, M] float32: probability that a click converts.
    """

    arms: tuple[SimulatedArm, ...]
    attraction: tuple[np.ndarray, ...]
    conversion: tuple[np.ndarray, ...]


def tables_of(world: World, arms: list[SimulatedArm], *, popularity: float = 0.0) -> ArmTables:
    """Look the world's truth up for every candidate of every arm, once.

    Args:
        world: the truth.
        arms: at least one, with different names, of the world's users.
        popularity: crowd effect: the odds of a click are multiplied by ``exp(popularity * z)``
            where z is the item's standardised log number of events; 0: what was fitted.

    Raises:
        ValueError: no arm, a name twice, or an arm of other users.
    """
    names = [arm.name for arm in arms]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"arms must have different names, at least one, got {names}")
    users = np.arange(world.num_users)
    attraction, conversion = [], []
    counts = np.log1p(world.item_events.astype(np.float64))
    spread = float(counts[1:].std()) or 1.0
    for arm in arms:
        if len(arm.item_index) != world.num_users:
            raise ValueError(
                f"arm {arm.name!r} must have one row per user of the world: got "
                f"{len(arm.item_index)} for {world.num_users}"
            )
        rate = world.attraction(users, arm.item_index)
        if popularity != 0.0:
            z = (counts[arm.item_index] - counts[1:].mean()) / spread
            odds = rate / (1.0 - rate) * np.exp(popularity * z)
            rate = odds / (1.0 + odds)
        attraction.append(rate.astype(np.float32))
        conversion.append(world.conversion(users, arm.item_index).astype(np.float32))
    return ArmTables(tuple(arms), tuple(attraction), tuple(conversion))
