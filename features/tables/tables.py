"""A log and the tables that describe it, from files or raw frames to their checked form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import polars as pl

from features.errors import Problem
from features.tables.described import described_note
from features.tables.entities import ItemTable, UserTable
from features.tables.float_ids import with_whole_ids
from features.tables.interactions import Interactions, without_missing
from features.tables.layouts import Unfolding, read_described, read_rows, unfold, unfold_properties
from features.tables.log_catalogue import items_of_log
from features.tables.reading import Places, ReadOptions, location
from features.tables.rules import EventRules
from features.tables.ruling import RuleCount
from features.tables.schema import ITEM, USER, EventColumns
from features.tables.validation import (
    ADD_ITEMS,
    catalogue_problems,
    entity_problems,
    event_problems,
    is_id,
)

__all__ = ["Stored", "Tables", "find_problems"]

Stored: TypeAlias = pl.DataFrame | Path | str
Role: TypeAlias = Literal["events", "items", "users"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(eq=False)
class Tables:
    """Raw tables; each is read and checked when it is first asked for, and never again.

    Attributes:
        events: the log, as a frame or a file.
        items: what describes the items. None: nothing; the catalogue is those of the log.
        users: what describes the users. None: nothing.
        columns: roles of the events' columns.
        rules: what the events' rows mean.
        item_options: roles of the items' columns, as `ItemTable.from_frame` takes them.
        user_options: the same of the users.
        names: what "events", "items" and "users" are called in messages where they are frames.
        add_items: what a message advises where an event's item has no row.
        now: UTC time without time zone that the check of units uses; None: the clock.
        read: how the file of a role is written, where that is not to be found.
        layouts: how the table of a role is unfolded, where a row is not one event or one item.
        known: tells when the training part and the log end, for items described over time: they
            are as they were known then. None: as they are now.
        dropped: what was left out of files whose bad rows are dropped, as sentences.
    """

    events: Stored
    items: Stored | None = None
    users: Stored | None = None
    columns: EventColumns = field(default_factory=EventColumns)
    rules: EventRules = field(default_factory=EventRules)
    item_options: dict[str, Any] = field(default_factory=lambda: {"id_column": ITEM})
    user_options: dict[str, Any] = field(default_factory=lambda: {"id_column": USER})
    names: Mapping[str, str] = field(default_factory=dict)
    add_items: str = ADD_ITEMS
    now: datetime | None = None
    read: Mapping[Role, ReadOptions] = field(default_factory=dict)
    layouts: Mapping[Role, Unfolding] = field(default_factory=dict)
    known: Callable[[], tuple[datetime | None, datetime | None]] | None = None
    dropped: list[str] = field(default_factory=list, init=False)
    _frames: dict[Role, pl.DataFrame] = field(default_factory=dict, init=False)
    _own: dict[Role, list[Problem]] = field(default_factory=dict, init=False)
    _places: dict[Role, Places] = field(default_factory=dict, init=False)

    def frame(self, role: Role) -> pl.DataFrame:
        """The raw frame of a table that there is.

        Raises:
            DataError: the file cannot be read.
            FileNotFoundError: there is no such file.
        """
        if role not in self._frames:
            frame = self._unfolded(role, self.layouts.get(role) or Unfolding())
            self._frames[role] = with_whole_ids(frame, self._ids(role))
        return self._frames[role]

    def _unfolded(self, role: Role, unfolding: Unfolding) -> pl.DataFrame:
        """The plain rows of a table."""
        stored, source = getattr(self, role), self._name(role)
        if unfolding.layout == "properties":
            return self._of_properties(stored, unfolding)
        if isinstance(stored, pl.DataFrame):
            return unfold(stored, unfolding, source=source)
        reading = read_rows(stored, self.read.get(role), unfolding, ids=self._ids(role))
        self.dropped += [str(one) for one in reading.dropped]
        if unfolding.layout == "rows":
            self._places[role] = reading.places
        return reading.frame

    def _of_properties(self, stored: Stored, unfolding: Unfolding) -> pl.DataFrame:
        """Items from properties over time, as they were known when the training part ended."""
        cut, end = self.known() if self.known is not None else (None, None)
        if isinstance(stored, pl.DataFrame):
            found = unfold_properties(stored, unfolding, source="items", cut=cut, end=end)
        else:
            found, reading = read_described(
                stored, self.read.get("items"), unfolding, cut=cut, end=end
            )
            self.dropped += [str(one) for one in reading.dropped]
        self.item_options |= {"changing": found.changing}
        if found.left_out:
            many = len(found.left_out)
            self.dropped.append(
                f"{self._name('items')}: {many:,} properties that fewer items have than others "
                f"became no columns, such as {found.left_out[0]!r}; name those that are wanted in "
                "data.item_unfold.properties"
            )
        return found.frame

    def own_problems(self, role: Role) -> list[Problem]:
        """Broken rules of one table by itself; errors as of `frame`."""
        if role not in self._own:
            source = self._name(role)
            self._own[role] = self._placed(
                role,
                event_problems(
                    self._log, self.columns, source=source, now=self.now, rules=self.rules
                )
                if role == "events"
                else entity_problems(
                    self.frame(role), self._options(role)["id_column"], source=source
                ),
            )
        return self._own[role]

    @cached_property
    def problems(self) -> list[Problem]:
        """Broken rules of all tables, log first; a file that cannot be read breaks one as well."""
        found: list[Problem] = []
        readable: list[Role] = []
        for role in ROLES:
            try:
                if getattr(self, role) is not None:
                    self.frame(role)
                    readable.append(role)
            except (OSError, ValueError, pl.exceptions.PolarsError) as error:
                first = str(error).splitlines()[0] if str(error) else type(error).__name__
                remedy = "Repair the file, or say in [data.read] how it is written."
                found.append(Problem(self._name(role), "*", "must be readable", 0, first, remedy))
        for role in readable:
            found += self.own_problems(role)
            if role == "events" and "items" in readable and self.rules.undescribed == "refuse":
                found += self._undescribed()
        return found

    @cached_property
    def notes(self) -> list[str]:
        """What breaks no rule and is hardly meant, as sentences: tables that describe few."""
        _ = self.problems  # reads what can be read
        found: list[str] = []
        roles: tuple[tuple[Role, str], ...] = (
            ("items", self.columns.item),
            ("users", self.columns.user),
        )
        for role, column in roles:
            log, frame = self._frames.get("events"), self._frames.get(role)
            key = self._options(role)["id_column"]
            if log is None or frame is None:
                continue
            if is_id(frame.schema.get(key)) and is_id(log.schema.get(column)):
                names = {"source": self._name(role), "log_source": self._name("events")}
                note = described_note(frame[key], log[column], **names, noun=role[:-1])
                found += [note] if note else []
        return found

    @cached_property
    def interactions(self) -> Interactions:
        """The checked log.

        Raises:
            DataError: with one `Problem` for every rule that the log breaks by itself.
        """
        problems = self.own_problems("events")
        known = None
        if self.items is not None and self.rules.undescribed == "drop":
            known = self._described().cast(pl.String)
        return Interactions.from_frame(
            self._log, columns=self.columns, problems=problems, rules=self.rules, known=known
        )

    @property
    def counts(self) -> tuple[RuleCount, ...]:
        """What the rules did; errors as of `interactions`."""
        taken = () if self.items is None else self._taken[1]
        return (*self._missing[1], *self.interactions.counts, *taken)

    @cached_property
    def item_table(self) -> ItemTable:
        """The checked catalogue; without a table of items those of the log.

        What the named columns of items say there is what most of an item's rows of the log say.

        Raises:
            DataError: with one `Problem` for every rule that is broken.
        """
        if self.items is None:
            return ItemTable.from_frame(
                self._items_of_log(), **self._described_by_log, source=self._name("events")
            )
        return ItemTable.from_frame(**{**self._checked("items"), "frame": self._taken[0]})

    @cached_property
    def user_table(self) -> UserTable | None:
        """The checked user table; None: there is none. Errors as of `item_table`."""
        return None if self.users is None else UserTable.from_frame(**self._checked("users"))

    @property
    def _log(self) -> pl.DataFrame:
        return self._missing[0]

    @cached_property
    def _missing(self) -> tuple[pl.DataFrame, tuple[RuleCount, ...]]:
        return without_missing(self.frame("events"), self.columns, self.rules)

    def _described(self) -> pl.Series:
        key: str = self.item_options["id_column"]
        return self.frame("items")[key]

    @cached_property
    def _taken(self) -> tuple[pl.DataFrame, tuple[RuleCount, ...]]:
        """The rows of the items, and one without values for each that the log alone knows."""
        frame, key = self.frame("items"), self.item_options["id_column"]
        if self.rules.undescribed != "take" or self.own_problems("items"):
            return frame, ()
        log, own = self.interactions, frame[key].cast(pl.String)
        met = pl.concat([part[ITEM] for part in (log.frame, log.dislikes) if part is not None])
        new = met.unique().sort()
        new = new.filter(~new.is_in(own.implode())).rename(key)
        if new.is_empty():
            return frame, ()
        many = f"{len(new):,} item{'s' if len(new) != 1 else ''}"
        told = f"{many} of the log that no row describes taken without values"
        frame = frame.with_columns(own.alias(key))
        taken = pl.concat([frame, new.to_frame()], how="diagonal")
        return taken, (RuleCount("data.rules.undescribed", len(new), told),)

    def _checked(self, role: Role) -> dict[str, Any]:
        found = {"problems": self.own_problems(role), "source": self._name(role)}
        return {"frame": self.frame(role), **found, **self._options(role)}

    def _ids(self, role: Role) -> tuple[str, ...]:
        return self.columns.ids if role == "events" else (self._options(role)["id_column"],)

    def _options(self, role: Role) -> dict[str, Any]:
        return self.item_options if role == "items" else self.user_options

    def _items_of_log(self) -> pl.DataFrame:
        """One row an item, in the order of the first events."""
        log = self.interactions
        met = [part[ITEM] for part in (log.frame, log.dislikes) if part is not None]
        ids = pl.concat(met).unique(maintain_order=True)
        kinds = ("text_columns", "category_columns", "list_columns")
        named = [name for kind in kinds for name in self._described_by_log.get(kind) or ()]
        there = [name for name in named if name in self._log.columns]
        return items_of_log(self._log, self.columns.item, ids, there)

    @property
    def _described_by_log(self) -> dict[str, Any]:
        """Roles of the log's columns that describe items."""
        return {name: value for name, value in self.item_options.items() if name != "id_column"}

    def _undescribed(self) -> list[Problem]:
        if self.item_options["id_column"] not in self.frame("items").columns:
            return []
        log, described, source = self._log, self._described(), self._name("events")
        if self.columns.item not in log.columns:
            return []
        found = catalogue_problems(
            log, self.columns.item, described, source=source, remedy=self.add_items
        )
        return self._placed("events", found)

    def _placed(self, role: Role, problems: list[Problem]) -> list[Problem]:
        """The same, with lines of the file in place of rows of the frame."""
        places = self._places.get(role)
        return problems if places is None else places.named(problems)

    def _name(self, role: Role) -> str:
        stored = getattr(self, role)
        if isinstance(stored, pl.DataFrame):
            return self.names.get(role, role)
        return str(location(stored))


def find_problems(
    events: Stored,
    items: Stored | None = None,
    users: Stored | None = None,
    *,
    columns: EventColumns | None = None,
    item_column: str = ITEM,
    user_column: str = USER,
    now: datetime | None = None,
) -> list[Problem]:
    """All problems of an event log and the tables that describe its items and users.

    Checked: missing columns and columns of a wrong type, null or empty ids, unparseable times,
    times in another unit than declared (before 1971 or more than a year after ``now``), negative
    or non-finite weights, duplicate events (same user, item, time and kind; where the log says
    when events arrived or has their ids, that is one event that came twice, and no problem),
    repeated ids in the tables, and events whose item no row of ``items`` describes.

    Args:
        events: the raw log, as a frame or a file.
        items: the raw item table, or None to leave it and the catalogue check out.
        users: the raw user table, or None.
        columns: the roles of the columns of ``events``; None: the names of
            `features.tables.schema`.
        item_column: id column of ``items``.
        user_column: id column of ``users``.
        now: UTC time without time zone that the check of units uses; None: the clock.

    Returns:
        The problems, log first; empty if the data are clean. A file that cannot be read is a
        problem as well.
    """
    return Tables(
        events,
        items,
        users,
        columns=columns or EventColumns(),
        item_options={"id_column": item_column},
        user_options={"id_column": user_column},
        now=now,
    ).problems
