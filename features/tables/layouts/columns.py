"""Columns of a table by their names and their values, and times that are none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import polars as pl

from features.errors import DataError
from features.tables.layouts.layout import Unfolding
from features.tables.times import detect, time_in_microseconds

__all__ = ["called", "check_columns", "is_time", "moments_of", "need", "renamed"]

_NAMES = {
    "user": r"(user|visitor|customer|client|member|account|person|profile|uid|viewer|reviewer)",
    "item": r"(item|product|article|movie|track|song|news|book|sku|asin|video|game|iid|isbn)",
    "time": r"(time|date|timestamp|when|ts|at)",
    "order": r"(order|basket|invoice|transaction|receipt|cart)",
}


def called(names: Sequence[str], role: str) -> list[str]:
    """Those called like a role: "user", "item", "time" or "order"; ids first.

    >>> called(["order_number", "order_id", "when"], "order")
    ['order_id', 'order_number']
    """
    whole = re.compile(rf"(?:^|[^a-z]|(?<=[a-z])){_NAMES[role]}s?(?:[^a-z]|ids?$|$)")
    snake = {name: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in names}
    found = [name for name in names if whole.search(snake[name])]
    return sorted(found, key=lambda name: not snake[name].endswith("id"))


def check_columns(frame: pl.DataFrame, columns: Mapping[str, str], source: str) -> None:
    """Every column that an unfolding names must be there.

    Raises:
        DataError: one is not.
    """
    for plain, name in columns.items():
        if name not in frame.columns:
            raise DataError(
                f"{source}: the column that {plain!r} is unfolded from must exist, got {name!r}; "
                f"known: {', '.join(frame.columns)}"
            )


def need(unfolding: Unfolding, *plain: str, source: str) -> None:
    """Columns without which the layout cannot be unfolded must be named.

    Raises:
        DataError: one is not.
    """
    for name in plain:
        if name not in unfolding.columns:
            raise DataError(
                f"{source}: layout {unfolding.layout!r} needs the column that {name!r} is made of, "
                "which the values do not tell; name it in the settings of the unfolding"
            )


def renamed(frame: pl.DataFrame, columns: Mapping[str, str], source: str) -> pl.DataFrame:
    """With the columns called as in plain rows.

    Raises:
        DataError: another column is called so already.
    """
    for plain, name in columns.items():
        if plain != name and plain in frame.columns and plain not in columns.values():
            raise DataError(
                f"{source}: {name!r} becomes the column {plain!r} of the plain rows, and there is "
                "another one of that name; rename it in the file"
            )
    return frame.rename({name: plain for plain, name in columns.items()})


def is_time(values: pl.Series) -> bool:
    """Whether all values are times in one form, and there are some."""
    return values.null_count() < len(values) and moments_of(values) is not None


def moments_of(values: pl.Series) -> pl.Series | None:
    """UTC times without zone; None: not all values are times in one form."""
    if values.dtype == pl.String:
        numbers = values.str.strip_chars().cast(pl.Int64, strict=False)
        values = numbers if numbers.null_count() == values.null_count() else values
    form = detect(values)
    if form is None or form.share < 1:
        return None
    read = time_in_microseconds(values.name, values.dtype, form.unit or "iso", form.format)
    return values.to_frame().select(read).to_series()
