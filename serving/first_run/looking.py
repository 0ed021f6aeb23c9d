"""A look at the log that a configuration names, for `recsys init` and `recsys validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from features.tables import Tables
    from features.tables.preview import Preview

__all__ = ["look"]


def look(tables: Tables) -> Preview | None:
    """What the log holds; None: it cannot be read."""
    import polars as pl

    from features.errors import DataError
    from features.tables.preview import preview

    try:
        return preview(tables)
    except (DataError, OSError, pl.exceptions.PolarsError):
        return None  # the problems say it
