"""Order lines: a row is an item of an order, and another table says whose order it is and when."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from features.errors import DataError
from features.tables.layouts.columns import called, check_columns, is_time, renamed
from features.tables.layouts.layout import (
    ORDER,
    POSITION,
    TIMESTAMP,
    USER,
    FoundLayout,
    Place,
    Unfolding,
)

__all__ = ["find_order_lines", "lacks_orders", "unfold_order_lines"]

_NUMBER = "order_number"


def lacks_orders(frame: pl.DataFrame) -> str | None:
    """The id of an order in lines that say neither who ordered nor when; None: they are no such."""
    names = frame.columns
    orders = [name for name in called(names, "order") if name.lower().endswith("id")]
    if not orders or called(names, "user") or any(is_time(frame[name]) for name in names):
        return None
    return orders[0] if called(names, "item") else None


def find_order_lines(lines: pl.DataFrame, orders: pl.DataFrame) -> FoundLayout | None:
    """The id that lines and orders share, the user, and the time or the number of an order."""
    shared = [name for name in lines.columns if name in orders.columns]
    keys = [name for name in shared if orders[name].n_unique() == orders.height]
    keys = called(keys, "order") or keys
    if not keys:
        return None
    columns = {ORDER: keys[0]}
    rest = [name for name in orders.columns if name not in shared]
    users = called(rest, "user")
    if users:
        columns[USER] = users[0]
    times = [name for name in called(rest, "time") if is_time(orders[name])]
    times += [name for name in rest if name not in times and is_time(orders[name])]
    if times:
        columns[TIMESTAMP] = times[0]
    elif users:
        numbers = _numbers(orders, users[0], [name for name in rest if name != users[0]])
        if numbers:
            columns[_NUMBER] = numbers[0]
    if TIMESTAMP in columns:
        told = f"their time is {columns[TIMESTAMP]!r}"
    else:
        number = repr(columns[_NUMBER]) if _NUMBER in columns else "that of the file"
        told = f"there is no time, and the orders' order is {number}"
    return FoundLayout(
        Unfolding("order_lines", columns),
        f"lines are joined with their orders by {keys[0]!r}; {told}",
    )


def _numbers(orders: pl.DataFrame, user: str, names: Sequence[str]) -> list[str]:
    """Columns that count the orders of each user."""
    found = []
    for name in names:
        numbers = orders[name].cast(pl.Int64, strict=False)
        if numbers.null_count():
            continue
        each = pl.DataFrame({"user": orders[user], "number": numbers}).group_by("user")
        spread = each.agg(
            (pl.col("number").n_unique() == pl.len())
            & (pl.col("number").max() - pl.col("number").min() == pl.len() - 1)
        )
        if bool(spread["number"].all()) and numbers.n_unique() < len(numbers):
            found.append(name)
    return found


def unfold_order_lines(
    frame: pl.DataFrame, orders: pl.DataFrame, unfolding: Unfolding, *, source: str, place: Place
) -> pl.DataFrame:
    """Each line with what is known of its order.

    Without times an order's number, or its place in the file, is its position.
    A column of the orders that the lines have as well is called ``name_of_order``.

    Raises:
        DataError: a column is missing, an order stands twice, or a line is of no order.
    """
    columns = dict(unfolding.columns)
    if ORDER not in columns:
        found = find_order_lines(frame, orders)
        if found is None:
            raise DataError(
                f"{source}: lines and orders must share a column that names each order once, got "
                f"{', '.join(frame.columns)} and {', '.join(orders.columns)}; name it as 'order_id'"
            )
        columns = {**found.unfolding.columns, **columns}
    key = columns.pop(ORDER)
    check_columns(frame, {ORDER: key}, source)
    check_columns(orders, {ORDER: key, **columns}, f"{source}, the orders")
    orders = orders.with_columns(pl.col(key).cast(pl.String))
    frame = frame.with_columns(pl.col(key).cast(pl.String))
    twice = orders.filter(pl.col(key).is_duplicated())
    if twice.height:
        raise DataError(
            f"{source}: the orders must have one row for each {key!r}, got {twice.height:,} rows "
            f"of orders that stand twice, first {twice[key][0]!r}; keep one row of each"
        )
    _check_orders(frame, orders, key, source, place)
    orders = renamed(_timed(orders, columns), columns, f"{source}, the orders")
    joined = frame.join(orders, on=key, how="left", suffix="_of_order", maintain_order="left")
    return renamed(joined, {ORDER: key}, source)


def _check_orders(
    frame: pl.DataFrame, orders: pl.DataFrame, key: str, source: str, place: Place
) -> None:
    lost = (~frame[key].is_in(orders[key].implode())).fill_null(value=True).arg_true()
    if len(lost):
        row = int(lost[0])
        raise DataError(
            f"{source}: {place(row)} must be of one of the orders, got {frame[key][row]!r} in "
            f"{key!r} ({len(lost):,} such lines); add the orders, or drop the lines"
        )


def _timed(orders: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    """With a position in place of a time where there is none."""
    if TIMESTAMP in columns:
        return orders
    if _NUMBER in columns:
        place = pl.col(columns[_NUMBER]).cast(pl.Int64)
    else:
        user = columns.get(USER)
        count = pl.int_range(1, pl.len() + 1)
        place = count if user is None else count.over(user)
    columns.pop(_NUMBER, None)
    return orders.with_columns(place.alias(POSITION))
