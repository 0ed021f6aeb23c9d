"""All roles of a log at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from features.errors import DataError
from features.tables.roles.amounts import (
    Weight,
    find_event_id,
    find_order,
    find_quantity,
    find_weight,
)
from features.tables.roles.found import Found
from features.tables.roles.ids import Ids, find_ids
from features.tables.roles.kinds import find_kinds, find_other_kinds
from features.tables.roles.moments import When, find_arrival, find_when, times_of
from features.tables.roles.names import PLACES, rank

__all__ = ["LogRoles", "find_log_roles"]


@dataclass(frozen=True)
class LogRoles:
    """Which columns of a log play which role, and why.

    Attributes:
        user: the user's id.
        item: the item's id.
        ids: the same, and the columns of the tables that they join.
        when: when events happened.
        kinds: the kind of event; None: all are of one.
        other_kinds: where there are no kinds, columns that may hold them in words not known.
        weight: how much events count; None: all the same.
        quantity: how many pieces; None: not said.
        order: the order of a line; None: not said.
        sessions: columns of sessions beside users, which play no role.
        created: when an event arrived; None: not said.
        later: other times that are never before that of the event.
        event_id: the event's own id; None: not said.
    """

    user: Found
    item: Found
    ids: Ids
    when: When
    kinds: Found | None
    other_kinds: tuple[tuple[str, str], ...]
    weight: Weight | None
    quantity: Found | None
    order: Found | None
    sessions: tuple[tuple[str, str], ...]
    created: Found | None
    later: tuple[tuple[str, str], ...]
    event_id: Found | None

    @property
    def columns(self) -> set[str]:
        """Every column that plays a role, or could."""
        plain = (self.user, self.item, self.kinds, self.quantity, self.order, self.created)
        found = {one.column for one in (*plain, self.when.found, self.event_id) if one is not None}
        if self.weight is not None:
            found.add(self.weight.found.column)
        return found | {name for name, _ in (*self.sessions, *self.later)}


def find_log_roles(
    frame: pl.DataFrame,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    *,
    now: datetime | None = None,
    source: str = "the log",
) -> LogRoles:
    """Find the roles of a log's columns from all its values.

    Args:
        frame: the log, as its file is read.
        items: what describes the items; None: nothing.
        users: what describes the users; None: nothing.
        now: UTC without zone, by which times are judged; None: the clock.
        source: what to call the log in messages.

    Raises:
        DataError: no two columns can be the ids of users and items.
    """
    times = times_of(frame, now)
    when = find_when(frame, times, now)
    taken = set(times)
    if when.found is not None and when.found.column:
        taken.add(when.found.column)
    kinds = find_kinds(frame, taken)
    if kinds is not None:
        taken.add(kinds.column)
    ids = find_ids(frame, taken, items, users)
    if ids.user is None or ids.item is None:
        role = "user" if ids.user is None else "item"
        raise DataError(
            f"{source} must have a column that can be the {role}'s id, got "
            f"{', '.join(frame.columns)}; name it in [data.columns] of a recsys.toml by hand"
        )
    taken |= {ids.user.column, ids.item.column}
    event_id = find_event_id(frame, taken)
    if event_id is not None:
        taken.add(event_id.column)
    order, sessions = find_order(frame, taken, ids.user.column)
    if order is not None:
        taken.add(order.column)
    taken |= {name for name in frame.columns if rank(name, PLACES, whole=True) is not None}
    weight = find_weight(frame, taken)
    if weight is not None:
        taken.add(weight.found.column)
    quantity = find_quantity(frame, taken)
    created, later = find_arrival(frame, times, when)
    return LogRoles(
        user=ids.user,
        item=ids.item,
        ids=ids,
        when=when,
        kinds=kinds,
        other_kinds=(
            ()
            if kinds is not None
            else find_other_kinds(frame, taken, ids.item.column, ids.user.column)
        ),
        weight=weight,
        quantity=quantity,
        order=order,
        sessions=sessions,
        created=created,
        later=later,
        event_id=event_id,
    )
