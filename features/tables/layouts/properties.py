"""Properties over time: a row is one property of an item, as it was from one time on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from features.errors import DataError
from features.tables.layouts.columns import called, check_columns, is_time, moments_of, need
from features.tables.layouts.layout import ITEM, TIMESTAMP, FoundLayout, Unfolding
from features.tables.reading import typed

__all__ = ["DescribedItems", "find_properties", "unfold_properties"]

_MOST = 64
_PROPERTY_NAMES = ("property", "attribute", "attr", "feature", "field", "key", "property_name")
_VALUE_NAMES = ("value", "val", "property_value", "attribute_value", "content")
_PROPERTY, _VALUE = "property", "value"
_REPEATED = 2


class DescribedItems(NamedTuple):
    """One row an item.

    Attributes:
        frame: the item's id, then its properties.
        changing: properties that were not the same at all times up to the cut.
        left_out: properties that few items have and that became no columns.
    """

    frame: pl.DataFrame
    changing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def find_properties(frame: pl.DataFrame) -> FoundLayout | None:
    """Properties by the names of three or four columns, or where items come with each of a few."""
    if not 3 <= frame.width <= 4:
        return None
    rest = list(frame.columns)
    names = [name for name in rest if name.lower() in _PROPERTY_NAMES]
    values = [name for name in rest if name.lower() in _VALUE_NAMES]
    times = [name for name in rest if name not in (*names, *values) and is_time(frame[name])]
    if len(rest) == 4 and not times:
        return None
    rest = [name for name in rest if name not in (*names[:1], *values[:1], *times[:1])]
    items = called(rest, "item") or [name for name in rest if name.lower() in ("id", "entity")]
    if not items:
        return None
    item = items[0]
    rest.remove(item)
    columns = {ITEM: item}
    if names and values and not rest:
        columns |= {_PROPERTY: names[0], _VALUE: values[0]}
    else:
        rest = [name for name in frame.columns if name not in (item, *times[:1])]
        told = _by_values(frame, [item, *times[:1]], rest)
        if told is None:
            return None
        columns |= {_PROPERTY: told, _VALUE: next(name for name in rest if name != told)}
    if times:
        columns[TIMESTAMP] = times[0]
    if frame[item].n_unique() == frame.height:
        return None
    many = frame[columns[_PROPERTY]].n_unique()
    kept = _most_common(frame, item, columns[_PROPERTY]) if many > _MOST else ()
    gone = f"; the {_MOST} that most items have become columns" if kept else ""
    known = ", as it was known when the training part ends" if times else ""
    return FoundLayout(
        Unfolding("properties", columns, properties=tuple(kept)),
        f"a row is one of {many:,} properties of an item{known}{gone}",
    )


def _by_values(frame: pl.DataFrame, keys: list[str], names: list[str]) -> str | None:
    """The column of few words that, with the item and the time, tells rows apart."""
    if len(names) != 2 or frame[keys[0]].n_unique() * _REPEATED > frame.height:
        return None
    for name in names:
        words = frame[name]
        if words.dtype != pl.String or words.null_count():
            continue
        few = words.n_unique() * _REPEATED <= frame.height
        if few and frame.select(*keys, name).is_unique().all() and _is_word(words):
            return name
    return None


def _is_word(values: pl.Series) -> bool:
    return values.cast(pl.Float64, strict=False).count() == 0


def _most_common(frame: pl.DataFrame, item: str, name: str) -> Sequence[str]:
    counts = frame.group_by(name).agg(pl.col(item).n_unique().alias("items"))
    best = counts.sort("items", name, descending=[True, False]).head(_MOST)
    return best[name].cast(pl.String).to_list()


def unfold_properties(
    frame: pl.DataFrame,
    unfolding: Unfolding,
    *,
    source: str,
    cut: datetime | None = None,
    end: datetime | None = None,
) -> DescribedItems:
    """Each item with the newest value of each of its properties at a moment.

    An item that was first described after the cut has its first values, without the numbers: text
    says what a thing is, numbers what came of it.

    Args:
        frame: rows of one property each.
        unfolding: what its columns are, or it is found.
        source: what to call it in messages.
        cut: UTC; values as they were known then. None: the newest.
        end: UTC; items that were known then. None: all.

    Raises:
        DataError: a column is missing, a time cannot be read, or nothing was known.
    """
    columns = dict(unfolding.columns)
    if not {ITEM, _PROPERTY, _VALUE} <= columns.keys():
        found = find_properties(frame)
        columns = {**(found.unfolding.columns if found is not None else {}), **columns}
    need(Unfolding("properties", columns), ITEM, _PROPERTY, _VALUE, source=source)
    check_columns(frame, columns, source)
    rows = _rows(frame, columns, source)
    if end is not None:
        rows = rows.filter(pl.col(TIMESTAMP).is_null() | (pl.col(TIMESTAMP) <= end))
    rows, left_out = _chosen(rows, unfolding.properties)
    if rows.is_empty():
        when = "" if end is None else f" until {end:%Y-%m-%d %H:%M}"
        raise DataError(f"{source}: must hold properties of items{when}, got none; name another")
    known = (
        pl.lit(value=True)
        if cut is None
        else pl.col(TIMESTAMP).is_null() | (pl.col(TIMESTAMP) <= cut)
    )
    before = rows.filter(known)
    after = rows.filter(~known).join(before.select(ITEM).unique(), on=ITEM, how="anti")
    names = rows[_PROPERTY].unique().sort().to_list()
    wide = _wide(before.sort(TIMESTAMP, maintain_order=True, nulls_last=False), names, "last")
    later = _wide(after.sort(TIMESTAMP, maintain_order=True, nulls_last=False), names, "first")
    both = typed(pl.concat([wide, later]), (ITEM,))
    numbers = [name for name in names if both.schema[name].is_numeric()]
    fresh = pl.int_range(pl.len()) >= wide.height
    both = both.with_columns(pl.when(~fresh).then(pl.col(name)).alias(name) for name in numbers)
    return DescribedItems(both.sort(ITEM), _changing(before), left_out)


def _rows(frame: pl.DataFrame, columns: dict[str, str], source: str) -> pl.DataFrame:
    """Item, property, value and time, all text but the time."""
    texts = [
        pl.col(columns[name]).cast(pl.String).alias(name) for name in (ITEM, _PROPERTY, _VALUE)
    ]
    rows = frame.select(texts).with_columns(
        pl.col(_PROPERTY).replace(ITEM, f"{ITEM}_{_PROPERTY}")  # the id itself is called so
    )
    if TIMESTAMP not in columns:
        return rows.with_columns(pl.lit(None, pl.Datetime("us")).alias(TIMESTAMP))
    times = moments_of(frame[columns[TIMESTAMP]])
    if times is None:
        raise DataError(
            f"{source}: column {columns[TIMESTAMP]!r} must hold times in one form, got such as "
            f"{next(iter(frame[columns[TIMESTAMP]].drop_nulls()), None)!r}; write them as "
            "2024-05-01T12:30:00"
        )
    return rows.with_columns(times.alias(TIMESTAMP))


def _chosen(rows: pl.DataFrame, said: tuple[str, ...]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    all_names = rows[_PROPERTY].drop_nulls().unique().sort().to_list()
    kept = set(
        said or (_most_common(rows, ITEM, _PROPERTY) if len(all_names) > _MOST else all_names)
    )
    left_out = tuple(name for name in all_names if name not in kept)
    return rows.filter(pl.col(_PROPERTY).is_in(list(kept))), left_out


def _wide(rows: pl.DataFrame, names: list[str], keep: str) -> pl.DataFrame:
    """A row an item; of several values of a property that which is kept."""
    one = pl.col(_VALUE).last() if keep == "last" else pl.col(_VALUE).first()
    each = rows.group_by(ITEM, _PROPERTY, maintain_order=True).agg(one)
    wide = each.pivot(on=_PROPERTY, index=ITEM, values=_VALUE, on_columns=names)
    return wide.select(ITEM, *names)


def _changing(rows: pl.DataFrame) -> tuple[str, ...]:
    each = rows.group_by(ITEM, _PROPERTY).agg(pl.col(_VALUE).n_unique())
    return tuple(each.filter(pl.col(_VALUE) > 1)[_PROPERTY].unique().sort().to_list())
