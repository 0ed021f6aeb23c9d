"""What a serving process keeps in memory of one generation."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from features.packing import PackedSchema
from serving.errors import CorruptValue, NoGeneration
from serving.store import GenerationStore
from serving.store.candidate_codec import CandidateList
from serving.store.manifest import Manifest

__all__ = ["BundledPopular", "Snapshot", "item_schema", "load_snapshot"]

POPULAR = "popular"


@functools.lru_cache(maxsize=4)
def item_schema(text: str) -> PackedSchema:
    """The schema of item rows as a manifest has it.

    Raises:
        ValueError: it cannot be read; `features.DataError` is one.
    """
    return PackedSchema.from_dict(json.loads(text))


@dataclass(frozen=True, slots=True)
class BundledPopular:
    """The fallback list that ships with a bundle, for a start without the store.

    Attributes:
        item_ids: best first, different.
        score: one for each, higher is better.
        generation: the bundle's id. None: unnamed.
    """

    item_ids: Sequence[str]
    score: Sequence[float]
    generation: str | None = None

    def __post_init__(self) -> None:
        if len(self.item_ids) != len(self.score):
            raise ValueError(
                f"score must have one number per item id: got {len(self.score)} for "
                f"{len(self.item_ids)} ids"
            )
        if len(set(self.item_ids)) != len(self.item_ids):
            raise ValueError("item_ids must be different")

    def to_snapshot(self) -> Snapshot:
        """A catalogue that holds these items only."""
        item_ids = [str(one) for one in self.item_ids]
        count = len(item_ids)
        popular = CandidateList(
            np.arange(1, count + 1),
            np.asarray(self.score, dtype=np.float32),
            np.zeros(count, dtype=np.uint8),
        )
        alive = np.ones(count + 1, dtype=bool)
        return Snapshot(self.generation, item_ids, popular, (POPULAR,), alive, None)


@dataclass(slots=True)
class Snapshot:
    """One generation's vocabulary, fallback list and eligibility.

    Attributes:
        generation: its id.
        item_ids: entry i belongs to item index i + 1.
        popular: the fallback list.
        source_names: name of each source number.
        alive: [N + 1] bool, replaced as a whole when it is read again.
        manifest: None for a bundled list.
        segments: fallback lists of single segments, by name.
        rows: item id to item index.
    """

    generation: str | None
    item_ids: list[str]
    popular: CandidateList
    source_names: tuple[str, ...]
    alive: np.ndarray
    manifest: Manifest | None
    segments: Mapping[str, CandidateList] = field(default_factory=dict)
    rows: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = {item_id: row for row, item_id in enumerate(self.item_ids, start=1)}

    def is_alive(self, item_id: str) -> bool:
        """May be recommended; an item newer than this generation may."""
        row = self.rows.get(item_id)
        return row is None or bool(self.alive[row])

    def named(
        self, found: CandidateList, source: str | None = None
    ) -> list[tuple[str, float, str]]:
        """``found`` as (item id, score, source) with outside ids, in its order.

        Args:
            found: a list of this generation; indices beyond the vocabulary are dropped.
            source: one name for all. None: the name of each entry's source number.
        """
        names, count = self.source_names, len(self.item_ids)
        return [
            (
                self.item_ids[row - 1],
                score,
                source or (names[number] if number < len(names) else "?"),
            )
            for row, score, number in zip(
                found.item_index.tolist(), found.score.tolist(), found.source.tolist(), strict=True
            )
            if 1 <= row <= count
        ]


def load_snapshot(store: GenerationStore, generation: str) -> Snapshot:
    """Read a generation's vocabulary, fallback list and eligibility.

    Raises:
        NoGeneration: unknown, unfinished or expired.
        StageUnavailable: the store is down.
        CorruptValue: a value cannot be decoded.
    """
    manifest = store.manifest(generation)
    if manifest is None:
        raise NoGeneration(f"generation {generation!r} is unknown, unfinished or expired")
    item_ids = store.item_ids(generation)
    if len(item_ids) != manifest.num_items:
        raise CorruptValue(
            f"generation {generation!r} must have {manifest.num_items} items, as its manifest "
            f"says, got {len(item_ids)}; publish it again"
        )
    return Snapshot(
        generation,
        item_ids,
        store.popular(generation),
        manifest.source_names,
        store.alive(generation, manifest.num_items),
        manifest,
        store.popular_of(generation, manifest.segments),
    )
