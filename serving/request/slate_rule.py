"""From allowed candidates to the slate of one answer: length, and the diversity knob."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from features.errors import DataError
from features.packing import PackedSchema
from serving.errors import ServingError
from serving.request.reader import GenerationReader
from serving.request.selection import Named
from serving.request.snapshot import Snapshot, item_schema

__all__ = ["FieldVectors", "RowVectors", "SlateBuilder", "SlateMaker", "vectors_of_field"]

RowVectors = Callable[[Sequence[bytes | None], str], np.ndarray]
"""(packed rows [C], item schema) -> [C, D] float32; a missing row gives zeros."""


@dataclass(frozen=True)
class FieldVectors:
    """Reads the vectors in one field of rows packed by `features.packing.schema`.

    The service reads such rows through its near cache.

    Attributes:
        field: name of the field that holds the vector.
    """

    field: str

    def __call__(self, rows: Sequence[bytes | None], schema: str) -> np.ndarray:
        """The vectors, [C, D] float32; see `RowVectors`.

        Raises:
            ServingError: the schema has no such field or cannot be read.
        """
        try:
            block = self.schema(schema).unpack(rows, fields=[self.field])
        except DataError as error:
            raise _unreadable(self.field, error) from error
        return block.values[self.field].reshape(len(rows), -1)

    def schema(self, text: str) -> PackedSchema:
        """The schema as the manifest has it.

        Raises:
            ServingError: it has no such field or cannot be read.
        """
        try:
            schema = item_schema(text)
        except ValueError as error:
            raise _unreadable(self.field, error) from error
        if self.field not in {field.name for field in schema.fields}:
            raise _unreadable(self.field, "the schema has none of that name")
        return schema


def vectors_of_field(name: str) -> FieldVectors:
    """A `RowVectors` that reads one field of rows packed by `features.packing.schema`.

    Args:
        name: of the field that holds the vector.
    """
    return FieldVectors(name)


def _unreadable(name: str, reason: object) -> ServingError:
    return ServingError(f"item rows have no readable field {name!r}: {reason}", stage="slate")


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
    """

    def __init__(
        self,
        reader: GenerationReader,
        *,
        row_vectors: RowVectors | None,
        build: SlateBuilder | None,
    ) -> None:
        self._reader = reader
        self._row_vectors = row_vectors
        self._build = build

    def choose(
        self, snapshot: Snapshot, entries: list[Named], k: int, diversity: float
    ) -> list[Named]:
        """At most ``k`` of ``entries``; without diversity the first ``k`` as they come.

        Raises:
            ServingError: the item rows could not be read.
        """
        if diversity <= 0.0 or len(entries) <= 1:
            return entries[:k]
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
        vectors = self._read(snapshot, item_ids, self._row_vectors, manifest.item_schema)
        if vectors.shape[:1] != (len(item_ids),) or vectors.ndim != 2:
            raise ServingError(
                f"row_vectors must return [C, D] for {len(item_ids)} rows, "
                f"got shape {list(vectors.shape)}",
                stage="slate",
            )
        return vectors

    def _read(
        self, snapshot: Snapshot, item_ids: list[str], row_vectors: RowVectors, schema: str
    ) -> np.ndarray:
        if not isinstance(row_vectors, FieldVectors):
            return row_vectors(self._reader.item_rows(snapshot, item_ids), schema)
        name = row_vectors.field
        block = self._reader.item_block(
            snapshot, item_ids, row_vectors.schema(schema), fields=[name]
        )
        return block.values[name].reshape(len(item_ids), -1)

    def _rule(self) -> SlateBuilder:
        if self._build is None:
            from recsys.ranking.slate import build_slate

            self._build = build_slate
        return self._build
