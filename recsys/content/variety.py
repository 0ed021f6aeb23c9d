"""How many items a catalogue can tell apart by what it says of them."""

from __future__ import annotations

import polars as pl

from features.tables import ItemTable

__all__ = ["different_descriptions"]


def different_descriptions(items: ItemTable) -> int:
    """Number of items that differ in a text, a category, a list or a number; 1 if none do.

    An upper bound of the different content vectors: equal rows have equal ones.
    """
    columns = [
        pl.col(name).list.join("\x1f", ignore_nulls=True).replace("", None)
        for name in items.list_columns
    ]
    columns += [
        pl.col(name).cast(pl.String).str.strip_chars().replace("", None)
        for name in (*items.text_columns, *items.category_columns)
    ]
    columns += [
        pl.col(name).cast(pl.Float64).fill_nan(None)
        for name in items.number_columns
        if name not in (*items.text_columns, *items.category_columns, *items.list_columns)
    ]
    if not columns or not len(items):
        return min(1, len(items))
    return items.frame.select(columns).unique().height
