"""What a publish is given and what it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from serving.store.keys import checked_generation
from serving.store.manifest import Manifest

__all__ = [
    "MAX_SEGMENTS",
    "MIN_TTL_S",
    "NUM_NEIGHBOURS",
    "DeltaReport",
    "Gate",
    "GateVerdict",
    "Publication",
    "PublishReport",
    "UserBatch",
    "check_ttl",
]

NUM_NEIGHBOURS = 50
"""Similar items of an item that are published."""
MAX_SEGMENTS = 1000
MIN_TTL_S = 60


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


class GateVerdict(NamedTuple):
    """Whether a generation that is written and checked may be served.

    Attributes:
        promote: True lets it through.
        reason: why not, for the message.
    """

    promote: bool
    reason: str = ""


Gate = Callable[[Manifest, Manifest | None], GateVerdict]
"""Asked with the manifests of the new generation and of the served one, None where none is."""


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
    popular_segments: Mapping[str, tuple[np.ndarray, np.ndarray]]

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
        check_ttl(self.ttl_s)
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
        if len(self.popular_segments) > MAX_SEGMENTS:
            raise ValueError(
                f"popular_segments must hold at most {MAX_SEGMENTS} segments, got "
                f"{len(self.popular_segments)}; use a column of fewer values"
            )


def check_ttl(ttl_s: int) -> None:
    """Refuse a time to live that is too short to publish in.

    Raises:
        ValueError: it is below `MIN_TTL_S`.
    """
    if ttl_s < MIN_TTL_S:
        raise ValueError(f"ttl_s must be >= {MIN_TTL_S}, got {ttl_s}")


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
        bytes_written: of the values written now, keys not counted.
        seconds: from the first write to the flip.
        refreshed: the generation was already there, with the same values.
        num_values: lists, item rows and the like, all together.
        num_resumed: of them, those found as an earlier attempt or publish had left them.
        num_hidden: candidates of users that the bitmap hides.
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
    num_values: int
    num_resumed: int
    num_hidden: int


@dataclass(frozen=True, slots=True)
class DeltaReport:
    """What a delta publish did.

    Attributes:
        generation: whose users were changed.
        revision: of the manifest afterwards; unchanged where nothing differed.
        num_users: users with a list afterwards.
        num_added: users who had no list before.
        num_changed: users whose list is another one now.
        num_unchanged: users whose list was given and is the one they had.
        num_removed: users whose list was taken away.
        num_settled: users written by an interrupted delta that this one has accounted for.
        bytes_written: of all values, keys not counted.
        seconds: of the whole.
    """

    generation: str
    revision: int
    num_users: int
    num_added: int
    num_changed: int
    num_unchanged: int
    num_removed: int
    num_settled: int
    bytes_written: int
    seconds: float
