"""What a computation asks of the past: of which events, for which users, items and moments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Asked", "Group", "Level"]


class Group(NamedTuple):
    """Which events are looked at together, and how often.

    Attributes:
        by: one of `features.definitions.events.Grouping`.
        column: the item column of an attribute group, otherwise None.
        event: only events of this kind; None: all.
        refresh_us: microseconds between two values; 0: always current.
        again: only events whose user had another one with their item, and they weigh the days by
            which they lengthen the time between the two; see `features.computation.gaps`.
    """

    by: str
    column: str | None = None
    event: str | None = None
    refresh_us: int = 0
    again: bool = False

    @property
    def level(self) -> str:
        """The level whose combinations have a value each."""
        if self.column is None:
            return self.by
        return "item" if self.by == "attribute" else "user_item"


class Level(NamedTuple):
    """The distinct combinations of one kind, and where each row finds its own.

    Attributes:
        user: [n] int64 user index, 0 if the level has none.
        item: [n] int64 item index, likewise; beyond the catalogue's N for items it lacks.
        moment: [n] int64 position among the distinct moments.
        of_row: [R] int64 position of each row's combination.
    """

    user: np.ndarray
    item: np.ndarray
    moment: np.ndarray
    of_row: np.ndarray


class Asked(NamedTuple):
    """Q questions about groups of one kind.

    Attributes:
        user: [Q] int64 user index, 0 where the group has none.
        item: [Q] int64 item index, likewise.
        value: [Q] int64 attribute value 1..V, likewise.
        moment: [Q] int64 position among the distinct moments.
    """

    user: np.ndarray
    item: np.ndarray
    value: np.ndarray
    moment: np.ndarray
