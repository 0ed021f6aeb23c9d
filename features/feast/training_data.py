"""What a training run needs, found in a Feast repository: events, items and users.

The registry does not say which view holds what happened. It is told by its keys:

- **events**: keys of a user and an item. Of several, one without a ttl is preferred, as events do
  not expire, then the one with the most rows.
- **items**: the item's key alone. Of several, the one with the most text, categories and lists is
  preferred: it describes the items, where counts and means change with time.
- **users**: the user's key alone, preferred in the same way. There may be none.

Views that `recsys features publish` wrote are left alone unless they are named: their names begin
with "recsys_".

Which of the two keys of the events is the item's: the one called so ("item", "product", "movie",
...), or else the one that is not called a user's. Every choice comes with its reason and can be
overridden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from features.errors import DataError
from features.sources.described_rows import described_rows
from features.sources.protocol import FeatureSource, ViewDescription, unknown_view
from features.tables.entities import ItemTable, UserTable
from features.tables.interactions import Interactions
from features.tables.roles.names import EVENT_NAMES, WEIGHT_NAMES, names_item, names_user
from features.tables.schema import ITEM, TIMESTAMP, USER, EventColumns

__all__ = ["TrainingViews", "find_training_views", "read_training_data"]

PUBLISHED_PREFIX = "recsys_"


@dataclass(frozen=True)
class TrainingViews:
    """Which views a run is trained on, and why.

    Attributes:
        events: the view of what happened.
        items: the view that describes items; None: there is none.
        users: the view that describes users; None: there is none.
        user_key: the user's id column in these views.
        item_key: the item's.
        event: the events' column that names their kind; None: all are of one kind.
        weight: the events' column that weighs them; None: all weigh 1.
        reasons: one sentence a choice.
    """

    events: str
    items: str | None
    users: str | None
    user_key: str
    item_key: str
    event: str | None
    weight: str | None
    reasons: tuple[str, ...]


def find_training_views(
    source: FeatureSource,
    *,
    events: str | None = None,
    items: str | None = None,
    users: str | None = None,
    user_key: str | None = None,
    item_key: str | None = None,
) -> TrainingViews:
    """Find the views of events, items and users in a source.

    Args:
        source: the feature store.
        events: take this view of events; None: find it.
        items: take this view of items; None: find it.
        users: take this view of users; None: find it.
        user_key: the events' key that is the user's; None: tell it by its name.
        item_key: the item's; None: tell it by its name.

    Raises:
        DataError: a named view or key is not there, a view has other keys, no view has a user and
            an item as its keys, or these do not tell which is which.
    """
    views = {
        view.name: view
        for view in source.describe()
        if view.name in (events, items, users) or not view.name.startswith(PUBLISHED_PREFIX)
    }
    for name in (events, items, users):
        if name is not None and name not in views:
            raise unknown_view(name, views, "the feature store")
    log, why = _events(views, events)
    user_key, item_key = _roles(log, user_key, item_key)
    reasons = [why, f"{item_key!r} is the item's key and {user_key!r} the user's"]
    item_view, why = _entity(views, items, item_key, "items")
    reasons.append(why)
    user_view, why = _entity(views, users, user_key, "users")
    reasons.append(why)
    event, weight = _column(log, EVENT_NAMES, pl.String), _column(log, WEIGHT_NAMES, None)
    if weight is not None:
        reasons.append(f"events weigh their {weight!r}")
    return TrainingViews(
        log.name, item_view, user_view, user_key, item_key, event, weight, tuple(reasons)
    )


def read_training_data(
    source: FeatureSource, views: TrainingViews, *, as_of: datetime | None = None
) -> tuple[Interactions, ItemTable | None, UserTable | None]:
    """Read the views as a run takes them; batch by batch, with the columns that are needed.

    Args:
        source: the feature store.
        views: what `find_training_views` found.
        as_of: UTC; only what was known then. None: everything.

    Returns:
        The log, and the newest row of every item and of every user (None where there is no view).

    Raises:
        DataError: there are no events, or they break the rules of `Interactions`.
    """
    wanted = [views.user_key, views.item_key, TIMESTAMP]
    wanted += [name for name in (views.event, views.weight) if name is not None]
    parts = [batch.select(wanted) for batch in source.scan(views.events, as_of=as_of)]
    if not parts:
        raise DataError(f"view {views.events!r} must have rows to train on, got none")
    columns = EventColumns(
        user=views.user_key, item=views.item_key, event=views.event, weight=views.weight
    )
    log = Interactions.from_frame(pl.concat(parts), columns=columns, source=views.events)
    items = users = None
    if views.items is not None:
        frame = described_rows(source, views.items, views.item_key, end=as_of).frame
        items = ItemTable.from_frame(frame.rename({views.item_key: ITEM}), source=views.items)
    if views.users is not None:
        frame = described_rows(source, views.users, views.user_key, end=as_of).frame
        users = UserTable.from_frame(frame.rename({views.user_key: USER}), source=views.users)
    return log, items, users


def _events(views: dict[str, ViewDescription], named: str | None) -> tuple[ViewDescription, str]:
    if named is not None:
        if len(views[named].keys) != 2:
            raise DataError(
                f"events must be a view keyed by user and item, got {named!r} keyed by "
                f"{', '.join(views[named].keys) or 'nothing'}; name another"
            )
        return views[named], f"{named!r} holds the events, as told"
    pairs = [view for view in views.values() if len(view.keys) == 2]
    if not pairs:
        keyed = "; ".join(f"{view.name}: {', '.join(view.keys)}" for view in views.values())
        raise DataError(
            f"a view must have a user and an item as its keys to train on, got {keyed or 'none'}; "
            "add a view of the events to the repository"
        )
    best = max(pairs, key=lambda view: (view.ttl is None, view.rows or 0))
    keys = " and ".join(best.keys)
    if len(pairs) == 1:
        return best, f"{best.name!r} holds the events: the only view keyed by {keys}"
    others = ", ".join(repr(view.name) for view in pairs if view is not best)
    rows = "" if best.rows is None else f" and {best.rows:,} rows"
    ttl = "no ttl" if best.ttl is None else f"a ttl of {best.ttl}"
    return best, f"{best.name!r} holds the events: keyed by {keys}, with {ttl}{rows}; not {others}"


def _roles(log: ViewDescription, user: str | None, item: str | None) -> tuple[str, str]:
    """The user's key and the item's; a key that is named leaves the other one."""
    first, second = log.keys
    for name in (user, item):
        if name not in (None, first, second):
            raise DataError(
                f"{name!r} must be a key of view {log.name!r}, got keys {first!r} and {second!r}"
            )
    if user is not None or item is not None:
        user = user or (second if item == first else first)
        return user, item or (second if user == first else first)
    if names_user(first) != names_user(second):
        return (first, second) if names_user(first) else (second, first)
    if names_item(first) != names_item(second):
        return (second, first) if names_item(first) else (first, second)
    raise DataError(
        f"the keys of view {log.name!r} must tell the user from the item, got {first!r} and "
        f"{second!r}; name them in data.columns.user and data.columns.item"
    )


def _entity(
    views: dict[str, ViewDescription], named: str | None, key: str, what: str
) -> tuple[str | None, str]:
    if named is not None:
        if views[named].keys != (key,):
            raise DataError(
                f"{what} must be a view keyed by {key!r} alone, got {named!r} keyed by "
                f"{', '.join(views[named].keys) or 'nothing'}; name another"
            )
        return named, f"{named!r} describes the {what}, as told"
    found = [view for view in views.values() if view.keys == (key,)]
    if not found:
        return None, f"no view is keyed by {key!r} alone, so nothing describes the {what}"
    best = max(found, key=lambda view: (_described(view), view.ttl is None, view.rows or 0))
    if len(found) == 1:
        return best.name, f"{best.name!r} describes the {what}: the only view keyed by {key!r}"
    others = ", ".join(repr(view.name) for view in found if view is not best)
    return best.name, (
        f"{best.name!r} describes the {what}: {_described(best)} columns of text or lists, more "
        f"than {others}"
    )


def _described(view: ViewDescription) -> int:
    return sum(dtype == pl.String or isinstance(dtype, pl.List) for dtype in view.columns.values())


def _column(view: ViewDescription, names: Sequence[str], dtype: object) -> str | None:
    for name in names:
        kind = view.columns.get(name)
        if kind is not None and (kind.is_numeric() if dtype is None else kind == dtype):
            return name
    return None
