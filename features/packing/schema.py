"""Feature rows of fixed width as bytes: what is published per item and read back per request.

A packed row is little-endian and has no padding:

    u32 schema id | [i64 event time] | field 0: width values of its type | field 1 | ...

The schema id is a digest of what decides the layout and the meaning of every number, so a row is
read with the schema it was packed with or refused; `features.packing.reader` reads older rows too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from features.errors import DataError
from features.packing.fields import PackedField, fits_type, rule_of

__all__ = ["FeatureBlock", "PackedField", "PackedSchema"]

_FORMATS = (1, 2)
_ID_BYTES = 4
_TIME_BYTES = 8
_NO_TIME = int(np.iinfo(np.int64).min)


class FeatureBlock(NamedTuple):
    """Feature values of C candidates, column by column.

    Attributes:
        values: by field name, [C] (or [C, width] for width > 1); float32 for both float types,
            int32 for integers and codes; zeros where the row is absent.
        present: [C] bool, False where there was no row.
        age_s: [C] float64, seconds since the row's event time; NaN where the row is absent. None:
            the rows carry no time.
    """

    values: dict[str, np.ndarray]
    present: np.ndarray
    age_s: np.ndarray | None = None


class _Run(NamedTuple):
    """Neighbouring fields that are read and written at once.

    Attributes:
        fields: of one type and range; several only if each is one number wide.
        start: first byte in the row.
        stop: behind the last byte.
    """

    fields: tuple[PackedField, ...]
    start: int
    stop: int

    def of(self, rows: np.ndarray) -> np.ndarray:
        """[C, numbers of the run], a view into the rows."""
        return rows[:, self.start : self.stop].view(self.fields[0].numpy_type)


@dataclass(frozen=True)
class PackedSchema:
    """The fields of a packed row, in order.

    Attributes:
        fields: at least one, with different names.
        event_time: rows say when their values held, so that reading them gives an age.

    Raises:
        DataError: no field, or a name used twice.
    """

    fields: tuple[PackedField, ...]
    event_time: bool = False

    def __post_init__(self) -> None:
        names = [field.name for field in self.fields]
        if not names:
            raise DataError("fields must not be empty; give at least one")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"fields must have different names, got {twice[0]!r} twice")

    @cached_property
    def schema_id(self) -> int:
        """32 bits of the SHA-256 of the fields: written into every row.

        Defaults take no part: they say how to read rows of other schemas.
        """
        layout = _as_dict(self, with_defaults=False)
        digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:_ID_BYTES], "little")

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one packed row."""
        return self._runs[-1].stop

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return _as_dict(self, with_defaults=True)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PackedSchema:
        """What `to_dict` gave, now or in an older version.

        Raises:
            DataError: another format, or fields that break the rules.
        """
        try:
            written = record.get("format")
            if written not in _FORMATS:
                raise DataError(
                    f"schema must be of format 1 or 2, got {written!r}; write it again with this "
                    "version"
                )
            fields = tuple(PackedField.from_dict(field) for field in record.get("fields", ()))
            return cls(fields, event_time=bool(record.get("event_time", False)))
        except DataError:
            raise
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"schema is damaged ({error}); write it again") from error

    def pack(
        self, columns: Mapping[str, Any], *, event_time: np.ndarray | None = None
    ) -> list[bytes]:
        """Rows of the columns' values; NaN stays NaN.

        Args:
            columns: by field name, [C] (or [C, width]) numbers, or text for a category (null and
                unknown values become 0); other names are ignored.
            event_time: [C] when the values held, datetime64 or int64 microseconds, UTC; NaT is
                unknown. Given if and only if the schema has `event_time`.

        Returns:
            C byte strings of `row_bytes` each.

        Raises:
            DataError: a field's column is missing or of another shape, a number is out of the
                range of its type, an integer field is not finite, or event times are missing or
                not wanted.
        """
        rows = self.pack_rows(columns, event_time=event_time)
        if len(rows) == 0:
            return []
        found: list[bytes] = rows.view(f"V{self.row_bytes}")[:, 0].tolist()
        return found

    def pack_rows(
        self, columns: Mapping[str, Any], *, event_time: np.ndarray | None = None
    ) -> np.ndarray:
        """What `pack` gives, as one array [C, row_bytes] uint8; arguments and errors as there."""
        given = [field.column(_needed(field, columns)) for field in self.fields]
        counts = {len(column) for column in given}
        if len(counts) != 1:
            raise DataError(f"columns must have one length, got {sorted(counts)}")
        rows = np.empty((counts.pop(), self.row_bytes), dtype=np.uint8)
        rows[:, :_ID_BYTES].view("<u4")[:] = self.schema_id
        self._write_time(rows, event_time)
        place = 0
        for run in self._runs:
            part = given[place : place + len(run.fields)]
            place += len(run.fields)
            numbers = part[0].T if run.fields[0].width > 1 else np.stack(part)
            _check_range(run, numbers)
            run.of(rows)[:] = numbers.T
        return rows

    def unpack(
        self,
        blobs: Sequence[bytes | None],
        *,
        fields: Sequence[str] | None = None,
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """Columns of packed rows.

        Args:
            blobs: C rows, or None where there is none (an unknown id is no error).
            fields: names of the fields to read. None: all.
            moment: UTC time without zone that ages are taken at. None: the clock.

        Raises:
            DataError: a row has another length or another schema id, or there is no such field.
        """
        rows, present = self.to_rows(blobs)
        return self.block(rows, present, fields=fields, moment=moment)

    def to_rows(self, blobs: Sequence[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
        """Packed rows as one array.

        Returns:
            ([C, row_bytes] uint8, zeros where there is no row; [C] bool, where there is one).

        Raises:
            DataError: a row has another length or another schema id.
        """
        present = np.ones(len(blobs), dtype=bool)
        parts: Sequence[Any] = blobs
        if None in blobs:
            present = np.array([blob is not None for blob in blobs], dtype=bool)
            empty = bytes(self.row_bytes)
            parts = [empty if blob is None else blob for blob in blobs]
        if set(map(len, parts)) - {self.row_bytes}:
            place = next(i for i, part in enumerate(parts) if len(part) != self.row_bytes)
            raise DataError(
                f"row {place} must have {self.row_bytes} bytes, got {len(parts[place])}; it was "
                "packed with another schema"
            )
        rows = np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), self.row_bytes)
        found = rows[:, :_ID_BYTES].view("<u4")[:, 0]
        wrong = present & (found != self.schema_id)
        if bool(wrong.any()):
            place = int(np.argmax(wrong))
            raise DataError(
                f"row {place} must have the schema id {self.schema_id:#010x}, got "
                f"{int(found[place]):#010x}; it was packed with another schema"
            )
        return rows, present

    def block(
        self,
        rows: np.ndarray,
        present: np.ndarray,
        *,
        fields: Sequence[str] | None = None,
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """Columns of rows that `to_rows` or `pack_rows` gave; arguments as in `unpack`.

        Args:
            rows: [C, row_bytes] uint8.
            present: [C] bool.
            fields: names of the fields to read. None: all.
            moment: UTC time without zone that ages are taken at. None: the clock.

        Raises:
            DataError: there is no such field.
        """
        values: dict[str, np.ndarray] = {}
        for run in self._runs if fields is None else self._runs_of(fields):
            numbers, read_type = run.of(rows), run.fields[0].read_type
            if run.fields[0].width > 1:
                values[run.fields[0].name] = numbers.astype(read_type)
            else:
                columns = numbers.T.astype(read_type, order="C")
                values.update(zip((field.name for field in run.fields), columns, strict=True))
        return FeatureBlock(values, present, self._age(rows, present, moment))

    def column(self, rows: np.ndarray, name: str) -> np.ndarray:
        """One field of such rows in its stored type, a view: [C] or [C, width].

        Raises:
            DataError: there is no such field.
        """
        (run,) = self._runs_of([name])
        view = run.of(rows)
        return view if run.fields[0].width > 1 else view[:, 0]

    def event_times(self, rows: np.ndarray) -> np.ndarray:
        """[C] int64 microseconds, UTC; NaT's number where a row says none or has no place for it.

        Args:
            rows: [C, row_bytes] uint8.
        """
        if not self.event_time:
            return np.full(len(rows), _NO_TIME, dtype=np.int64)
        return rows[:, _ID_BYTES : _ID_BYTES + _TIME_BYTES].view("<i8")[:, 0]

    @cached_property
    def _runs(self) -> tuple[_Run, ...]:
        def alike(place: int) -> tuple[Any, ...]:
            field = self.fields[place]
            return field.dtype, len(field.values), place if field.width > 1 else -1

        runs, start = [], _ID_BYTES + _TIME_BYTES * self.event_time
        for _, places in groupby(range(len(self.fields)), key=alike):
            fields = tuple(self.fields[place] for place in places)
            size = sum(field.width for field in fields) * np.dtype(fields[0].numpy_type).itemsize
            runs.append(_Run(fields, start, start + size))
            start += size
        return tuple(runs)

    @cached_property
    def _run_of(self) -> dict[str, _Run]:
        found = {}
        for run in self._runs:
            size = (run.stop - run.start) // len(run.fields)
            for place, field in enumerate(run.fields):
                start = run.start + place * size
                found[field.name] = _Run((field,), start, start + size)
        return found

    def _runs_of(self, names: Sequence[str]) -> list[_Run]:
        for name in names:
            if name not in self._run_of:
                raise DataError(
                    f"fields must name fields of the schema, got {name!r}; it has "
                    f"{', '.join(self._run_of)}"
                )
        return [self._run_of[name] for name in names]

    def _write_time(self, rows: np.ndarray, event_time: np.ndarray | None) -> None:
        if (event_time is not None) != self.event_time:
            raise DataError(
                "event_time must be given if and only if the schema has it, got "
                f"{'none' if event_time is None else 'some'} with event_time={self.event_time}"
            )
        if event_time is None:
            return
        times = np.asarray(event_time)
        if times.shape != rows.shape[:1] or times.dtype.kind not in "Mi":
            raise DataError(
                "event_time must be [C] datetime64 or int64 microseconds, got shape "
                f"{times.shape} of {times.dtype} for {len(rows)} rows"
            )
        if times.dtype.kind == "M":
            times = times.astype("datetime64[us]").view(np.int64)
        self.event_times(rows)[:] = times

    def _age(
        self, rows: np.ndarray, present: np.ndarray, moment: datetime | None
    ) -> np.ndarray | None:
        if not self.event_time:
            return None
        now = np.datetime64(moment or datetime.now(UTC).replace(tzinfo=None), "us").view(np.int64)
        times = self.event_times(rows)
        known = present & (times != _NO_TIME)
        return np.where(known, (now - np.where(known, times, now)) / 1e6, np.nan)


def _as_dict(schema: PackedSchema, *, with_defaults: bool) -> dict[str, Any]:
    fields = [field.to_dict() for field in schema.fields]
    if not with_defaults:
        fields = [{k: v for k, v in field.items() if k != "default"} for field in fields]
    plain = not schema.event_time and all(len(field) == 3 for field in fields)
    record: dict[str, Any] = {"format": 1 if plain else 2, "fields": fields}
    if schema.event_time:
        record["event_time"] = True
    return record


def _needed(field: PackedField, columns: Mapping[str, Any]) -> Any:
    if field.name not in columns:
        raise DataError(
            f"columns must have {field.name!r}, got {', '.join(columns) or 'none'}; compute it "
            "or take the field out of the schema"
        )
    return columns[field.name]


def _check_range(run: _Run, numbers: np.ndarray) -> None:
    """Numbers [fields of the run, C], or [width, C] of one field."""
    fits = fits_type(run.fields[0], numbers)
    if not bool(fits.all()):
        place = int(np.argmax(~fits.all(axis=1)))
        field = run.fields[place if len(run.fields) > 1 else 0]
        raise DataError(
            f"column {field.name!r} must be {rule_of(field)}, got {numbers[~fits][0]}; choose "
            "another dtype"
        )
