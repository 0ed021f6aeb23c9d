"""What a publish is given and what it reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from serving.keys import checked_generation

__all__ = ["NUM_NEIGHBOURS", "Publication", "PublishReport", "UserBatch"]

NUM_NEIGHBOURS = 50
"""Similar items of an item that are published."""
_MIN_TTL_S = 60


class UserBatch(NamedTuple):
    """Lists of some users (or, for neighbours, of some items).

    Attributes:
        ids: [Q] outside ids.
        item_index: [Q, K] integer, -1 padded at the end.
        score: [Q, K] float, non-increasing.
        source: [Q, K] uint8, or one number for all.
    """

    ids: Sequence[str]
    item_index: np.ndarray
    score: np.ndarray
    source: np.ndarray | int = 0


@dataclass(frozen=True, slots=True)
class Publication:
    """What `GenerationStore.publish` was given; see there."""

    generation: str
    users: Iterable[UserBatch | tuple[Any, ...]]
    item_ids: Sequence[str]
    popular: tuple[np.ndarray, np.ndarray]
    vocabulary_sha256: str
    ttl_s: int
    source_names: tuple[str, ...]
    item_rows: Sequence[bytes] | None
    item_schema: str | None
    neighbours: Iterable[UserBatch | tuple[Any, ...]]
    alive: np.ndarray | None

    def check(self) -> None:
        """Refuse what no server is needed to refuse.

        Raises:
            ValueError: an argument is out of range or does not fit another.
        """
        checked_generation(self.generation)
        num_items = len(self.item_ids)
        if num_items < 1 or len(set(self.item_ids)) != num_items:
            raise ValueError(
                f"item_ids must be unique and not empty: got {num_items} ids, "
                f"{len(set(self.item_ids))} different"
            )
        if self.ttl_s < _MIN_TTL_S:
            raise ValueError(f"ttl_s must be >= {_MIN_TTL_S}, got {self.ttl_s}")
        if not 1 <= len(self.source_names) <= 256:
            raise ValueError(f"source_names must hold 1 to 256, got {len(self.source_names)}")
        if self.item_rows is not None and len(self.item_rows) != num_items:
            raise ValueError(
                "item_rows must have one row per item id: "
                f"got {len(self.item_rows)} rows for {num_items} ids"
            )
        if (self.item_rows is None) != (self.item_schema is None):
            raise ValueError("item_rows and item_schema must be given together")
        if self.alive is not None and np.shape(self.alive) != (num_items + 1,):
            raise ValueError(
                f"alive must have the shape [N + 1] = [{num_items + 1}], "
                f"got {list(np.shape(self.alive))}"
            )


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What a publish did.

    Attributes:
        generation: served now.
        previous: what a rollback would return to.
        epoch: of the head after the flip.
        num_users: users with a list.
        num_items: items of the vocabulary.
        num_empty: users whose list is empty.
        bytes_written: of all values, keys not counted.
        seconds: from the first write to the flip.
        refreshed: the generation was already there, with the same values.
    """

    generation: str
    previous: str | None
    epoch: int
    num_users: int
    num_items: int
    num_empty: int
    bytes_written: int
    seconds: float
    refreshed: bool
