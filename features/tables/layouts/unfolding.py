"""Which layout a table has, and its plain rows."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.tables.layouts.impressions import find_impressions, unfold_impressions
from features.tables.layouts.layout import FoundLayout, Place, Unfolding
from features.tables.layouts.lists import find_lists, unfold_lists
from features.tables.layouts.matrix import find_matrix, unfold_matrix
from features.tables.layouts.order_lines import (
    find_order_lines,
    lacks_orders,
    unfold_order_lines,
)
from features.tables.layouts.properties import unfold_properties
from features.tables.layouts.refused import refuse_columns
from features.tables.layouts.sequences import unfold_sequences

__all__ = ["detect_layout", "unfold"]

_FEW = 1_000
_FIND = (find_impressions, find_lists, find_matrix)
_UNFOLD = {
    "impressions": unfold_impressions,
    "sequences": unfold_sequences,
    "lists": unfold_lists,
    "matrix": unfold_matrix,
}


def detect_layout(
    frame: pl.DataFrame, *, orders: pl.DataFrame | None = None, source: str = "events"
) -> FoundLayout | None:
    """The layout of a log's table by its values; None: a row is an event.

    Sequences are lines and no table; `find_layout` finds them in a file.

    Args:
        frame: the table.
        orders: the table that says whose an order is.
        source: what to call the table in messages.

    Raises:
        DataError: the table is of a layout that is not read, or its orders are needed and missing.
    """
    if frame.is_empty():
        return None
    refuse_columns(source, frame.columns, frame.row(0))
    if orders is not None:
        found = find_order_lines(frame, orders)
        if found is None:
            raise DataError(
                f"{source}: layout 'order_lines': lines and orders must share a column that names "
                f"each order once, got {', '.join(frame.columns)} and {', '.join(orders.columns)}; "
                "name another file of orders"
            )
        return found
    few = frame.gather_every(max(frame.height // _FEW, 1))
    key = lacks_orders(few)
    if key is not None:
        raise DataError(
            f"{source} is of the layout 'order_lines': {key!r} names the order of a line, and who "
            "ordered and when stands elsewhere; name the file of the orders with --orders"
        )
    return next((found for find in _FIND if find(few) and (found := find(frame))), None)


def unfold(
    frame: pl.DataFrame,
    unfolding: Unfolding,
    *,
    source: str = "events",
    place: Place = "row {}".format,
    orders: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The plain rows of a table.

    >>> frame = pl.DataFrame({"user": ["a", "b"], "items": ["1 2", "3"]})
    >>> unfold(frame, Unfolding("lists", {"item_id": "items"}, ("items",)))["item_id"].to_list()
    ['1', '2', '3']

    Args:
        frame: the table.
        unfolding: its layout and what is known of it; the rest is found from the values.
        source: what to call the table in messages.
        place: says where a row stands.
        orders: of layout "order_lines", unless the unfolding holds the frame.

    Raises:
        DataError: a row is not of the layout.
    """
    if unfolding.layout == "rows":
        return frame
    if unfolding.layout == "order_lines":
        if orders is None and isinstance(unfolding.orders, pl.DataFrame):
            orders = unfolding.orders
        if orders is None:
            raise DataError(
                f"{source}: layout 'order_lines' needs the orders, got none; name their file in "
                "data.orders"
            )
        return unfold_order_lines(frame, orders, unfolding, source=source, place=place)
    if unfolding.layout == "properties":
        return unfold_properties(frame, unfolding, source=source).frame
    return _UNFOLD[unfolding.layout](frame, unfolding, source=source, place=place)
