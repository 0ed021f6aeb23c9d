"""What a packed row holds: its fields, their types and the codes of their categories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from features.errors import DataError

__all__ = ["PackedField", "PackedType"]

PackedType = Literal["float32", "float16", "int32", "category"]
_NUMPY: Mapping[str, str] = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
_MOST_SHORT_CODES = 65_535


@dataclass(frozen=True)
class PackedField:
    """One field of a packed row.

    Attributes:
        name: the feature.
        dtype: "float32", "float16" (about three decimal digits, up to 65,504), "int32", or
            "category": the code of a known value, 1 for the first of ``values`` and so on, 0 for
            any other; two bytes, four for more than 65,535 values.
        width: numbers (or codes) in the field, >= 1.
        values: the known values of a category, as text. They are part of the schema; append new
            ones at the end, so that a code never changes its meaning.
        default: what rows of an older schema without this field read as; NaN: missing. None: such
            rows are refused. For a category, a code.

    Raises:
        DataError: an empty name, another type, width < 1, values that repeat or belong to no
            category, or a default the type cannot hold.
    """

    name: str
    dtype: PackedType = "float32"
    width: int = 1
    values: tuple[str, ...] = ()
    default: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DataError("name must not be empty; give every field its own name")
        if self.dtype not in get_args(PackedType):
            known = ", ".join(get_args(PackedType))
            raise DataError(
                f"field {self.name!r}: dtype must be one of {known}; got {self.dtype!r}"
            )
        if not isinstance(self.width, int) or self.width < 1:
            raise DataError(f"field {self.name!r}: width must be >= 1, got {self.width}")
        if bool(self.values) != (self.dtype == "category"):
            raise DataError(
                f"field {self.name!r}: values must be given for a category and for no other type, "
                f"got {len(self.values)} values of {self.dtype}"
            )
        if not all(isinstance(value, str) for value in self.values):
            raise DataError(f"field {self.name!r}: values must be text; turn them into strings")
        if len(set(self.values)) != len(self.values):
            raise DataError(f"field {self.name!r}: values must not repeat, got {self.values}")
        if self.default is not None:
            if math.isnan(self.default):
                object.__setattr__(self, "default", math.nan)  # one NaN, so that fields are equal
            fits = fits_type(self, np.array([self.default], dtype=np.float64))
            if not bool(fits.all()):
                raise DataError(
                    f"field {self.name!r}: default must be {rule_of(self)}, got {self.default}"
                )

    @property
    def numpy_type(self) -> str:
        """Of one number in the row."""
        if self.dtype != "category":
            return _NUMPY[self.dtype]
        return "<u2" if len(self.values) <= _MOST_SHORT_CODES else "<u4"

    @property
    def read_type(self) -> type[np.generic]:
        """Of the column read back: float32 for both float types, int32 for the others."""
        return np.float32 if self.dtype in ("float32", "float16") else np.int32

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; only what differs from the defaults, type and width always."""
        record: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "width": self.width}
        if self.values:
            record["values"] = list(self.values)
        if self.default is not None:
            record["default"] = "nan" if math.isnan(self.default) else self.default
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PackedField:
        """What `to_dict` gave.

        Raises:
            DataError: an unknown key, or a value that breaks the rules.
        """
        known = {"name", "dtype", "width", "values", "default"}
        unknown = sorted(set(record) - known)
        if unknown or "name" not in record:
            raise DataError(
                f"field {record.get('name', '?')!r} must have a name and of "
                f"{', '.join(sorted(known))} only; got {', '.join(unknown) or 'no name'}; read it "
                "with the version that wrote it"
            )
        arguments = dict(record)
        arguments["values"] = tuple(record.get("values", ()))
        if record.get("default") is not None:
            arguments["default"] = float(record["default"])
        return cls(**arguments)

    def column(self, given: Any) -> np.ndarray:
        """``given`` as numbers of the right shape: text of a category becomes codes.

        Args:
            given: [C], or [C, width] for width > 1.

        Returns:
            The same shape; the range of the numbers is not checked.

        Raises:
            DataError: another shape, or values that are neither numbers nor a category's text.
        """
        column = np.asarray(given)
        wanted = column.shape[:1] if self.width == 1 else (*column.shape[:1], self.width)
        if column.ndim == 0 or column.shape != wanted:
            shape = "[C]" if self.width == 1 else f"[C, {self.width}]"
            raise DataError(f"column {self.name!r} must be {shape}, got shape {column.shape}")
        if column.dtype.kind in "biuf":
            return column
        if self.dtype != "category" or column.dtype.kind not in "OUT":
            raise DataError(
                f"column {self.name!r} must be numbers ({self.dtype}), got {column.dtype}; cast it"
                + (" to text or to codes" if self.dtype == "category" else "")
            )
        try:
            text = pl.Series(column.reshape(-1).tolist(), dtype=pl.String, strict=True)
        except TypeError as error:
            raise DataError(
                f"column {self.name!r} must be text or codes (category): {error}; cast it"
            ) from error
        codes = range(1, len(self.values) + 1)
        coded = text.replace_strict(self.values, codes, default=0, return_dtype=pl.UInt32)
        return coded.to_numpy().reshape(column.shape)


def fits_type(field: PackedField, numbers: np.ndarray) -> np.ndarray:
    """Bool of the numbers' shape: the field can hold it."""
    if field.read_type is np.float32:
        if numbers.dtype.kind == "f" and numbers.dtype.itemsize <= int(field.numpy_type[-1]):
            return np.ones(numbers.shape, dtype=bool)
        within: np.ndarray = ~np.isfinite(numbers) | (np.abs(numbers) <= _largest(field))
        return within
    low, high = (0, len(field.values)) if field.values else (-(2**31), 2**31 - 1)
    fits: np.ndarray = (numbers >= low) & (numbers <= high)
    return fits if numbers.dtype.kind in "biu" else fits & (numbers == np.floor(numbers))


def rule_of(field: PackedField) -> str:
    """What the field can hold, for a message."""
    if field.dtype == "category":
        return f"text or codes 0..{len(field.values)} (category)"
    if field.dtype == "int32":
        return "whole numbers of 32 bits (int32)"
    return f"within +-{_largest(field):g} ({field.dtype})"


def _largest(field: PackedField) -> float:
    return float(np.finfo(np.dtype(field.numpy_type)).max)
