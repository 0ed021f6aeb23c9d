"""Feature tables in a directory of Parquet files.

    root/<view>/view.json            keys, ttl, whether rows have a creation time
    root/<view>/part-000000.parquet  one file a write, never changed

A view without ``view.json`` has its first column as its key, no ttl and no creation times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from features.sources.parquet_batches import parquet_batches
from features.sources.point_in_time import ViewTable, known_at
from features.sources.protocol import (
    BATCH_ROWS,
    ViewDescription,
    WriteReceipt,
    check_batch_rows,
    unknown_view,
)
from features.sources.table_source import TableSource
from features.sources.view_settings import (
    ViewSettings,
    check_columns,
    check_view_name,
    first_settings,
    is_view_name,
)
from features.whole_files import whole_file

__all__ = ["ParquetDirectory"]

_PART = "part-{:06d}.parquet"
_SETTINGS = "view.json"


class ParquetDirectory(TableSource):
    """A `FeatureSource` in a directory: one folder a view, one Parquet file a write.

    Files are never changed. A file is written under a temporary name and renamed, so a reader sees
    all of a write or nothing of it. One writer at a time.

    Args:
        root: the directory; made at the first write.
    """

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    def declare(
        self,
        view: str,
        keys: Sequence[str],
        *,
        ttl: timedelta | None = None,
        created: bool = False,
    ) -> None:
        """Say what a view is before its first write.

        Args:
            view: letters, digits, "_", "-" and "."; not starting with "-" or ".".
            keys: its id columns, such as ("user_id", "item_id").
            ttl: how long a row holds after its time; None: until a newer one comes. It may be
                declared anew at any time.
            created: whether rows say when they were created, in the column ``created``.

        Raises:
            DataError: the name or the settings break their rules, or the view has rows with other
                columns.
        """
        check_view_name(view)
        settings = ViewSettings(tuple(keys), ttl, created)
        folder = self._root / view
        if parts := _parts(folder):
            earlier = pl.read_parquet_schema(parts[0])
            check_columns(view, settings.checked(pl.DataFrame(schema=earlier)), earlier)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / _SETTINGS) as draft:
            draft.write_text(json.dumps(settings.to_dict(), indent=2) + "\n")

    def describe(self) -> list[ViewDescription]:
        """The views that have rows, sorted by name."""
        folders = sorted(self._root.iterdir()) if self._root.is_dir() else []
        return [_describe(folder, parts) for folder in folders if (parts := _parts(folder))]

    def scan(
        self, view: str, *, as_of: datetime | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pl.DataFrame]:
        """All rows, oldest write first; one batch is read at a time.

        Raises:
            DataError: there is no such view, or ``batch_rows`` is < 1.
        """
        check_batch_rows(batch_rows)
        parts = self._view_parts(view)
        created = _settings(self._root / view, parts).created
        batches = parquet_batches(parts, batch_rows)
        return batches if as_of is None else known_at(batches, as_of, created=created)

    def write(self, view: str, rows: pl.DataFrame) -> WriteReceipt:
        """Append rows to a view; a view nobody declared exists from its first write on.

        Args:
            view: letters, digits, "_", "-" and "."; not starting with "-" or ".".
            rows: the view's id columns, ``timestamp``, ``created`` where it is declared, and the
                values; undeclared: the id column first, then ``timestamp``.

        Raises:
            DataError: the name is another one, an id or a time is null, or the columns are not
                those of earlier writes.
        """
        check_view_name(view)
        folder = self._root / view
        parts = _parts(folder)
        if parts or (folder / _SETTINGS).is_file():
            rows = _settings(folder, parts).checked(rows)
        else:
            rows = first_settings(rows).checked(rows)
        if parts:
            check_columns(view, rows, pl.read_parquet_schema(parts[0]))
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / _PART.format(len(parts))
        with whole_file(target) as draft:
            rows.write_parquet(draft)
        return WriteReceipt(view, rows.height, ("parquet",))

    def _view_parts(self, view: str) -> list[Path]:
        parts = _parts(self._root / view) if is_view_name(view) else []
        if not parts:
            known = [description.name for description in self.describe()]
            raise unknown_view(view, known, str(self._root))
        return parts

    def _table(self, view: str) -> ViewTable:
        parts = self._view_parts(view)
        return ViewTable(_describe(self._root / view, parts), pl.scan_parquet(parts))


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet")) if folder.is_dir() else []


def _settings(folder: Path, parts: Sequence[Path]) -> ViewSettings:
    path = folder / _SETTINGS
    if path.is_file():
        return ViewSettings.from_dict(json.loads(path.read_text()))
    return ViewSettings((next(iter(pl.read_parquet_schema(parts[0]))),))


def _describe(folder: Path, parts: Sequence[Path]) -> ViewDescription:
    rows = pl.scan_parquet(list(parts)).select(pl.len()).collect().item()
    schema = pl.read_parquet_schema(parts[0])
    return _settings(folder, parts).describe(folder.name, schema, int(rows))
