"""From allowed candidates to the slate of one answer: length, and the diversity knob."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from features.packing import PackedSchema
from serving.errors import ServingError
from serving.reader import GenerationReader
from serving.selection import Named
from serving.snapshot import Snapshot

__all__ = ["RowVectors", "SlateBuilder", "SlateMaker", "vectors_of_field"]

RowVectors = Callable[[Sequence[bytes | None], str], np.ndarray]
"""(packed rows [C], item schema) -> [C, D] float32; a missing row gives zeros."""


def vectors_of_field(name: str) -> RowVectors:
    """A `RowVectors` that reads one field of rows packed by `features.packing`.

    Args:
        name: of the field that holds the vector.

    Raises (when called):
        ServingError: the schema has no such field or cannot be read.
    """

    @functools.lru_cache(maxsize=4)
    def schema_of(text: str) -> PackedSchema:
        return PackedSchema.from_dict(json.loads(text))

    def read(rows: Sequence[bytes | None], schema: str) -> np.ndarray:
        try:
            values = schema_of(schema).unpack(rows).values[name]
        except (ValueError, KeyError) as error:
            raise ServingError(
                f"item rows have no readable field {name!r}: {error}", stage="slate"
            ) from error
        return values.reshape(len(rows), -1).astype(np.float32, copy=False)

    return read


class SlateBuilder(Protocol):
    """The slate rule, as `recsys.ranking.slate.build_slate` has it."""

    def __call__(
        self,
        item_index: np.ndarray,
        score: np.ndarray,
        k: int,
        *,
        vectors: np.ndarray | None = None,
        diversity: float = 0.0,
    ) -> np.ndarray:
        """At most ``k`` positions of ``item_index`` [C], int64, first place first."""
        ...


class SlateMaker:
    """Cuts candidates to a slate; reads item rows only when diversity asks for them.

    Args:
        reader: gives the packed rows.
        row_vectors: reads vectors out of packed rows. None: diversity goes without vectors.
        build: the slate rule. None: the one in `recsys.ranking.slate`, imported on first use.
        pool: candidates that a diverse slate is chosen from, at least.
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        row_vectors: RowVectors | None,
        build: SlateBuilder | None,
        pool: int,
    ) -> None:
        self._reader = reader
        self._row_vectors = row_vectors
        self._build = build
        self._pool = pool

    def choose(
        self, snapshot: Snapshot, entries: list[Named], k: int, diversity: float
    ) -> list[Named]:
        """At most ``k`` of ``entries``; without diversity the first ``k`` as they come.

        Raises:
            ServingError: the item rows could not be read.
        """
        if diversity <= 0.0 or len(entries) <= 1:
            return entries[:k]
        entries = entries[: max(self._pool, 2 * k)]
        new = len(snapshot.item_ids) + 1
        item_index = np.array(
            [snapshot.rows.get(entry[0], new + at) for at, entry in enumerate(entries)], np.int64
        )
        score = np.array([entry[1] for entry in entries], dtype=np.float32)
        positions = self._rule()(
            item_index,
            score,
            k,
            vectors=self._vectors(snapshot, [entry[0] for entry in entries]),
            diversity=diversity,
        )
        return [entries[position] for position in positions.tolist()]

    def _vectors(self, snapshot: Snapshot, item_ids: list[str]) -> np.ndarray | None:
        manifest = snapshot.manifest
        if self._row_vectors is None or manifest is None or manifest.item_schema is None:
            return None
        rows = self._reader.item_rows(snapshot, item_ids)
        vectors = self._row_vectors(rows, manifest.item_schema)
        if vectors.shape[:1] != (len(item_ids),) or vectors.ndim != 2:
            raise ServingError(
                f"row_vectors must return [C, D] for {len(item_ids)} rows, "
                f"got shape {list(vectors.shape)}",
                stage="slate",
            )
        return vectors

    def _rule(self) -> SlateBuilder:
        if self._build is None:
            from recsys.ranking.slate import build_slate

            self._build = build_slate
        return self._build
