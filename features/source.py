"""Where feature tables live: the protocol, and a directory of Parquet files.

A view is a table of one entity with a time on every row: id column, timestamp, values. What holds
at a moment is, for each id, its newest row at or before that moment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import polars as pl

from features.errors import DataError
from features.schema import TIMESTAMP

__all__ = ["FeatureSource", "ParquetDirectory", "ViewDescription"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_PART = "part-{:06d}.parquet"


class ViewDescription(NamedTuple):
    """What a source knows of one view.

    Attributes:
        name: the view.
        entity: its id column.
        columns: the value columns and their types.
        rows: how many rows it has.
    """

    name: str
    entity: str
    columns: dict[str, pl.DataType]
    rows: int


@runtime_checkable
class FeatureSource(Protocol):
    """A feature store, as far as this library needs one."""

    def describe(self) -> list[ViewDescription]:
        """The views, sorted by name."""
        ...

    def as_of(self, view: str, keys: pl.DataFrame) -> pl.DataFrame:
        """Values as they stood at each key's own time.

        Args:
            view: the view's name.
            keys: R rows with the view's id column and ``timestamp`` Datetime("us").

        Returns:
            The R rows in the same order with the value columns; null where nothing was known.
        """
        ...

    def latest(self, view: str, ids: Sequence[str], moment: datetime | None = None) -> pl.DataFrame:
        """The newest values of each id at or before ``moment`` (None: of all), one row an id."""
        ...

    def scan(self, view: str) -> Iterator[pl.DataFrame]:
        """All rows, part by part."""
        ...

    def write(self, view: str, rows: pl.DataFrame) -> None:
        """Append rows: the id column first, then ``timestamp``, then the values."""
        ...


class ParquetDirectory:
    """A `FeatureSource` in a directory: one folder a view, one Parquet file a write.

    Files are never changed. A file is written under a temporary name and renamed, so a reader sees
    all of a write or nothing of it. One writer at a time.

    Args:
        root: the directory; made at the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    def describe(self) -> list[ViewDescription]:
        """The views, sorted by name."""
        found = []
        for folder in sorted(self._root.iterdir()) if self._root.is_dir() else []:
            parts = _parts(folder)
            if not parts:
                continue
            schema = dict(pl.read_parquet_schema(parts[0]))
            entity = next(iter(schema))
            values = {
                name: dtype for name, dtype in schema.items() if name not in (entity, TIMESTAMP)
            }
            rows = pl.scan_parquet(parts).select(pl.len()).collect().item()
            found.append(ViewDescription(folder.name, entity, values, int(rows)))
        return found

    def as_of(self, view: str, keys: pl.DataFrame) -> pl.DataFrame:
        """Values as they stood at each key's own time; see `FeatureSource.as_of`.

        Raises:
            DataError: there is no such view, or ``keys`` lacks its id column or the timestamp.
        """
        table = self._read(view)
        entity = table.columns[0]
        for name in (entity, TIMESTAMP):
            if name not in keys.columns:
                raise DataError(
                    f"keys must have the column {name!r} for view {view!r}, got "
                    f"{', '.join(keys.columns)}"
                )
        keys = keys.with_columns(
            pl.col(entity).cast(pl.String), pl.col(TIMESTAMP).cast(pl.Datetime("us"))
        )
        joined = (
            keys.with_row_index("__row")
            .sort(TIMESTAMP)
            .join_asof(
                table.sort(TIMESTAMP, maintain_order=True),
                on=TIMESTAMP,
                by=entity,
                strategy="backward",
                check_sortedness=False,
            )
        )
        return joined.sort("__row").drop("__row")

    def latest(self, view: str, ids: Sequence[str], moment: datetime | None = None) -> pl.DataFrame:
        """The newest values of each id at or before ``moment``; null where nothing was known.

        Raises:
            DataError: there is no such view.
        """
        table = self._read(view)
        if moment is not None:
            table = table.filter(pl.col(TIMESTAMP) <= moment)
        entity = table.columns[0]
        newest = table.sort(TIMESTAMP, maintain_order=True).unique(entity, keep="last")
        wanted = pl.DataFrame({entity: pl.Series(ids, dtype=pl.String)})
        return wanted.join(newest, on=entity, how="left", maintain_order="left")

    def scan(self, view: str) -> Iterator[pl.DataFrame]:
        """All rows, one frame a write, oldest write first.

        Raises:
            DataError: there is no such view.
        """
        for part in self._view_parts(view):
            yield pl.read_parquet(part)

    def write(self, view: str, rows: pl.DataFrame) -> None:
        """Append rows to a view, which exists from its first write on.

        Args:
            view: letters, digits, "_", "-" and "."; not starting with "-" or ".".
            rows: the id column first, then ``timestamp``, then the values.

        Raises:
            DataError: the name is another one, an id or a time is null, or the columns are not
                those of earlier writes.
        """
        if not _NAME.fullmatch(view):
            raise DataError(f"view must be letters, digits, '_', '-', '.', got {view!r}; rename it")
        if rows.width < 2 or rows.columns[1] != TIMESTAMP:
            raise DataError(
                f"rows must have an id column, then {TIMESTAMP!r}, then values, got "
                f"{', '.join(rows.columns) or 'none'}; reorder them"
            )
        entity = rows.columns[0]
        if not isinstance(rows.schema[TIMESTAMP], pl.Datetime):
            raise DataError(
                f"rows: {TIMESTAMP} must be a Datetime, got {rows.schema[TIMESTAMP]}; cast it"
            )
        rows = rows.with_columns(
            pl.col(entity).cast(pl.String), pl.col(TIMESTAMP).cast(pl.Datetime("us"))
        )
        for name in (entity, TIMESTAMP):
            if rows[name].null_count():
                raise DataError(
                    f"rows: {name} must not be null: {rows[name].null_count()} of {rows.height} "
                    "are; drop them"
                )
        folder = self._root / view
        parts = _parts(folder)
        if parts and dict(pl.read_parquet_schema(parts[0])) != dict(rows.schema):
            raise DataError(
                f"rows must have the columns of earlier writes of view {view!r}, "
                f"{dict(pl.read_parquet_schema(parts[0]))}, got {dict(rows.schema)}; "
                "write a new view"
            )
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / _PART.format(len(parts))
        partial = target.with_suffix(".tmp")
        rows.write_parquet(partial)
        os.replace(partial, target)

    def _view_parts(self, view: str) -> list[Path]:
        parts = _parts(self._root / view) if _NAME.fullmatch(view) else []
        if not parts:
            known = ", ".join(description.name for description in self.describe()) or "none"
            raise DataError(f"view {view!r} must exist in {self._root}; known: {known}")
        return parts

    def _read(self, view: str) -> pl.DataFrame:
        return pl.concat([pl.read_parquet(part) for part in self._view_parts(view)])


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet")) if folder.is_dir() else []
