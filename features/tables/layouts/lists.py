"""Lists in cells: a row holds several events, whose items, times and kinds stand in parallel."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.tables.layouts.cells import list_separator, lists_of
from features.tables.layouts.columns import called, check_columns, is_time, renamed
from features.tables.layouts.layout import (
    ITEM,
    POSITION,
    TIMESTAMP,
    USER,
    FoundLayout,
    Place,
    Unfolding,
)

__all__ = ["find_lists", "unfold_lists"]

_LIKE_ITEMS = ("item", "sequence", "seq", "history", "click", "product", "basket", "watched")
_PARALLEL = 0.5
_ROW = "__row"


def find_lists(frame: pl.DataFrame) -> FoundLayout | None:
    """Lists by their values: a column of several items a cell, where none holds one item a row."""
    marks = _marks(frame)
    plain = [name for name in frame.columns if name not in marks]
    if not marks or called(plain, "item"):
        return None
    items = _items(frame, marks, plain)
    if items is None:
        return None
    counts = {name: lists_of(frame[name], mark).list.len() for name, mark in marks.items()}
    lists = [items, *_parallel(counts, items)]
    separators = {marks[name] for name in lists} - {None}
    columns = {} if _is_struct(frame, items) else {ITEM: items}
    times = [
        name
        for name in lists
        if name != items and is_time(lists_of(frame[name], marks[name]).explode())
    ]
    if times:
        columns[TIMESTAMP] = times[0]
    ids = called(plain, "user") or [
        name for name in plain if not is_time(frame[name]) and not frame[name].dtype.is_float()
    ]
    if ids:
        columns[USER] = ids[0]
    for name in lists:  # a cell of "ratings" becomes a row's "rating"
        one = name.removesuffix("s")
        new = one != name and one not in (*columns, *frame.columns)
        if new and name not in columns.values() and not _is_struct(frame, name):
            columns[one] = name
    together = ", ".join(repr(name) for name in lists)
    return FoundLayout(
        Unfolding(
            "lists",
            columns,
            tuple(lists),
            separator=next(iter(separators)) if len(separators) == 1 else None,
        ),
        f"a cell of {together} holds the values of several events",
    )


def _is_struct(frame: pl.DataFrame, name: str) -> bool:
    kind = frame.schema[name]
    return isinstance(kind, pl.List) and isinstance(kind.inner, pl.Struct)


def _marks(frame: pl.DataFrame) -> dict[str, str | None]:
    """Columns of several values a cell, and what stands between these."""
    found: dict[str, str | None] = {}
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.List | pl.Array):
            found[name] = None
        elif kind == pl.String and not is_time(frame[name]):
            mark = list_separator(frame[name])
            if mark is not None:
                found[name] = mark
    return found


def _items(frame: pl.DataFrame, marks: dict[str, str | None], plain: list[str]) -> str | None:
    """The column of items: called so, of objects, or the only one beside one id."""
    named = called(list(marks), "item")
    named += [name for name in marks if any(part in name.lower() for part in _LIKE_ITEMS)]
    objects = [name for name in marks if _is_struct(frame, name)]
    alone = list(marks) if len(marks) == 1 and len(plain) == 1 else []
    return next(iter([*named, *objects, *alone]), None)


def _parallel(counts: dict[str, pl.Series], items: str) -> list[str]:
    """Other columns of which most cells hold as many values as those of the items."""
    return [
        name
        for name, count in counts.items()
        if name != items and float((count == counts[items]).mean() or 0) > _PARALLEL  # type: ignore[arg-type]
    ]


def unfold_lists(
    frame: pl.DataFrame, unfolding: Unfolding, *, source: str, place: Place
) -> pl.DataFrame:
    """An event for each value of the lists; what is no list is the same for all events of a row.

    Without a time the position counts on over the rows of a user; otherwise it is that in the cell.

    Raises:
        DataError: a column is missing, or lists of a row are not of one length.
    """
    columns, lists = dict(unfolding.columns), list(unfolding.lists)
    if not lists:
        found = find_lists(frame)
        if found is None:
            raise DataError(
                f"{source}: layout 'lists' must have a column of several items a cell, got "
                f"{', '.join(frame.columns)}; name the columns in 'lists'"
            )
        lists, columns = list(found.unfolding.lists), {**found.unfolding.columns, **columns}
    check_columns(frame, {**columns, **{name: name for name in lists}}, source)
    for name in lists:
        mark = unfolding.separator
        if frame.schema[name] == pl.String and mark is None:
            mark = list_separator(frame[name])
        frame = frame.with_columns(lists_of(frame[name], mark).alias(name))
    _check_lengths(frame, lists, source, place)
    count = pl.col(lists[0]).list.len()
    frame = (
        frame.filter(count > 0)
        .with_columns(pl.int_ranges(1, count + 1).alias(POSITION))
        .explode(*lists, POSITION)
    )
    for name in lists:
        if isinstance(frame.schema[name], pl.Struct):
            frame = _unnested(frame, name)
    frame = renamed(frame, columns, source)
    if TIMESTAMP in frame.columns or any(is_time(frame[name]) for name in frame.columns):
        return frame
    if USER not in frame.columns:
        return frame
    return frame.with_columns(pl.int_range(1, pl.len() + 1).over(USER).alias(POSITION))


def _check_lengths(frame: pl.DataFrame, lists: list[str], source: str, place: Place) -> None:
    first = pl.col(lists[0]).list.len()
    for name in lists[1:]:
        bad = frame.select((pl.col(name).list.len() != first).alias(name))[name].arg_true()
        if len(bad):
            row = int(bad[0])
            lengths = [len(frame[one][row]) for one in (lists[0], name)]
            raise DataError(
                f"{source}: {place(row)} must hold as many values in {name!r} as in {lists[0]!r}, "
                f"got {lengths[1]} and {lengths[0]}; repair it, or take {name!r} out of 'lists'"
            )


def _unnested(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Objects as columns; those called like a column that is there have the list's name before."""
    taken = set(frame.columns) - {name}
    fields = frame[name].struct.fields
    new = [
        pl.col(name).struct.field(one).alias(f"{name}.{one}" if one in taken else one)
        for one in fields
    ]
    return frame.select(pl.exclude(name), *new)
