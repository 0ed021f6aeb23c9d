"""Feature tables in memory: for tests, notebooks and small jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import polars as pl

from features.errors import DataError
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
)

__all__ = ["InMemorySource"]


class InMemorySource(TableSource):
    """A `FeatureSource` that keeps its rows in frames of this process."""

    def __init__(self) -> None:
        self._settings: dict[str, ViewSettings] = {}
        self._rows: dict[str, pl.DataFrame] = {}

    def declare(
        self,
        view: str,
        keys: Sequence[str],
        *,
        ttl: timedelta | None = None,
        created: bool = False,
    ) -> None:
        """Say what a view is before its first write; see `ParquetDirectory.declare`.

        Raises:
            DataError: the name or the settings break their rules, or the view has rows.
        """
        check_view_name(view)
        if view in self._rows:
            raise DataError(f"view {view!r} must have no rows yet to be declared; use a new name")
        self._settings[view] = ViewSettings(tuple(keys), ttl, created)

    def describe(self) -> list[ViewDescription]:
        """The views that have rows, sorted by name."""
        return [self._table(view).view for view in sorted(self._rows)]

    def scan(
        self, view: str, *, as_of: datetime | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pl.DataFrame]:
        """All rows in the order they were written.

        Raises:
            DataError: there is no such view, or ``batch_rows`` is < 1.
        """
        check_batch_rows(batch_rows)
        table = self._table(view)
        batches = self._rows[view].iter_slices(batch_rows)
        return batches if as_of is None else known_at(batches, as_of, created=table.view.created)

    def write(self, view: str, rows: pl.DataFrame) -> WriteReceipt:
        """Append rows to a view; see `ParquetDirectory.write`.

        Raises:
            DataError: the name is another one, an id or a time is null, or the columns are not
                those of earlier writes.
        """
        check_view_name(view)
        settings = self._settings.get(view) or first_settings(rows)
        rows = settings.checked(rows)
        earlier = self._rows.get(view)
        if earlier is not None:
            check_columns(view, rows, earlier.schema)
        self._settings[view] = settings
        self._rows[view] = rows if earlier is None else pl.concat([earlier, rows])
        return WriteReceipt(view, rows.height, ("memory",))

    def _table(self, view: str) -> ViewTable:
        rows = self._rows.get(view)
        if rows is None:
            raise unknown_view(view, self._rows, "memory")
        described = self._settings[view].describe(view, rows.schema, rows.height)
        return ViewTable(described, rows.lazy())
