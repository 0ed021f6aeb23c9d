"""Where feature tables live: what every feature store can do here.

A view is a table with a key (one id, or several such as user and item), the time of each row and
values. What holds at a moment is, for each key, its newest row at or before that moment:

- the row must have been known: where a view says when a row was created, a row created after the
  moment is not seen;
- of several rows with one time, the one created last holds; of those, the one written last;
- a row older than the view's ``ttl`` holds no longer, and then nothing does. A row exactly as old
  as its ``ttl`` still holds.

Times are UTC without a zone, to the microsecond.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import polars as pl

from features.errors import DataError
from features.packing.schema import FeatureBlock

__all__ = ["FeatureSource", "Id", "ViewDescription", "WriteReceipt"]

BATCH_ROWS = 65_536

Id: TypeAlias = str | int


class ViewDescription(NamedTuple):
    """What a source knows of one view.

    Attributes:
        name: the view.
        keys: its id columns; two for a view of users and items.
        columns: the value columns and their types.
        rows: how many rows it has; None: counting them would read them.
        ttl: how long a row holds after its time; None: until a newer one comes.
        version: which definition of the view this is, as the store names it; None: it has no
            versions.
        created: whether rows say when they were created.
    """

    name: str
    keys: tuple[str, ...]
    columns: dict[str, pl.DataType]
    rows: int | None = None
    ttl: timedelta | None = None
    version: str | None = None
    created: bool = False


class WriteReceipt(NamedTuple):
    """What a write did.

    Attributes:
        view: the view written to.
        rows: rows handed to the store. A store may keep a newer row that it already has.
        stores: which stores took them, such as ("online", "offline").
        version: the view's version; None: it has no versions.
    """

    view: str
    rows: int
    stores: tuple[str, ...]
    version: str | None = None


@runtime_checkable
class FeatureSource(Protocol):
    """A feature store, as far as this library needs one."""

    def describe(self) -> list[ViewDescription]:
        """The views, sorted by name."""
        ...

    def as_of(
        self, views: str | Sequence[str], keys: pl.DataFrame, *, full_names: bool = False
    ) -> pl.DataFrame:
        """Values as they stood at each row's own moment.

        Args:
            views: one view or several.
            keys: R rows with the views' id columns and ``timestamp``, a Datetime; other columns
                are carried along.
            full_names: name the values ``view__column``. False: ``column``, which must then be
                one view's only.

        Returns:
            The R rows as they came, in the same order, and after them the values; null where
            nothing held. Equal rows stay as many as they were.
        """
        ...

    def latest(
        self,
        view: str,
        ids: Sequence[Id] | Sequence[tuple[Id, ...]],
        moment: datetime | None = None,
    ) -> FeatureBlock:
        """What holds for each id at one moment; an id that nobody knows is absent, no error.

        Args:
            view: the view.
            ids: C ids, or C tuples of one id a key column.
            moment: UTC. None: now.

        Returns:
            By column, [C] float32 for Float32 and booleans, [C] float64 for other numbers, [C]
            datetime64 for times, [C, width] for `polars.Array`, otherwise [C] objects (text,
            lists as arrays). Absent or null: NaN, NaT or None. Ages count from ``moment``.
        """
        ...

    def scan(
        self, view: str, *, as_of: datetime | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pl.DataFrame]:
        """All rows of a view, a batch at a time.

        Args:
            view: the view.
            as_of: UTC; only rows that were known then. None: all.
            batch_rows: the most rows a batch may have.

        Yields:
            Frames with the id columns, ``timestamp``, ``created`` where the view has it, and the
            values.
        """
        ...

    def write(self, view: str, rows: pl.DataFrame) -> WriteReceipt:
        """Add rows: the id columns, ``timestamp``, ``created`` where the view has it, values."""
        ...


def unknown_view(name: str, known: Iterable[str], where: str) -> DataError:
    """The error of a view that is not there, naming the nearest one that is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    return DataError(f"view {name!r} must exist in {where}; {hint}")


def check_batch_rows(batch_rows: int) -> None:
    """Refuse a batch of no rows.

    Raises:
        DataError: ``batch_rows`` is < 1.
    """
    if batch_rows < 1:
        raise DataError(f"batch_rows must be >= 1, got {batch_rows}")
