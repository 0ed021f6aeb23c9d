"""A matrix: a row is a user, a column an item, and a cell how much the one likes the other."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from features.errors import DataError
from features.tables.layouts.columns import called, check_columns
from features.tables.layouts.layout import (
    ITEM,
    POSITION,
    USER,
    WEIGHT,
    FoundLayout,
    Place,
    Unfolding,
)

__all__ = ["find_matrix", "unfold_matrix"]

_NUMBERED = re.compile(r"([A-Za-z_. -]*)(\d+)")
_NAMELESS = re.compile(r"column_\d+")
_FEWEST, _FEWEST_NAMELESS = 2, 10
_ROW = "__row"
_SEED = 20_000_101


def find_matrix(frame: pl.DataFrame) -> FoundLayout | None:
    """A matrix by its header, columns numbered alike, or without one by a mark of what is missing.

    Where no cell is empty a value far from the others, such as Jester's 99, or most of them, such
    as 0, means that there was no event.
    """
    nameless = all(_NAMELESS.fullmatch(name) for name in frame.columns)
    user, items = _nameless(frame) if nameless else _named(frame)
    if not items:
        return None
    values = frame.select(pl.col(items).cast(pl.Float64, strict=False))
    missing = _missing(values)
    empty = sum(values.null_count().row(0))
    if (nameless and not missing) or not (missing or empty):
        return None
    columns = {} if user is None else {USER: user}
    who = "their row's number is the user" if user is None else f"the user is {user!r}"
    gone = f"; {missing[0]:g} is no event" if missing else ""
    return FoundLayout(
        Unfolding("matrix", columns, missing=missing),
        f"a row is a user and each of {len(items):,} columns an item, {who}{gone}. There is no "
        "order, so one is drawn, the same in every run",
    )


def _numeric(frame: pl.DataFrame, names: list[str]) -> bool:
    """Whether every cell of the columns is a number or empty, and not all are empty."""
    found = frame.select(pl.col(names).cast(pl.Float64, strict=False))
    gone = sum(frame.select(names).null_count().row(0))
    return bool(sum(found.null_count().row(0)) == gone < frame.height * len(names))


def _named(frame: pl.DataFrame) -> tuple[str | None, list[str]]:
    """The user's column and the items' ones, called by one word and numbers."""
    heads = {name: match for name in frame.columns if (match := _NUMBERED.fullmatch(name))}
    words = [match[1] for match in heads.values()]
    word = max(set(words), key=words.count) if words else ""
    items = [name for name, match in heads.items() if match[1] == word]
    rest = [name for name in frame.columns if name not in items]
    if len(items) < _FEWEST or len(rest) != 1 or not _numeric(frame, items):
        return None, []
    user = rest[0]
    users = bool(called([user], "user")) or frame[user].n_unique() == frame.height
    return (user, items) if users else (None, [])


def _nameless(frame: pl.DataFrame) -> tuple[str | None, list[str]]:
    """Columns of one scale; before them an id of the user, or how many cells of the row are set."""
    if frame.width < _FEWEST_NAMELESS or not _numeric(frame, frame.columns):
        return None, []
    first, *rest = frame.columns
    values = frame.select(pl.col(rest).cast(pl.Float64))
    missing = _missing(values)
    if not missing:
        return None, []
    there = values.select(pl.sum_horizontal(~pl.all().is_in(missing))).to_series()
    head = frame[first].cast(pl.Float64)
    if bool((head == there).all()):
        return None, rest
    return (first, rest) if head.n_unique() == frame.height else (None, frame.columns)


def _missing(values: pl.DataFrame) -> tuple[float, ...]:
    """The value that means that there was no event, where one does."""
    if sum(values.null_count().row(0)):
        return ()
    cells = values.unpivot()["value"]
    low, high = float(cells.min()), float(cells.max())  # type: ignore[arg-type]
    if low == 0 and 2 * int((cells == 0).sum()) >= len(cells):
        return (0.0,)
    for mark in (high, low):
        rest = cells.filter(cells != mark).to_numpy()
        if not len(rest):
            continue
        nearest, widest = abs(rest - mark).min(), abs(rest).max()
        far = nearest > 2 * (rest.max() - rest.min()) and abs(mark) > 2 * widest
        if far or mark < 0 <= rest.min():
            return (mark,)
    return ()


def unfold_matrix(
    frame: pl.DataFrame, unfolding: Unfolding, *, source: str, place: Place
) -> pl.DataFrame:
    """An event for each cell that holds a number, which is its weight.

    The order of a user's events is drawn, the same in every run.

    Raises:
        DataError: a column is missing, or a cell holds no number.
    """
    columns, missing = dict(unfolding.columns), unfolding.missing
    items = [name for name in frame.columns if name != columns.get(USER)]
    if all(_NAMELESS.fullmatch(name) for name in frame.columns) and USER not in columns:
        items = _nameless(frame)[1] or items
    check_columns(frame, columns, source)
    numbers = frame.select(pl.col(items).cast(pl.Float64, strict=False))
    _check_numbers(frame, numbers, source, place)
    users = frame[columns[USER]] if USER in columns else pl.Series(range(1, frame.height + 1))
    if all(_NAMELESS.fullmatch(name) for name in items):
        numbers.columns = [str(number) for number in range(1, len(items) + 1)]
    events = (
        numbers.with_columns(users.cast(pl.String).alias(_ROW))
        .unpivot(index=_ROW, variable_name=ITEM, value_name=WEIGHT)
        .filter(pl.col(WEIGHT).is_not_null() & ~pl.col(WEIGHT).is_in(list(missing)))
        .rename({_ROW: USER})
    )
    drawn = np.random.default_rng(_SEED).permutation(events.height)
    return (
        events.with_columns(pl.Series("__drawn", drawn))
        .with_columns(pl.col("__drawn").rank("ordinal").over(USER).cast(pl.Int64).alias(POSITION))
        .select(USER, ITEM, WEIGHT, POSITION)
    )


def _check_numbers(frame: pl.DataFrame, numbers: pl.DataFrame, source: str, place: Place) -> None:
    for name in numbers.columns:
        if numbers[name].null_count() == frame[name].null_count():
            continue
        row = int((numbers[name].is_null() & frame[name].is_not_null()).arg_true()[0])
        raise DataError(
            f"{source}: {place(row)} must hold a number or nothing in the item's column {name!r}, "
            f"got {frame[name][row]!r}; repair it, or take the column out of the file"
        )
