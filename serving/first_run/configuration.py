"""What `recsys init` writes for files: a first configuration, and the reason of each setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import polars as pl

from features.errors import DataError
from features.tables import ItemTable, UserTable
from features.tables.reading import find_options, is_url
from features.tables.roles import (
    LogRoles,
    find_codes,
    find_described,
    find_key,
    find_log_roles,
    log_facts,
)
from serving.first_run.columns import column_settings
from serving.first_run.described import described_settings
from serving.first_run.layouts import (
    find_layouts,
    layout_settings,
    plain_rows,
    unfold_settings,
    with_kinds,
)
from serving.first_run.rules import (
    kind_settings,
    mark_setting,
    rule_settings,
    slate_setting,
    sources_setting,
    split_setting,
)
from serving.first_run.setting import DEFAULTS, FirstConfig, Setting, relative

__all__ = ["first_config_of_files"]

_USUAL = {
    "format": "delimited",
    "separator": ",",
    "quote": '"',
    "encoding": "utf-8",
    "header": True,
    "compression": "none",
    "skip_lines": 0,
}
_NAMELESS = "there is not a header; columns are named by their position"
_GUESSED = "no Unicode; guessed from its letters, so look at the titles, or set another"
_MOST_CODES = 1_000


def first_config_of_files(
    target: Path,
    *,
    events: str | None,
    items: str | None = None,
    users: str | None = None,
    orders: str | None = None,
) -> FirstConfig:
    """A configuration for files; they are read to find what columns are and what rows mean.

    Args:
        target: where the configuration will be; paths in it are relative to that.
        events: a file, a directory or a pattern.
        items: the same; None: there is none, and the items are those of the log.
        users: the same; None: there is none.
        orders: the file that says whose an order is, where the events are lines of orders.

    Raises:
        DataError: no log is named, a file cannot be read, or no column can be an id.
    """
    if events is None:
        raise DataError(
            "--events must name the file of the log where --from-feast names no repository, got "
            "nothing; say recsys init --events FILE, and --items FILE where there is one"
        )
    files = {"events": events, "items": items, "users": users, "orders": orders}
    given = {
        name: path if is_url(path) else Path(path)
        for name, path in files.items()
        if path is not None
    }
    layouts = find_layouts(given)
    tables = {role: path for role, path in given.items() if role != "orders"}
    frames = {role: plain_rows(path, layouts.get(role)) for role, path in tables.items()}
    log = frames["events"]
    roles = find_log_roles(log, frames.get("items"), frames.get("users"), source=events)
    keys = _keys(roles, frames, given)
    item_ids = frames["items"][keys["items"]].cast(pl.String) if "items" in keys else None
    facts = log_facts(log, roles, item_ids)
    meaning = [*kind_settings(roles, facts), *rule_settings(roles, facts)]
    of_items = [] if "items" in frames else list(_described_by_log(log, roles))
    settings = [
        *(Setting("data", role, relative(path, target), "") for role, path in given.items()),
        *layout_settings(layouts),
        *_written(given, list(mark_setting(facts))),
        *unfold_settings(layouts),
        *column_settings(roles, log.columns),
        *with_kinds(meaning, layouts.get("events")),
        *_described(frames, keys),
        *of_items,
        split_setting(facts),
        *filter(None, [slate_setting(facts.again, facts.kinds)]),
        *filter(None, [] if "items" in frames or of_items else [sources_setting(log.height)]),
        Setting("output", "directory", "artifacts", ""),
    ]
    asked = " ".join(f"--{name} {path}" for name, path in given.items())
    return FirstConfig((f"Written by `recsys init {asked}`. {DEFAULTS}",), tuple(settings))


def _written(given: dict[str, Path | str], marks: list[Setting]) -> Iterator[Setting]:
    """How files are written, where that is not the usual way."""
    for role, path in given.items():
        found = asdict(find_options(path))
        for name, usual in _USUAL.items():
            if found[name] not in (None, usual):
                reason = _NAMELESS if name == "header" else ""
                if name == "encoding" and not found[name].startswith("utf"):
                    reason = _GUESSED
                yield Setting(f"data.read.{role}", name, found[name], reason)
        yield from marks if role == "events" else ()


def _keys(
    roles: LogRoles, frames: dict[str, pl.DataFrame], given: dict[str, Path | str]
) -> dict[str, str]:
    """The id columns of the tables."""
    found = {}
    for role, key, wanted in (
        ("items", roles.ids.items_key, roles.item.column),
        ("users", roles.ids.users_key, roles.user.column),
    ):
        if role not in frames:
            continue
        key = key or find_key(frames[role], wanted, role[:-1])
        if key is None:
            raise DataError(
                f"{given[role]} must have a column of ids that the log's {wanted!r} names, got "
                f"{', '.join(frames[role].columns)}; rename one {wanted!r}, or leave --{role} out"
            )
        found[role] = key
    return found


def _described(frames: dict[str, pl.DataFrame], keys: dict[str, str]) -> Iterator[Setting]:
    """Roles of the columns of items and users."""
    kinds: tuple[tuple[str, str, type[ItemTable | UserTable]], ...] = (
        ("items", "item_columns", ItemTable),
        ("users", "user_columns", UserTable),
    )
    for role, section, kind in kinds:
        if role not in keys:
            continue
        key, frame = keys[role], frames[role]
        codes = find_codes(frame, key, _MOST_CODES)
        table = kind.from_frame(
            frame, id_column=key, source=role, category_columns=tuple(codes), problems=()
        )
        yield from described_settings(section, table, key=key, codes=codes)


def _described_by_log(log: pl.DataFrame, roles: LogRoles) -> Iterator[Setting]:
    """Columns of a log that say what its items are, where no file does."""
    item = roles.item.column
    names = find_described(log, item, roles.columns)
    if not names:
        return
    rows = log.select(item, *names).drop_nulls(item).unique(item, keep="first")
    table = ItemTable.from_frame(rows, id_column=item, source="items", problems=())
    yield from described_settings("item_columns", table)
