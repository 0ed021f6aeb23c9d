"""The log, items and users of a run as they are stored: in files, or in views of a feature store.

What the tables of a feature store hold, in which values have times:

- **events**: every row of the view of events.
- **items** and **users**: one row for each id that was known when the log ends, with its newest
  values at the *cut*, the time of the last training event. Nothing that was written later changes
  them, so nothing of what is held out gets into a model by this way. An id that was first described
  after the cut has its first row, without the numbers.
- Numbers and categories that changed before the cut play no role of their own, so neither vectors
  nor default features are made of them: training also asks about earlier moments, at which they
  were other, and may tell what happened since. A definition of a feature that names one takes it as
  it was at the cut, and so does a category that the configuration names.

A view's ttl is not applied to tables; it holds where values are read at a moment.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from features.errors import DataError
from features.moments import EPOCH
from features.tables import (
    EVENT,
    ITEM,
    TIMESTAMP,
    USER,
    WEIGHT,
    EventColumns,
    Interactions,
    Tables,
)
from features.tables.layouts import read_described, read_rows
from features.tables.reading import damaged_parquet, location, read_frame
from features.tables.schema import EVENT_ID
from recsys.config import Config
from recsys.config.data import FeastConfig
from recsys.evaluation.options import SplitOptions
from recsys.evaluation.splits import Split, split_at, split_per_user

if TYPE_CHECKING:
    from features.feast.training_data import TrainingViews
    from features.sources.protocol import FeatureSource

__all__ = [
    "cut_moment",
    "held_out_from",
    "item_titles",
    "newest_events",
    "open_tables",
    "split_of",
]

_REMEDY = (
    "Add rows to the view. Where its rows are dated when they were written, set data.feast.as_of "
    "to 'now'."
)


def open_tables(config: Config) -> Tables:
    """The configured tables; files are named and not yet read, views are read.

    Raises:
        DataError: Feast is not installed, or the repository does not say what the tables are.
    """
    data = config.data
    if data.feast is not None:
        source, views = _views(config, data.feast)
        return _read_views(config, data.feast, source, views)
    if data.events is None:
        raise RuntimeError("a configuration without files and without a repository was accepted")
    tables = Tables(
        data.events,
        data.items,
        data.users,
        columns=data.columns.to_event_columns(),
        rules=data.to_event_rules(),
        item_options=data.item_columns.to_options(ITEM),
        user_options=data.user_columns.to_options(USER),
        read={
            "events": data.read.events.to_read_options(),
            "items": data.read.items.to_read_options(),
            "users": data.read.users.to_read_options(),
        },
        layouts={"events": data.to_unfolding(), "items": data.to_item_unfolding()},
    )
    tables.known = lambda: _known(tables, config.split)
    return tables


def newest_events(config: Config, limit: int) -> Interactions:
    """The checked newest events of the log; of Parquet and of views the rest is not kept.

    Args:
        config: the run.
        limit: how many at most.

    Raises:
        DataError: a rule is broken.
    """
    data = config.data
    if data.feast is not None:
        source, views = _views(config, data.feast)
        columns = _event_columns(config, views)
        frame = _events(source, views.events, columns, limit)
        return Interactions.from_frame(
            frame, columns=columns, source=f"view {views.events}", rules=data.to_event_rules()
        )
    path, columns = location(str(data.events)), data.columns.to_event_columns()
    plain = data.layout == "rows" and isinstance(path, Path) and path.is_file()
    if plain and isinstance(path, Path) and path.suffix == ".parquet":
        try:
            frame = _newest(pl.scan_parquet(path), columns, limit).collect(engine="streaming")
        except pl.exceptions.PolarsError as error:
            raise damaged_parquet(path, error) from None
    else:
        options, unfolding = data.read.events.to_read_options(), data.to_unfolding()
        frame = read_rows(str(data.events), options, unfolding, ids=columns.ids).frame
        frame = _newest(frame.lazy(), columns, limit).collect()
    return Interactions.from_frame(
        frame, columns=columns, source=str(path), rules=data.to_event_rules()
    )


def item_titles(config: Config) -> dict[str, str]:
    """Item id -> its newest title; empty when no title column is configured.

    Raises:
        DataError: the items cannot be read, or have no such column.
    """
    data = config.data
    title = data.item_columns.title
    if title is None:
        return {}
    if data.feast is not None:
        from features.sources.described_rows import described_rows

        source, views = _views(config, data.feast)
        if views.items is None:
            return {}
        key, frame = views.item_key, described_rows(source, views.items, views.item_key).frame
    elif data.items is None:
        key, frame = ITEM, open_tables(config).item_table.frame
    else:
        key, read = data.item_columns.id or ITEM, data.read.items.to_read_options()
        if data.item_layout == "properties":
            found, _ = read_described(str(data.items), read, data.to_item_unfolding())
            frame = found.frame
        else:
            frame = read_frame(str(data.items), read, ids=(key,))
    if title not in frame.columns:
        raise DataError(
            f"data.item_columns.title must be a column of the items, got {title!r}; known: "
            f"{', '.join(frame.columns)}"
        )
    rows = frame.select(pl.col(key).cast(pl.String), pl.col(title))
    return {item_id: name for item_id, name in rows.iter_rows() if name is not None}


def split_of(interactions: Interactions, settings: SplitOptions) -> Split:
    """The held-out part the configuration asks for."""
    if settings.kind == "per_user":
        return split_per_user(interactions, fraction=settings.fraction)
    return split_at(interactions, held_out_from(interactions, settings))


def held_out_from(interactions: Interactions, settings: SplitOptions) -> datetime:
    """The moment of a split by time: the one that is given, or that of the share of the events."""
    if settings.moment is not None:
        return settings.moment
    return cut_moment(interactions, settings.fraction)


def cut_moment(interactions: Interactions, fraction: float) -> datetime:
    """The moment that a share of the events lies before; 1970 in an empty log."""
    times = interactions.frame[TIMESTAMP]
    if times.is_empty():
        return EPOCH
    moment: Any = times[min(int(fraction * len(times)), len(times) - 1)]
    if moment == times[0]:  # the first time has more than the share: the next one is later
        moment = times.filter(times > moment).min() or moment
    return cast("datetime", moment)


def _views(config: Config, settings: FeastConfig) -> tuple[FeatureSource, TrainingViews]:
    from features.feast.source import FeastSource
    from features.feast.training_data import find_training_views

    source = FeastSource(settings.repository)
    columns = config.data.columns
    views = find_training_views(
        source,
        events=settings.events,
        items=settings.items,
        users=settings.users,
        user_key=columns.user if "user" in columns.model_fields_set else None,
        item_key=columns.item if "item" in columns.model_fields_set else None,
    )
    return source, views


def _read_views(
    config: Config, settings: FeastConfig, source: FeatureSource, views: TrainingViews
) -> Tables:
    from features.sources.described_rows import DescribedRows, described_rows

    columns = _event_columns(config, views)
    roles = {"events": views.events, "items": views.items, "users": views.users}
    tables = Tables(
        _events(source, views.events, columns),
        columns=columns,
        rules=config.data.to_event_rules(),
        item_options=config.data.item_columns.to_options(views.item_key),
        user_options=config.data.user_columns.to_options(views.user_key),
        names={role: f"view {view}" for role, view in roles.items()},
        add_items=_REMEDY,
    )
    cut = end = None
    if settings.as_of == "training_end":
        cut, end = _training_end(tables, config.split)

    def described(view: str, key: str) -> DescribedRows:
        return described_rows(source, view, key, cut=cut, end=end)

    if views.items is not None:
        items = described(views.items, views.item_key)
        tables.items = items.frame
        tables.item_options |= {"changing": items.changing}
    if views.users is not None:
        users = described(views.users, views.user_key)
        tables.users = users.frame
        tables.user_options |= {"changing": users.changing}
    return tables


def _event_columns(config: Config, views: TrainingViews) -> EventColumns:
    keys = {"user": views.user_key, "item": views.item_key}
    return config.data.columns.model_copy(update=keys).to_event_columns()


def _events(
    source: FeatureSource, view: str, columns: EventColumns, limit: int | None = None
) -> pl.DataFrame:
    """The columns with a role; of ``limit`` rows only the newest are kept."""
    described = next(one for one in source.describe() if one.name == view)
    present = [*described.keys, TIMESTAMP, *described.columns]
    roles = (columns.optional(EVENT, present), columns.optional(WEIGHT, present))  # type: ignore[arg-type]
    more = (columns.created, columns.optional(EVENT_ID, present))  # type: ignore[arg-type]
    wanted = [columns.user, columns.item, TIMESTAMP]
    others = (columns.order, columns.quantity)
    wanted += [name for name in (*roles, *more, *others) if name is not None]
    known = [*present, *(["created"] if described.created else [])]
    missing = [name for name in wanted if name not in known]
    if missing:
        raise DataError(
            f"view {view!r} must have the column {missing[0]!r}, which data.columns names; known: "
            f"{', '.join(known)}"
        )
    kept: list[pl.DataFrame] = []
    for batch in source.scan(view):
        kept.append(batch.select(wanted))
        if limit is not None and sum(part.height for part in kept) > 2 * limit:
            kept = [_newest(pl.concat(kept).lazy(), columns, limit).collect()]
    if not kept:
        raise DataError(f"view {view!r} must have rows to train on, got none; name another")
    frame = pl.concat(kept)
    return frame if limit is None else _newest(frame.lazy(), columns, limit).collect()


def _newest(events: pl.LazyFrame, columns: EventColumns, limit: int) -> pl.LazyFrame:
    """The newest rows; of those of one time the same ones in every run."""
    roles = (columns.timestamp, columns.user, columns.item, columns.event)
    by = [name for name in roles if name is not None and name in events.collect_schema()]
    return events.top_k(limit, by=by) if columns.timestamp in by else events


def _known(tables: Tables, settings: SplitOptions) -> tuple[datetime | None, datetime | None]:
    """The times of the last training event and of the last event; of a faulty log none."""
    try:
        # By itself: which events are of items that are described is known from the items alone.
        log = Tables(tables.frame("events"), columns=tables.columns, rules=tables.rules)
        if log.own_problems("events"):
            return None, None
    except (OSError, ValueError, pl.exceptions.PolarsError):
        return None, None  # told as a problem of the log
    last: Any = log.interactions.frame[TIMESTAMP].max()
    newest: Any = split_of(log.interactions, settings).train.frame[TIMESTAMP].max()
    return newest or last, last


def _training_end(tables: Tables, settings: SplitOptions) -> tuple[datetime, datetime]:
    """The times of the last training event and of the last event."""
    last: Any = tables.frame("events")[TIMESTAMP].max()
    if tables.own_problems("events"):
        return last, last  # there is nothing to split; the problems are told later
    newest: Any = split_of(tables.interactions, settings).train.frame[TIMESTAMP].max()
    return newest or last, last
