"""Impressions: a row is what was shown to a user at once, and what of it was clicked."""

from __future__ import annotations

import polars as pl

from features.errors import DataError
from features.tables.layouts.cells import list_separator, lists_of, words
from features.tables.layouts.columns import called, check_columns, is_time, moments_of, need
from features.tables.layouts.layout import (
    CLICK,
    EVENT,
    HISTORY,
    ITEM,
    POSITION,
    REQUEST,
    SHOWN,
    TIMESTAMP,
    USER,
    FoundLayout,
    Place,
    Unfolding,
)

__all__ = ["find_impressions", "unfold_impressions"]

_MARKED = r"^\s*\S+-[01](?:\s+\S+-[01])*\s*$"
_MANY = r"\S\s+\S"
_CLICKED = "clicked"
_ROW = "__row"
_KINDS = {CLICK: 1.0, HISTORY: 1.0, SHOWN: 0.0}


def find_impressions(frame: pl.DataFrame) -> FoundLayout | None:
    """Impressions by their values: ``N3-1 N2-0``, or a list of what was shown and one of clicks."""
    columns = _marked(frame) or _listed(frame)
    if columns is None:
        return None
    columns |= _roles(frame, set(columns.values()))
    if USER not in columns or TIMESTAMP not in columns:
        return None
    clicks = f"clicks in {columns[_CLICKED]!r}" if _CLICKED in columns else "-1 for a click"
    return FoundLayout(
        Unfolding("impressions", {name: columns[name] for name in sorted(columns)}),
        f"cells of {columns[SHOWN]!r} hold what was shown at once, {clicks}",
        kinds={kind: one for kind, one in _KINDS.items() if kind != HISTORY or HISTORY in columns},
        targets=(CLICK,),
    )


def _marked(frame: pl.DataFrame) -> dict[str, str] | None:
    for name, kind in frame.schema.items():
        values = frame[name].drop_nulls()
        if kind != pl.String or values.is_empty():
            continue
        several = int(values.str.contains(_MANY).sum())
        if 2 * several >= len(values) and bool(values.str.contains(_MARKED).all()):
            return {SHOWN: name}
    return None


def _listed(frame: pl.DataFrame) -> dict[str, str] | None:
    """Two columns of lists, one of which never holds what the other one of the row does not."""
    lists: dict[str, pl.Series] = {}
    for name, kind in frame.schema.items():
        if isinstance(kind, pl.List) and not isinstance(kind.inner, pl.Struct | pl.List):
            lists[name] = frame[name]
        elif kind == pl.String and (mark := list_separator(frame[name])) is not None:
            lists[name] = lists_of(frame[name], mark)
    shown = [name for name in lists if _says(name, "shown", "inview", "impression", "slate")]
    taken = [name for name in lists if _says(name, "click", "chosen", "bought", "purchase")]
    for one in shown:
        for other in (name for name in taken if name != one):
            if lists[one].dtype != lists[other].dtype:
                continue
            both = pl.DataFrame({"shown": lists[one], "clicked": lists[other]})
            more = pl.col("clicked").list.set_difference(pl.col("shown")).list.len() > 0
            if not bool(both.select(more.any()).item()):
                return {SHOWN: one, _CLICKED: other}
    return None


def _says(name: str, *parts: str) -> bool:
    return any(part in name.lower() for part in parts)


def _roles(frame: pl.DataFrame, taken: set[str]) -> dict[str, str]:
    """Time, user, history and number of an impression among the other columns."""
    rest = [name for name in frame.columns if name not in taken]
    found: dict[str, str] = {}
    times = [name for name in called(rest, "time") if is_time(frame[name])]
    times += [name for name in rest if is_time(frame[name])]
    if times:
        found[TIMESTAMP] = times[0]
        rest.remove(times[0])
    history = [name for name in rest if "history" in name.lower()]
    history += [name for name in rest if _is_history(frame[name])]
    if history:
        found[HISTORY] = history[0]
        rest.remove(history[0])
    ids = [name for name in rest if not isinstance(frame.schema[name], pl.List)]
    named = called(ids, "user")
    numbers = [name for name in ids if "impression" in name.lower() or "request" in name.lower()]
    if not numbers and not named and len(ids) > 1:  # a number differs in each row, and stands first
        numbers = [name for name in ids[:1] if frame[name].n_unique() == frame.height]
    ids = [name for name in ids if name not in numbers]
    if named or ids:
        found[USER] = (named or ids)[0]
    if numbers:
        found[REQUEST] = numbers[0]
    return found


def _is_history(values: pl.Series) -> bool:
    return values.dtype == pl.String and list_separator(values) == " "


def unfold_impressions(
    frame: pl.DataFrame, unfolding: Unfolding, *, source: str, place: Place
) -> pl.DataFrame:
    """An event for each item that was shown: of kind "click" or "shown", with its position.

    A history is taken once for each user, from the user's first row: its items are events of kind
    "history" that were a second apart and ended a second before that row.

    Raises:
        DataError: a column is missing, a cell does not hold marked items, or a time cannot be read.
    """
    columns = dict(unfolding.columns)
    if not {SHOWN, USER, TIMESTAMP} <= columns.keys():
        found = find_impressions(frame)
        columns = {**(found.unfolding.columns if found is not None else {}), **columns}
    need(Unfolding("impressions", columns), SHOWN, USER, TIMESTAMP, source=source)
    check_columns(frame, columns, source)
    frame = frame.with_row_index(_ROW)
    number = pl.col(columns[REQUEST]) if REQUEST in columns else pl.col(_ROW)
    rows = frame.select(
        _ROW,
        pl.col(columns[USER]).alias(USER),
        _times(frame, columns, source).alias(TIMESTAMP),
        number.cast(pl.String).alias(REQUEST),
    )
    events = _shown(frame, rows, columns, source, place)
    if HISTORY in columns:
        earlier = _earlier(rows.with_columns(_lists(frame[columns[HISTORY]]).alias(ITEM)))
        events = pl.concat([earlier.cast({ITEM: events.schema[ITEM]}), events], how="diagonal")
    return events.select(USER, ITEM, TIMESTAMP, EVENT, REQUEST, POSITION)


def _times(frame: pl.DataFrame, columns: dict[str, str], source: str) -> pl.Series:
    values = frame[columns[TIMESTAMP]]
    found = moments_of(values)
    if found is None:
        shown = next(iter(values.drop_nulls()), None)
        raise DataError(
            f"{source}: column {columns[TIMESTAMP]!r} must hold times in one form, got such as "
            f"{shown!r}; write them as 2024-05-01T12:30:00"
        )
    return found


def _lists(values: pl.Series) -> pl.Series:
    if isinstance(values.dtype, pl.List):
        return values.fill_null([])
    return lists_of(values, list_separator(values) or " ")


def _shown(
    frame: pl.DataFrame, rows: pl.DataFrame, columns: dict[str, str], source: str, place: Place
) -> pl.DataFrame:
    marked = _CLICKED not in columns
    shown = frame[columns[SHOWN]]
    if marked:
        _check_marked(shown, source, place)
    cells = words(shown) if marked else _lists(shown)
    more = [] if marked else [_lists(frame[columns[_CLICKED]]).alias(_CLICKED)]
    events = (
        rows.with_columns(cells.alias(ITEM), *more)
        .with_columns(pl.int_ranges(1, pl.col(ITEM).list.len() + 1).alias(POSITION))
        .filter(pl.col(ITEM).list.len() > 0)
        .explode(ITEM, POSITION)
    )
    hit = pl.col(ITEM).str.ends_with("-1") if marked else pl.col(ITEM).is_in(pl.col(_CLICKED))
    item = pl.col(ITEM).str.head(-2) if marked else pl.col(ITEM)
    kind = pl.when(hit).then(pl.lit(CLICK)).otherwise(pl.lit(SHOWN))
    return events.with_columns(kind.alias(EVENT), item.alias(ITEM)).drop(_CLICKED, strict=False)


def _check_marked(shown: pl.Series, source: str, place: Place) -> None:
    empty = shown.str.strip_chars() == ""
    bad = ((~shown.str.contains(_MARKED)) & ~empty).fill_null(value=False).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DataError(
            f"{source}: {place(row)} must hold items marked by -1 where they were clicked and -0 "
            f"where not, in column {shown.name!r}, got {shown[row]!r}; repair it"
        )


def _earlier(rows: pl.DataFrame) -> pl.DataFrame:
    first = rows.filter(pl.col(ITEM).list.len() > 0).sort(TIMESTAMP, _ROW)
    first = first.unique(USER, keep="first", maintain_order=True)
    count = pl.col(ITEM).list.len()
    ago = pl.int_ranges(count.cast(pl.Int64), 0, -1)
    events = first.with_columns(ago.alias("__ago")).explode(ITEM, "__ago")
    return events.select(
        USER,
        ITEM,
        pl.col(TIMESTAMP) - pl.duration(seconds=pl.col("__ago")),
        pl.lit(HISTORY).alias(EVENT),
    )
