"""Sequences: a line is a user, then what the user took, in its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from features.errors import DataError
from features.tables.layouts.layout import (
    ITEM,
    POSITION,
    USER,
    FoundLayout,
    Place,
    Unfolding,
)

__all__ = ["find_sequences", "unfold_sequences"]

_CODE = r"^[A-Za-z]{0,3}[-_]?\d+$"
_MARKS = (" ", ",", "\t", ";", "|")
_SAME_WIDTH = 0.8
_EVEN_WIDTH = 5
_ROW = "__row"


def find_sequences(lines: Sequence[str]) -> FoundLayout | None:
    """Sequences by their first lines: a user a line, and not all lines of one length."""
    lines = [line for line in lines if line.strip()]
    text = pl.Series("line", lines, dtype=pl.String)
    for mark in _MARKS:
        parts = _parts(text, mark)
        rows = pl.DataFrame({USER: parts.list.first(), ITEM: parts.list.slice(1)})
        rows = rows.filter(pl.col(ITEM).list.len() > 0)
        codes = parts.explode().drop_nulls()
        if rows.height < 2 or not bool(codes.str.contains(_CODE).all()):
            continue
        if rows[USER].n_unique() < rows.height or not _runs(rows):
            continue
        shown = "white space" if mark == " " else repr(mark)
        return FoundLayout(
            Unfolding("sequences", separator=mark),
            f"a line is a user and then items, with {shown} between them; their order is no time",
        )
    return None


def _runs(rows: pl.DataFrame) -> bool:
    """Whether lines are runs of items and no rows of cells: of several lengths, or long and even.

    Lines of one length are runs only where hardly any item comes twice in its line and the places
    of a line share their items, as the columns of a table do not.
    """
    widths = Counter(rows[ITEM].list.len().to_list())
    if max(widths.values()) <= _SAME_WIDTH * rows.height:
        return True
    if len(widths) > 1 or min(widths) < _EVEN_WIDTH:
        return False
    once = (rows[ITEM].list.n_unique() == rows[ITEM].list.len()).mean()
    places = rows.select(pl.col(ITEM).list.to_struct(fields=[str(n) for n in range(min(widths))]))
    each = sum(one.n_unique() for one in places.unnest(ITEM).iter_columns())
    return float(once or 0) > _SAME_WIDTH and rows[ITEM].explode().n_unique() < each / 2  # type: ignore[arg-type]


def unfold_sequences(
    frame: pl.DataFrame, unfolding: Unfolding, *, source: str, place: Place
) -> pl.DataFrame:
    """An event for each item of each line; its position counts on where a user has several lines.

    There are no times, only positions.

    Args:
        frame: one column, a line a row.
        unfolding: with a separator, or it is found.
        source: what to call it in messages.
        place: says where a row stands.

    Raises:
        DataError: there are several columns.
    """
    if frame.width != 1:
        raise DataError(
            f"{source}: layout 'sequences' must have one column of whole lines, got "
            f"{', '.join(frame.columns)}; name the file, or use layout 'lists' for cells of lists"
        )
    lines = frame.to_series().cast(pl.String)
    mark = unfolding.separator
    if mark is None:
        found = find_sequences(lines.head(200).to_list())
        mark = " " if found is None else found.unfolding.separator
    parts = _parts(lines, mark or " ")
    bad = (parts.list.len() == 0).fill_null(value=True).arg_true()
    if len(bad):
        raise DataError(
            f"{source}: {place(int(bad[0]))} must hold a user and items, got nothing; remove it"
        )
    rows = pl.DataFrame({USER: parts.list.first(), ITEM: parts.list.slice(1)})
    return (
        rows.filter(pl.col(ITEM).list.len() > 0)
        .explode(ITEM)
        .with_columns(pl.int_range(1, pl.len() + 1).over(USER).alias(POSITION))
        .select(USER, ITEM, POSITION)
    )


def _parts(lines: pl.Series, mark: str) -> pl.Series:
    text = lines.str.strip_chars()
    if mark == " ":
        text = text.str.replace_all(r"\s+", " ")
    value = pl.element().str.strip_chars()
    split = text.str.split(mark).to_frame("line")
    return split.select(pl.col("line").list.eval(value.filter(value != "")))["line"]
