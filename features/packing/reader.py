"""Packed rows of older schemas, read as rows of a newer one where nothing is lost.

A row says its schema. Rows of a known older schema are migrated, all others refused; no row is ever
read with a schema it was not packed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from features.errors import DataError
from features.packing.fields import PackedField
from features.packing.schema import FeatureBlock, PackedSchema

__all__ = ["Migration", "PackedReader", "migration"]

_ID_BYTES = 4


@dataclass(frozen=True)
class Migration:
    """Rows of one schema as rows of another. Make one with `migration`, which checks that it can.

    Attributes:
        old: the schema the rows have.
        new: the schema they get.
    """

    old: PackedSchema
    new: PackedSchema

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Rows in the new schema.

        Args:
            rows: [C, old.row_bytes] uint8, as `PackedSchema.to_rows` gives them.

        Returns:
            [C, new.row_bytes] uint8.
        """
        names = {field.name for field in self.old.fields}
        columns = {
            field.name: self.old.column(rows, field.name)
            if field.name in names
            else _default_column(field, len(rows))
            for field in self.new.fields
        }
        event_time = None
        if self.new.event_time:
            event_time = self.old.event_times(rows)
        return self.new.pack_rows(columns, event_time=event_time)


def migration(old: PackedSchema, new: PackedSchema) -> Migration:
    """How rows of ``old`` are read as rows of ``new``, if every value survives.

    Allowed: fields in another order, fields dropped, fields added that declare a default, float16
    to float32, a category with values appended, and an event time added (its age is then unknown)
    or dropped.

    Raises:
        DataError: anything else; the message names the field and the reason.
    """
    known = {field.name: field for field in old.fields}
    for field in new.fields:
        reason = _obstacle(known.get(field.name), field)
        if reason is not None:
            raise DataError(
                f"field {field.name!r} cannot be migrated: {reason}; publish the rows again with "
                "the new schema"
            )
    return Migration(old, new)


class PackedReader:
    """Reads packed rows of a schema and of its known predecessors, mixed as they come.

    Args:
        schema: what is read.
        older: schemas that rows may still have.

    Raises:
        DataError: an older schema cannot be migrated, or two schemas share an id.
    """

    def __init__(self, schema: PackedSchema, older: Sequence[PackedSchema] = ()) -> None:
        self.schema = schema
        self._migrations: dict[int, Migration] = {}
        for one in older:
            if one.schema_id == schema.schema_id and _layout(one) == _layout(schema):
                continue
            taken = self._migrations.get(one.schema_id)
            if one.schema_id == schema.schema_id or (
                taken is not None and _layout(taken.old) != _layout(one)
            ):
                raise DataError(
                    f"older must have different schema ids, got {one.schema_id:#010x} for two "
                    "schemas; rename a field of the newer one"
                )
            self._migrations[one.schema_id] = migration(one, schema)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as `to_rows` gives it."""
        return self.schema.row_bytes

    def unpack(
        self,
        blobs: Sequence[bytes | None],
        *,
        fields: Sequence[str] | None = None,
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """Columns of packed rows; as `PackedSchema.unpack`, older rows included.

        Raises:
            DataError: a row has an unknown schema id or a length that is not its schema's, or
                there is no such field.
        """
        rows, present = self.to_rows(blobs)
        return self.block(rows, present, fields=fields, moment=moment)

    def to_rows(self, blobs: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
        """Packed rows as one array of the newest schema; see `PackedSchema.to_rows`.

        Raises:
            DataError: a row has an unknown schema id, or a length that is not its schema's.
        """
        current = self.schema.schema_id.to_bytes(_ID_BYTES, "little")
        headers = {blob[:_ID_BYTES] for blob in blobs if blob is not None}
        if not headers or headers == {current}:
            return self.schema.to_rows(blobs)
        rows = np.zeros((len(blobs), self.row_bytes), dtype=np.uint8)
        present = np.zeros(len(blobs), dtype=bool)
        for header in sorted(headers):
            places = [
                place
                for place, blob in enumerate(blobs)
                if blob is not None and blob[:_ID_BYTES] == header
            ]
            rows[places] = self._rows_of(header, [blobs[place] for place in places], places)
            present[places] = True
        return rows, present

    def block(
        self,
        rows: np.ndarray,
        present: np.ndarray,
        *,
        fields: Sequence[str] | None = None,
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """Columns of rows that `to_rows` gave; see `PackedSchema.block`."""
        return self.schema.block(rows, present, fields=fields, moment=moment)

    def _rows_of(
        self, header: bytes, blobs: Sequence[bytes | None], places: Sequence[int]
    ) -> np.ndarray:
        schema_id = int.from_bytes(header, "little")
        if len(header) == _ID_BYTES and schema_id == self.schema.schema_id:
            schema, found = self.schema, None
        elif len(header) == _ID_BYTES and schema_id in self._migrations:
            found = self._migrations[schema_id]
            schema = found.old
        else:
            known = [self.schema.schema_id, *self._migrations]
            raise DataError(
                f"row {places[0]} must have a known schema id, got 0x{header[::-1].hex()}; known: "
                f"{', '.join(f'{one:#010x}' for one in known)}; publish it again, or name its "
                "schema as an older one"
            )
        for place, blob in zip(places, blobs, strict=True):
            if blob is not None and len(blob) != schema.row_bytes:
                raise DataError(
                    f"row {place} must have {schema.row_bytes} bytes, got {len(blob)}; it is "
                    "damaged"
                )
        rows, _ = schema.to_rows(blobs)
        return rows if found is None else found.rows(rows)


def _obstacle(old: PackedField | None, new: PackedField) -> str | None:
    if old is None:
        return None if new.default is not None else "it is new and declares no default"
    if old.width != new.width:
        return f"its width was {old.width} and is {new.width}"
    if old.dtype == "category" == new.dtype:
        return _vocabulary_obstacle(old.values, new.values)
    if old.dtype != new.dtype and (old.dtype, new.dtype) != ("float16", "float32"):
        return f"{old.dtype} to {new.dtype} can lose values"
    return None


def _vocabulary_obstacle(old: Sequence[str], new: Sequence[str]) -> str | None:
    if tuple(new[: len(old)]) == tuple(old):
        return None
    for place, value in enumerate(old):
        if place >= len(new):
            return f"its value {value!r} (code {place + 1}) was taken out"
        if new[place] != value:
            return f"code {place + 1} was {value!r} and is {new[place]!r}"
    return None


def _default_column(field: PackedField, count: int) -> np.ndarray:
    shape = count if field.width == 1 else (count, field.width)
    return np.full(shape, field.default, dtype=np.float64)


def _layout(schema: PackedSchema) -> tuple[object, ...]:
    fields = ((one.name, one.dtype, one.width, one.values) for one in schema.fields)
    return schema.event_time, *fields
