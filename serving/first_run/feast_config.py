"""What `recsys init` writes for a Feast repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from features.errors import DataError
from features.feast.source import FeastSource
from features.feast.training_data import TrainingViews, find_training_views
from features.sources.protocol import ViewDescription
from features.tables import Tables
from features.tables.roles import met_again
from recsys.config import Config
from recsys.dataset.tables import open_tables
from serving.first_run.described import described_settings
from serving.first_run.rules import slate_setting
from serving.first_run.setting import DEFAULTS, FirstConfig, Setting, relative
from serving.first_run.store_url import propose_store

__all__ = ["first_config_of_feast"]


def first_config_of_feast(
    repository: Path,
    target: Path,
    *,
    events: str | None = None,
    items: str | None = None,
    users: str | None = None,
) -> FirstConfig:
    """A configuration for a Feast repository; its data are read to find what columns are.

    Args:
        repository: where ``feature_store.yaml`` is.
        target: where the configuration will be; paths in it are relative to that.
        events: take this view of events; None: find it.
        items: take this view of items; None: find it.
        users: take this view of users; None: find it.

    Raises:
        DataError: there is no repository, no view of events, or several that could be.
    """
    source = FeastSource(repository)
    if events is None:
        _check_one_log(source.describe())
    views = find_training_views(source, events=events, items=items, users=users)
    feast = {
        "repository": str(repository.absolute()),
        "events": views.events,
        "items": views.items,
        "users": views.users,
    }
    roles, columns = _event_roles(views, feast)
    as_of, tables, why = _as_of(feast, roles)
    log, _, item_reason, user_reason, *_ = views.reasons
    settings = [
        Setting("data.feast", "repository", relative(repository, target), ""),
        Setting("data.feast", "events", views.events, log),
        Setting("data.feast", "items", views.items, item_reason),
        Setting("data.feast", "users", views.users, user_reason),
        Setting("data.feast", "as_of", as_of, why),
        *columns,
        *_described_views(tables),
        *_repeats(tables),
        Setting("output", "directory", "artifacts", ""),
        Setting("store", "url", *propose_store(source.store)),
    ]
    shown = relative(repository, target)
    head = (
        f"Written by `recsys init --from-feast {repository}`. {DEFAULTS}",
        f"`recsys doctor feast {shown}` says what this repository loses or serves otherwise.",
        "`recsys features suggest` proposes features beyond the defaults.",
    )
    return FirstConfig(head, tuple(settings))


def _check_one_log(views: Sequence[ViewDescription]) -> None:
    """Views that are all keyed by two ids and never expire do not tell which holds the events."""
    pairs = [view for view in views if len(view.keys) == 2 and not view.name.startswith("recsys_")]
    lasting = [view for view in pairs if view.ttl is None]
    if len(lasting) > 1:
        shown = ", ".join(f"{view.name!r} ({', '.join(view.keys)})" for view in lasting)
        raise DataError(
            f"one view must hold the events, got {shown}, none with a ttl; name one with --events"
        )


def _event_roles(
    views: TrainingViews, feast: dict[str, Any]
) -> tuple[dict[str, str], list[Setting]]:
    """The optional roles that the log's values allow."""
    found = {"event": views.event, "weight": views.weight}
    columns = {role: name for role, name in found.items() if name is not None}
    bad = {
        problem.column: problem.rule
        for problem in open_tables(_config(feast | {"as_of": "now"}, columns)).problems
    }
    settings = []
    for role, name in list(columns.items()):
        if name in bad:
            del columns[role]
            reason = f"{role} is left out: {name!r} {bad[name]}"
            settings.append(Setting("data.columns", role, None, reason))
            continue
        reason = {
            "event": f"{name!r} says what kind of event it is",
            "weight": f"events weigh their {name!r}; without this line all weigh the same",
        }[role]
        settings.append(Setting("data.columns", role, name, reason))
    return columns, settings


def _as_of(feast: dict[str, Any], columns: dict[str, str]) -> tuple[str, Tables, str]:
    """Rows known at the end of the training part, unless these do not describe the log's items."""
    now = open_tables(_config(feast | {"as_of": "now"}, columns))
    try:
        then = open_tables(_config(feast | {"as_of": "training_end"}, columns))
        late = len(_undescribed(then)) - len(_undescribed(now))
    except DataError:
        then, late = now, -1
    if late == 0:
        reason = (
            "values that were known when the training part ends; what is written later changes "
            "nothing"
        )
        return "training_end", then, reason
    many = "no row" if late < 0 else f"{late:,} items of the log have no row that"
    reason = (
        f"the newest rows: {many} is dated before the log ends, so rows seem to be dated when they "
        "were written. Numbers that change with time would tell the model what is held out"
    )
    return "now", now, reason


def _repeats(tables: Tables) -> list[Setting]:
    """Whether what users met may be shown again, by the share of their events that came again."""
    try:
        events = tables.interactions.frame
    except DataError:  # training will say what is wrong with the log
        return []
    proposed = slate_setting(met_again(events), kinds={})
    return [] if proposed is None else [proposed]


def _undescribed(tables: Tables) -> list[str]:
    import polars as pl

    if tables.items is None:
        return []
    ids = tables.frame("items")[tables.item_options["id_column"]].cast(pl.String)
    found = tables.frame("events")[tables.columns.item].cast(pl.String).unique()
    return found.filter(~found.is_in(ids.implode())).to_list()


def _described_views(tables: Tables) -> Iterator[Setting]:
    """Roles of the columns of the views of items and users."""
    items = None if tables.items is None else tables.item_table
    for section, table, options in (
        ("item_columns", items, tables.item_options),
        ("user_columns", tables.user_table, tables.user_options),
    ):
        if table is not None:
            changing = options.get("changing", ())
            yield from described_settings(section, table, changing=changing)


def _config(feast: dict[str, Any], columns: dict[str, str]) -> Config:
    return Config.model_validate({"data": {"feast": feast, "columns": columns}})
