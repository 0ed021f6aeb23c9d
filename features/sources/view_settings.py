"""What has to be said about a view before its first row, and rows checked against it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from features.errors import DataError
from features.sources.point_in_time import as_utc
from features.sources.protocol import ViewDescription
from features.tables.schema import CREATED, TIMESTAMP

__all__ = ["ViewSettings"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FORMAT = 1


@dataclass(frozen=True)
class ViewSettings:
    """What a view's rows do not say themselves.

    Attributes:
        keys: its id columns, at least one.
        ttl: how long a row holds after its time; None: until a newer one comes.
        created: whether rows say when they were created, in the column ``created``.

    Raises:
        DataError: no key, a key that is a time or occurs twice, or a ttl that is not > 0.
    """

    keys: tuple[str, ...]
    ttl: timedelta | None = None
    created: bool = False

    def __post_init__(self) -> None:
        if not self.keys:
            raise DataError("keys must name at least one id column, got none")
        wrong = [name for name in self.keys if name in (TIMESTAMP, CREATED)]
        wrong += [name for name in self.keys if self.keys.count(name) > 1]
        if wrong:
            raise DataError(f"keys must be different id columns, got {wrong[0]!r}; rename it")
        if self.ttl is not None and self.ttl <= timedelta(0):
            raise DataError(f"ttl must be > 0, got {self.ttl}; None means that rows never expire")

    @property
    def leading(self) -> list[str]:
        """The columns that are no values, in the order they are kept in."""
        return [*self.keys, TIMESTAMP, *([CREATED] if self.created else [])]

    def describe(self, view: str, schema: Mapping[str, pl.DataType], rows: int) -> ViewDescription:
        """The description of a view with these settings and the columns of its rows."""
        values = {name: dtype for name, dtype in schema.items() if name not in self.leading}
        return ViewDescription(view, self.keys, values, rows, self.ttl, None, self.created)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        ttl_s = None if self.ttl is None else self.ttl.total_seconds()
        return {"format": _FORMAT, "keys": list(self.keys), "ttl_s": ttl_s, "created": self.created}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ViewSettings:
        """What `to_dict` gave.

        Raises:
            DataError: another format, or settings that break the rules.
        """
        if record.get("format") != _FORMAT:
            raise DataError(
                f"settings of a view must be of format {_FORMAT}, got {record.get('format')!r}; "
                "read them with the version that wrote them"
            )
        ttl = None if record["ttl_s"] is None else timedelta(seconds=record["ttl_s"])
        return cls(tuple(record["keys"]), ttl, record["created"])

    def checked(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows as they are kept: ids as text, times in UTC, the values last.

        Raises:
            DataError: a column is missing, a time is none, or an id or a time is null.
        """
        for name in self.leading:
            if name not in rows.columns:
                raise DataError(
                    f"rows must have the column {name!r}, got {', '.join(rows.columns) or 'none'}"
                )
        times = self.leading[len(self.keys) :]
        for name in times:
            if not isinstance(rows.schema[name], pl.Datetime):
                raise DataError(
                    f"rows: {name} must be a Datetime, got {rows.schema[name]}; cast it"
                )
        rows = rows.with_columns(
            *(pl.col(name).cast(pl.String) for name in self.keys),
            *(as_utc(name, rows.schema[name]) for name in times),
        )
        for name in self.leading:
            if missing := rows[name].null_count():
                raise DataError(
                    f"rows: {name} must not be null: {missing} of {rows.height} are; drop them"
                )
        return rows.select(*self.leading, pl.exclude(self.leading))


def first_settings(rows: pl.DataFrame) -> ViewSettings:
    """The settings of a view that nobody declared: its id column first, then the timestamp.

    Raises:
        DataError: the columns are others.
    """
    if rows.width < 2 or rows.columns[1] != TIMESTAMP:
        raise DataError(
            f"rows must have an id column, then {TIMESTAMP!r}, then values, got "
            f"{', '.join(rows.columns) or 'none'}; reorder them, or declare the view"
        )
    return ViewSettings((rows.columns[0],))


def check_view_name(view: str) -> None:
    """Refuse a name that is no name of a folder.

    Raises:
        DataError: other characters, or "-" or "." first.
    """
    if not is_view_name(view):
        raise DataError(f"view must be letters, digits, '_', '-', '.', got {view!r}; rename it")


def is_view_name(view: str) -> bool:
    """Whether a view can have this name."""
    return _NAME.fullmatch(view) is not None


def check_columns(view: str, rows: pl.DataFrame, earlier: Mapping[str, pl.DataType]) -> None:
    """Refuse rows with other columns than those of earlier writes.

    Raises:
        DataError: the columns, their types or their order differ.
    """
    if list(rows.schema.items()) != list(earlier.items()):
        raise DataError(
            f"rows must have the columns of earlier writes of view {view!r}, {dict(earlier)}, got "
            f"{dict(rows.schema)}; write a new view"
        )
