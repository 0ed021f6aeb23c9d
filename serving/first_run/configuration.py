"""What `recsys init` writes: a first configuration, and why each setting is what it is."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.errors import DataError
from features.feast.source import FeastSource
from features.feast.training_data import TrainingViews, find_training_views
from features.sources.protocol import ViewDescription
from features.tables import ITEM, ItemTable, Tables, UserTable
from features.tables.reading import find_options
from recsys.config import Config
from recsys.dataset.tables import open_tables
from recsys.tuning.toml_text import to_toml
from serving.first_run.columns import guess_event_columns, guess_id_column
from serving.first_run.layouts import find_layouts, layout_settings
from serving.first_run.store_url import propose_store

__all__ = ["FirstConfig", "Setting", "first_config_of_feast", "first_config_of_files"]

_WIDTH = 100
_TITLES = ("title", "name", "headline", "label", "product_name", "item_name")
_USUAL = {
    "format": "delimited",
    "separator": ",",
    "quote": '"',
    "encoding": "utf-8",
    "header": True,
    "compression": "none",
}
_NAMELESS = "there is not a header; columns are named by their position"
_DEFAULTS = "`recsys config reference` names every setting and its default."


@dataclass(frozen=True)
class Setting:
    """One line of a configuration.

    Attributes:
        section: such as "data.columns".
        name: such as "weight".
        value: None: the setting is left out, and the reason says why.
        reason: a sentence for the comment above it.
    """

    section: str
    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class FirstConfig:
    """A configuration that is not written yet.

    Attributes:
        head: sentences for the top of the file.
        settings: in the order of the file.
    """

    head: tuple[str, ...]
    settings: tuple[Setting, ...]

    @property
    def choices(self) -> list[tuple[str, str]]:
        """Setting and reason, where there is a reason."""
        return [(f"{one.section}.{one.name}", one.reason) for one in self.settings if one.reason]

    def to_toml(self) -> str:
        """The file's text."""
        lines = [line for sentence in self.head for line in _comment(sentence)]
        section = None
        for one in self.settings:
            if one.section != section:
                section = one.section
                lines += ["", f"[{section}]"]
            lines += _comment(one.reason)
            if one.value is not None:
                lines.append(to_toml({one.name: one.value}).strip())
        return "\n".join(lines) + "\n"

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the file.

        Raises:
            DataError: it is there and ``force`` is not set.
        """
        if path.exists() and not force:
            raise DataError(f"{path} must not be there yet; give --force to replace it, or --out")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_toml(), encoding="utf-8")


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
        Setting("data.feast", "repository", _relative(repository, target), ""),
        Setting("data.feast", "events", views.events, log),
        Setting("data.feast", "items", views.items, item_reason),
        Setting("data.feast", "users", views.users, user_reason),
        Setting("data.feast", "as_of", as_of, why),
        *columns,
        *_described(tables),
        Setting("output", "directory", "artifacts", ""),
        Setting("store", "url", *propose_store(source.store)),
    ]
    shown = _relative(repository, target)
    head = (
        f"Written by `recsys init --from-feast {repository}`. {_DEFAULTS}",
        f"`recsys doctor feast {shown}` says what this repository loses or serves otherwise.",
        "`recsys features suggest` proposes features beyond the defaults.",
    )
    return FirstConfig(head, tuple(settings))


def first_config_of_files(
    target: Path,
    *,
    events: str | None,
    items: str | None,
    users: str | None = None,
    orders: str | None = None,
) -> FirstConfig:
    """A configuration for files; they are read to find what columns are.

    Args:
        target: where the configuration will be; paths in it are relative to that.
        events: a file, a directory or a pattern.
        items: the same.
        users: the same; None: there is none.
        orders: the file that says whose an order is, where the events are lines of orders.

    Raises:
        DataError: a file is not named, cannot be read, or its columns do not tell their role.
    """
    if events is None or items is None:
        raise DataError(
            "--events and --items must name files where --from-feast names no repository, got "
            f"{events or 'nothing'} and {items or 'nothing'}"
        )
    layouts = find_layouts(events, items, orders)
    log = layouts["events"].unfolding if "events" in layouts else None
    columns = [
        Setting("data.columns", role, value, reason)
        for role, value, reason in guess_event_columns(Path(events), log)
    ]
    named = {one.name: one.value for one in columns}
    files = {"events": events, "items": items, "users": users, "orders": orders}
    given = {name: Path(path) for name, path in files.items() if path is not None}
    ids = {
        section: guess_id_column(given[role], named[key])
        for role, section, key in (
            ("items", "item_columns", "item"),
            ("users", "user_columns", "user"),
        )
        if role in given
    }
    if "items" in layouts:
        ids["item_columns"] = ITEM
    shapes = [Setting(*one) for one in layout_settings(layouts)]
    config = Config.model_validate(
        {
            "data": {
                **given,
                "columns": named,
                **_nested(shapes),
                **{section: {"id": name} for section, name in ids.items()},
            }
        }
    )
    settings = [
        *(Setting("data", role, _relative(path, target), "") for role, path in given.items()),
        *(one for one in shapes if one.section == "data"),
        *(one for role, path in given.items() for one in _written(role, path)),
        *(one for one in shapes if one.section.endswith(("unfold", "unfold.columns"))),
        *columns,
        *(one for one in shapes if one.section in ("data.kinds", "data.rules")),
        *_described(open_tables(config), ids),
        Setting("output", "directory", "artifacts", ""),
    ]
    asked = " ".join(f"--{name} {path}" for name, path in given.items())
    return FirstConfig((f"Written by `recsys init {asked}`. {_DEFAULTS}",), tuple(settings))


def _written(role: str, path: Path) -> Iterator[Setting]:
    """How a file is written, where that is not the usual way."""
    found = asdict(find_options(path))
    for name, usual in _USUAL.items():
        if found[name] not in (None, usual):
            reason = _NAMELESS if name == "header" else ""
            yield Setting(f"data.read.{role}", name, found[name], reason)


def _nested(settings: Sequence[Setting]) -> dict[str, Any]:
    """Settings of [data] and below as the configuration holds them."""
    found: dict[str, Any] = {}
    for one in settings:
        section = found
        for part in one.section.split(".")[1:]:
            section = section.setdefault(part, {})
        section[one.name] = one.value
    return found


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


def _undescribed(tables: Tables) -> list[str]:
    import polars as pl

    ids = tables.frame("items")[tables.item_options["id_column"]].cast(pl.String)
    found = tables.frame("events")[tables.columns.item].cast(pl.String).unique()
    return found.filter(~found.is_in(ids.implode())).to_list()


def _config(feast: dict[str, Any], columns: dict[str, str]) -> Config:
    return Config.model_validate({"data": {"feast": feast, "columns": columns}})


def _described(tables: Tables, ids: dict[str, str] | None = None) -> Iterator[Setting]:
    """Roles of the columns of items and users."""
    found: list[tuple[str, ItemTable | UserTable | None, dict[str, Any]]] = [
        ("item_columns", tables.item_table, tables.item_options),
        ("user_columns", tables.user_table, tables.user_options),
    ]
    for section, table, options in found:
        if table is None:
            continue
        full = f"data.{section}"
        if ids is not None:
            yield Setting(full, "id", ids[section], "")
        if section == "item_columns":
            yield from _title(full, table)
        kinds = {
            "text": table.text_columns,
            "category": table.category_columns,
            "list": table.list_columns,
        }
        for kind, names in kinds.items():
            if names:
                reason = "; ".join(_why(table, kind, name) for name in names)
                yield Setting(full, kind, list(names), reason)
        if table.number_columns:
            shown = ", ".join(table.number_columns)
            yield Setting(full, "numbers", None, f"numbers need no line: {shown}")
        described = (*table.text_columns, *table.list_columns)
        gone = [name for name in options.get("changing", ()) if name not in described]
        if gone:
            reason = (
                f"{', '.join(gone)}: changing with time, so not used by itself; name it in "
                "'category' or in a [[features]] to take it as it is when the training part ends"
            )
            yield Setting(full, "changing", None, reason)


def _title(section: str, table: ItemTable | UserTable) -> Iterator[Setting]:
    names = {name.lower(): name for name in table.text_columns}
    for wanted in _TITLES:
        if wanted in names:
            yield Setting(section, "title", names[wanted], "shown with recommendations")
            return


def _why(table: ItemTable | UserTable, kind: str, name: str) -> str:
    if kind == "list":
        return f"{name}: several values a row"
    values = table.frame[name].drop_nulls()
    if kind == "category":
        return f"{name}: {values.n_unique():,} values that repeat"
    return f"{name}: {values.n_unique():,} different texts in {table.frame.height:,} rows"


def _relative(path: Path, target: Path) -> str:
    directory = target.absolute().parent
    return Path(os.path.relpath(path.absolute(), directory)).as_posix()


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH - 2)]
