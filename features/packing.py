"""Feature rows of fixed width as bytes: what is published per item and read back per request.

A packed row is little-endian and has no padding:

    u32 schema id | field 0: width values of its type | field 1 | ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from features.errors import DataError

__all__ = ["FeatureBlock", "PackedField", "PackedSchema"]

PackedType = Literal["float32", "float16", "int32"]
_NUMPY: Mapping[str, str] = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
_FORMAT = 1


class FeatureBlock(NamedTuple):
    """Feature values of C candidates, column by column.

    Attributes:
        values: by field name, [C] (or [C, width] for width > 1); float32 for both float types,
            int32 for integers; zeros where the row is absent.
        present: [C] bool, False where there was no row.
        age_s: [C] float64, seconds since the row's event time; NaN where the row is absent. None:
            the rows carry no time.
    """

    values: dict[str, np.ndarray]
    present: np.ndarray
    age_s: np.ndarray | None = None


@dataclass(frozen=True)
class PackedField:
    """One field of a packed row.

    Attributes:
        name: the feature.
        dtype: "float32", "float16" (about three decimal digits, up to 65,504) or "int32".
        width: values in the field, >= 1.

    Raises:
        DataError: an empty name, another type, or width < 1.
    """

    name: str
    dtype: PackedType = "float32"
    width: int = 1

    def __post_init__(self) -> None:
        if not self.name:
            raise DataError("name must not be empty; give every field its own name")
        if self.dtype not in get_args(PackedType):
            known = ", ".join(get_args(PackedType))
            raise DataError(
                f"field {self.name!r}: dtype must be one of {known}; got {self.dtype!r}"
            )
        if self.width < 1:
            raise DataError(f"field {self.name!r}: width must be >= 1, got {self.width}")


@dataclass(frozen=True)
class PackedSchema:
    """The fields of a packed row, in order.

    Attributes:
        fields: at least one, with different names.

    Raises:
        DataError: no field, or a name used twice.
    """

    fields: tuple[PackedField, ...]

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if not names:
            raise DataError("fields must not be empty; give at least one")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"fields must have different names, got {twice[0]!r} twice")

    @cached_property
    def schema_id(self) -> int:
        """32 bits of the SHA-256 of the fields: written into every row."""
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "little")

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one packed row."""
        return self._dtype.itemsize

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        fields = [
            {"name": field.name, "dtype": field.dtype, "width": field.width}
            for field in self.fields
        ]
        return {"format": _FORMAT, "fields": fields}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PackedSchema:
        """What `to_dict` gave.

        Raises:
            DataError: another format, or fields that break the rules.
        """
        if record.get("format") != _FORMAT:
            raise DataError(
                f"schema must be of format {_FORMAT}, got {record.get('format')!r}; write it "
                "again with this version"
            )
        return cls(tuple(PackedField(**field) for field in record["fields"]))

    def pack(self, columns: Mapping[str, np.ndarray]) -> list[bytes]:
        """Rows of the columns' values; NaN stays NaN.

        Args:
            columns: by field name, [C] (or [C, width]) numbers; other names are ignored.

        Returns:
            C byte strings of `row_bytes` each.

        Raises:
            DataError: a field's column is missing or of another shape, a number is out of the
                range of its type, or an integer field is not finite.
        """
        checked = [self._column(field, columns) for field in self.fields]
        counts = {column.shape[0] for column in checked}
        if len(counts) != 1:
            raise DataError(f"columns must have one length, got {sorted(counts)}")
        rows = np.empty(counts.pop(), dtype=self._dtype)
        rows["schema"] = self.schema_id
        for place, column in enumerate(checked):
            rows[f"f{place}"] = column
        data, size = rows.tobytes(), self.row_bytes
        return [data[start : start + size] for start in range(0, len(data), size)]

    def unpack(self, blobs: Sequence[bytes | None]) -> FeatureBlock:
        """Columns of packed rows.

        Args:
            blobs: C rows, or None where there is none (an unknown id is no error).

        Raises:
            DataError: a row has another length or another schema id.
        """
        present = np.array([blob is not None for blob in blobs], dtype=bool)
        empty = bytes(self.row_bytes)
        parts = [empty if blob is None else blob for blob in blobs]
        for place, part in enumerate(parts):
            if len(part) != self.row_bytes:
                raise DataError(
                    f"row {place} must have {self.row_bytes} bytes, got {len(part)}; it was "
                    "packed with another schema"
                )
        rows = np.frombuffer(b"".join(parts), dtype=self._dtype)
        wrong = present & (rows["schema"] != self.schema_id)
        if bool(wrong.any()):
            place = int(np.argmax(wrong))
            raise DataError(
                f"row {place} must have the schema id {self.schema_id:#010x}, got "
                f"{int(rows['schema'][place]):#010x}; it was packed with another schema"
            )
        values = {
            field.name: rows[f"f{place}"].astype(np.int32 if field.dtype == "int32" else np.float32)
            for place, field in enumerate(self.fields)
        }
        return FeatureBlock(values, present)

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        parts: list[Any] = [("schema", "<u4")]
        for place, field in enumerate(self.fields):
            kind = _NUMPY[field.dtype]
            parts.append(
                (f"f{place}", kind) if field.width == 1 else (f"f{place}", kind, (field.width,))
            )
        return np.dtype(parts)

    def _column(self, field: PackedField, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        if field.name not in columns:
            raise DataError(
                f"columns must have {field.name!r}, got {', '.join(columns) or 'none'}; compute it "
                "or take the field out of the schema"
            )
        column = np.asarray(columns[field.name])
        wanted = column.shape[:1] if field.width == 1 else (*column.shape[:1], field.width)
        if column.ndim == 0 or column.shape != wanted:
            shape = "[C]" if field.width == 1 else f"[C, {field.width}]"
            raise DataError(f"column {field.name!r} must be {shape}, got shape {column.shape}")
        if field.dtype == "int32":
            limits = np.iinfo(np.int32)
            fits = np.isfinite(column) & (column >= limits.min) & (column <= limits.max)
            fits &= column == np.floor(column)
            rule = "whole numbers of 32 bits"
        else:
            largest = float(np.finfo(np.dtype(_NUMPY[field.dtype])).max)
            fits = ~np.isfinite(column) | (np.abs(column) <= largest)
            rule = f"within +-{largest:g}"
        if not bool(fits.all()):
            first = column[~fits].flat[0]
            raise DataError(
                f"column {field.name!r} must be {rule} ({field.dtype}), got {first}; choose "
                "another dtype"
            )
        return column
