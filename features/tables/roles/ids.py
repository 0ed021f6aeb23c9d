"""Which columns are the ids of users and items: by what they join, then by name, then by values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl

from features.tables.roles.found import Found, cells, is_whole, percent
from features.tables.roles.names import (
    ATTRIBUTES,
    ITEMS,
    MEASURES,
    ORDERS,
    SESSIONS,
    USERS,
    WEIGHTS,
    is_called_id,
    rank,
    words,
)

__all__ = ["Ids", "find_described", "find_ids", "find_key"]

_CLOSE = 0.5
_SOME, _MOST = 0.01, 0.5
_KEYS = 6
_USUAL = 0.8


@dataclass(frozen=True)
class Ids:
    """Columns of ids.

    Attributes:
        user: in the log; None: no column can be one.
        item: in the log; None: no column can be one.
        users_key: in the table of users; None: no table, or no column can be one.
        items_key: in the table of items, likewise.
        joined: share of the events whose item the table of items has; None: no table.
    """

    user: Found | None
    item: Found | None
    users_key: str | None
    items_key: str | None
    joined: float | None


def find_ids(
    frame: pl.DataFrame,
    taken: Collection[str],
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
) -> Ids:
    """The ids of a log, and the columns of the tables that they join.

    Args:
        frame: the log.
        taken: columns that play another role.
        items: what describes the items.
        users: what describes the users.
    """
    counts = {
        name: _counts(frame[name])
        for name in frame.columns
        if name not in taken and _is_id(frame[name])
    }
    item, items_key, joined = _find(frame, counts, items, "item")
    left = {name: one for name, one in counts.items() if item is None or name != item.column}
    user, users_key, _ = _find(frame, left, users, "user", beside=item)
    if item is None and user is not None:
        left = {name: one for name, one in counts.items() if name != user.column}
        item = _by_values(frame, left, "item", None)
    return Ids(user, item, users_key, items_key, joined)


def find_key(table: pl.DataFrame, wanted: str, role: str) -> str | None:
    """The id column of a table, by its name: ``wanted``, one called like the role's id, or "id"."""
    plain = "".join(words(wanted))
    score = item_name if role == "item" else user_name

    def likely(name: str) -> tuple[object, ...]:
        same = "".join(words(name)) == plain
        return (not same, "".join(words(name)) != "id", -score(name), table.columns.index(name))

    keys = [name for name in table.columns if _may_be_key(table[name])]
    called = [
        name
        for name in keys
        if "".join(words(name)) in (plain, "id") or (score(name) > 0.5 and is_called_id(name))
    ]
    return min(called, key=likely) if called else None


def item_name(name: str) -> float:
    """How much a column is called like an item's id; below 0: like something else."""
    if rank(name, WEIGHTS, whole=True) is not None:
        return -1.0
    if rank(name, (*USERS, *SESSIONS, *ORDERS)) is not None:
        return -1.0
    return _called(name, ITEMS)


def user_name(name: str) -> float:
    """How much a column is called like a user's id; a session's counts less than any user's."""
    if rank(name, WEIGHTS, whole=True) is not None:
        return -1.0
    if rank(name, ORDERS) is not None:
        return -0.8
    place = rank(name, USERS)
    if place is None and rank(name, SESSIONS) is not None:
        return 0.2 + 0.05 * is_called_id(name)
    if place is None and rank(name, ITEMS) is not None:
        return -0.7
    return _called(name, USERS)


def _called(name: str, wanted: Sequence[str]) -> float:
    place, described = rank(name, wanted), rank(name, ATTRIBUTES) is not None
    measured = {*words(name)} & {*MEASURES} - {*ITEMS}
    if not is_called_id(name) and (measured or (place is None and rank(name, MEASURES))):
        return -0.7
    if described:
        return -0.5 if place is None else -0.3
    if place is None:
        return 0.1 * is_called_id(name)
    return 0.6 - place / 500 + 0.05 * is_called_id(name)


def _is_id(column: pl.Series) -> bool:
    dtype = column.dtype
    if dtype.is_float():
        return is_whole(column) and is_called_id(column.name)
    return dtype == pl.String or dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum)


def _counts(column: pl.Series) -> pl.DataFrame:
    """Every id with its number of rows."""
    return cells(column).alias("id").drop_nulls().value_counts(name="rows")


def _may_be_key(column: pl.Series) -> bool:
    """Whether nearly every row has another value."""
    if not _is_id(column) and not (column.dtype.is_float() and is_whole(column)):
        return False
    return column.n_unique() >= 0.9 * len(column)


def _find(
    frame: pl.DataFrame,
    counts: dict[str, pl.DataFrame],
    table: pl.DataFrame | None,
    role: str,
    beside: Found | None = None,
) -> tuple[Found | None, str | None, float | None]:
    score = item_name if role == "item" else user_name
    if table is not None and counts:
        found = _by_join(frame, counts, table, role)
        if found is not None:
            return found
    called = sorted(
        (-score(name), frame.columns.index(name), name) for name in counts if score(name) > 0.15
    )
    if called:
        best, *rest = [name for *_, name in called]
        distinct = len(counts[best])
        what = f"called like {'an item' if role == 'item' else 'a user'}'s id"
        if role == "user" and rank(best, USERS) is None:
            what = "users are sessions: only this column is called like an id of who acts"
        others = tuple((name, f"{len(counts[name]):,} different values") for name in rest)
        one = Found(best, f"{what}; {distinct:,} different values", others)
    else:
        by_values = _by_values(frame, counts, role, beside) if role == "user" else None
        if by_values is None:
            return None, None, None
        one = by_values
    key = None if table is None else find_key(table, one.column, role)
    joined = None
    if table is not None and key is not None:
        joined = _joined(counts[one.column], cells(table[key]), frame.height)
    return one, key, joined


def _by_join(
    frame: pl.DataFrame, counts: dict[str, pl.DataFrame], table: pl.DataFrame, role: str
) -> tuple[Found, str, float] | None:
    """The pair of columns that joins best, among those whose names do not say something else."""
    score = item_name if role == "item" else user_name
    keys = [name for name in table.columns if _may_be_key(table[name])]
    keys = sorted(keys, key=lambda name: -max(score(name), 0.7 * (words(name) == ("id",))))[:_KEYS]
    tried = []
    for place, key in enumerate(keys):
        ids = cells(table[key]).drop_nulls().unique()
        for name, counted in counts.items():
            if role == "user" and score(name) < 0:
                continue
            met = counted.filter(counted["id"].is_in(ids.implode()))
            joined = int(met["rows"].sum()) / frame.height
            if joined < (_SOME if score(name) > 0 and (score(key) > 0 or key == "id") else _MOST):
                continue
            same = "".join(words(name)) == "".join(words(key))
            value = joined + 0.3 * met.height / len(ids) + score(name) + 0.3 * same - 0.05 * place
            tried.append((value, frame.columns.index(name), name, key, joined))
    if not tried:
        return None
    tried.sort(reverse=True)
    value, _, best, key, joined = tried[0]
    others: dict[str, str] = {}
    for other, _, name, _, share in tried[1:]:
        if name != best and name not in others and share > 0.2 and other > value - _CLOSE:
            others[name] = f"{percent(share)} of the events join, {len(counts[name]):,} values"
    reason = f"{percent(joined)} of the events join {key!r} of the {role}s"
    return Found(best, reason, tuple(others.items())), key, joined


def _joined(counted: pl.DataFrame, ids: pl.Series, rows: int) -> float:
    known = counted.filter(counted["id"].is_in(ids.drop_nulls().unique().implode()))
    return int(known["rows"].sum()) / max(1, rows)


def _by_values(
    frame: pl.DataFrame, counts: dict[str, pl.DataFrame], role: str, beside: Found | None
) -> Found | None:
    """The first column of ids whose name says nothing and that the other id does not decide."""
    score = item_name if role == "item" else user_name
    free = [name for name in counts if score(name) >= 0 and len(counts[name])]
    if beside is not None:
        free = [name for name in free if not _decides(frame, beside.column, name)] or free
    if not free:
        return None
    free.sort(key=lambda name: (-score(name), frame.columns.index(name)))
    best, *rest = free
    reason = (
        f"no column is called like {'an item' if role == 'item' else 'a user'}'s id; this is the "
        f"first that may be one, with {len(counts[best]):,} different values"
    )
    return Found(
        best, reason, tuple((one, f"{len(counts[one]):,} different values") for one in rest)
    )


def _decides(frame: pl.DataFrame, first: str, second: str) -> bool:
    """Whether each value of one column has one value of another, which describes it then."""
    several = frame[first].n_unique()
    return several < frame.height and frame.select(first, second).n_unique() == several


def find_described(frame: pl.DataFrame, item: str, taken: Collection[str]) -> list[str]:
    """Columns of text in a log that describe its items: an item has (nearly) one value of each.

    Args:
        frame: the log.
        item: its column of items' ids.
        taken: columns that play another role.
    """
    found = []
    for name, dtype in frame.schema.items():
        if name in taken or name == item or dtype != pl.String:
            continue
        pairs = frame.select(pl.col(item).cast(pl.String), cells(frame[name])).drop_nulls()
        items, values = pairs[item].n_unique(), pairs[name].n_unique()
        if items < 2 or values < 2 or items == pairs.height:
            continue
        several = pairs.group_by(item, name).len()
        usual = several.group_by(item).agg(pl.col("len").max())["len"].sum()
        counted = pairs[name].value_counts(sort=True, name="rows")
        most = int(counted["rows"][0])  # right of those who guess without knowing the item
        if usual - most >= _USUAL * (pairs.height - most):
            found.append(name)
    return found
