"""A catalogue where there is no table of items: the log's, with what its rows say of them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from features.tables.schema import ITEM

__all__ = ["items_of_log"]

_KEY, _COUNT = "__item", "__count"


def items_of_log(
    raw: pl.DataFrame, column: str, ids: pl.Series, names: Sequence[str]
) -> pl.DataFrame:
    """One row an item with the value that most of its rows have in each column.

    Of values that as many rows have the one that stands first in the log is taken.

    Args:
        raw: the log's rows as they are.
        column: with the ids of items.
        ids: of the catalogue, in its order.
        names: columns of ``raw`` that describe items.

    Returns:
        item_id and ``names``; null where no row says anything.
    """
    items = ids.rename(ITEM).to_frame()
    rows = raw.select(pl.col(column).cast(pl.String).alias(_KEY), *(pl.col(name) for name in names))
    for name in names:
        counted = (
            rows.select(_KEY, pl.col(name))
            .drop_nulls()
            .group_by(_KEY, name, maintain_order=True)
            .len(_COUNT)
            .sort(_COUNT, descending=True, maintain_order=True)
            .unique(_KEY, keep="first", maintain_order=True)
            .select(pl.col(_KEY).alias(ITEM), pl.col(name))
        )
        items = items.join(counted, on=ITEM, how="left", maintain_order="left")
    return items
