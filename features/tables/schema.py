"""Names of the columns every table uses inside, and which columns of a file play those roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from features.tables.times import TimeUnit, check_format, time_in_microseconds

__all__ = [
    "CREATED",
    "EVENT",
    "EVENT_ID",
    "ITEM",
    "TIMESTAMP",
    "USER",
    "WEIGHT",
    "EventColumns",
    "TimeUnit",
]

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
EVENT = "event"
WEIGHT = "weight"
CREATED = "created"
EVENT_ID = "event_id"

INTERACTION_SCHEMA: dict[str, pl.DataType] = {
    USER: pl.String(),
    ITEM: pl.String(),
    TIMESTAMP: pl.Datetime("us"),
    EVENT: pl.String(),
    WEIGHT: pl.Float32(),
}


@dataclass(frozen=True)
class EventColumns:
    """Which columns of an event file play which role.

    Attributes:
        user: column of the user's id (integer or string).
        item: column of the item's id (integer or string).
        timestamp: column of the time of the event.
        event: column of the event's kind. None: the column "event" if there is one, otherwise
            every event is a ``default_event``.
        weight: column of the event's weight, >= 0. None: the column "weight" if there is one,
            otherwise every weight is 1. "": so even where there is one.
        created: column of the time at which the event arrived. None: the column "created" if there
            is one, otherwise every event arrived when it happened. Text in it that is no number is
            read as ISO whatever the unit is.
        event_id: column of ids that an event keeps when it is sent once more. None: the column
            "event_id" if there is one, otherwise user, item, time and kind tell events apart.
        order: column of an order's, basket's or session's id. Its lines are one moment: that of the
            first.
        quantity: column of how many; a quantity below 0 is a return.
        unit: what a number in ``timestamp`` counts since 1970-01-01 UTC, or "iso" for text such
            as "2024-05-01T12:30:00" in any of its forms; "order" for numbers that only say what
            came first, and "none" where nothing does: all is at one moment, and ``timestamp``
            need not be there. Columns of a date or datetime type need no unit.
        format: how ``timestamp`` is written in the terms of `strftime`, such as
            "%d/%m/%Y %H:%M". None: the unit says it; otherwise the unit says nothing.
        default_event: the kind of an event where the file has no such column.

    Raises:
        ValueError: ``unit`` is none of these, no time can be read by ``format``, or two roles name
            the same column.
    """

    user: str = USER
    item: str = ITEM
    timestamp: str = TIMESTAMP
    event: str | None = None
    weight: str | None = None
    created: str | None = None
    event_id: str | None = None
    order: str | None = None
    quantity: str | None = None
    unit: TimeUnit = "s"
    format: str | None = None
    default_event: str = "interaction"

    def __post_init__(self) -> None:
        if self.unit not in get_args(TimeUnit):
            known = ", ".join(repr(one) for one in get_args(TimeUnit))
            raise ValueError(f"unit must be one of {known}, got {self.unit!r}")
        if self.format is not None:
            check_format(self.format)
            if not self.has_clock:
                raise ValueError(
                    f"format must not stand beside the unit {self.unit!r}, which knows no times, "
                    f"got {self.format!r}; remove one"
                )
        if self.created and not self.has_clock:
            raise ValueError(
                f"created must not be named beside the unit {self.unit!r}, got {self.created!r}: "
                "without times of events those of their arrival say nothing"
            )
        named = [
            self.user,
            self.item,
            None if self.unit == "none" else self.timestamp,
            self.event,
            self.weight,
            self.created,
            self.event_id,
            self.order,
            self.quantity,
        ]
        used = [name for name in named if name]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise ValueError(f"each role needs its own column, got {twice[0]!r} for two roles")

    @property
    def has_clock(self) -> bool:
        """Whether the log knows when its events happened, not only in which order."""
        return self.unit not in ("order", "none")

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without which there is no log."""
        time = () if self.unit == "none" else (self.timestamp,)
        return (self.user, self.item, *time)

    def time(self, column: str, dtype: pl.DataType) -> pl.Expr:
        """``timestamp`` or ``created`` as UTC time, null where it cannot be read."""
        read = time_in_microseconds(column, dtype, self.unit, self.format)
        if column == self.timestamp or dtype != pl.String or self.unit == "iso":
            return read
        return pl.coalesce(read, time_in_microseconds(column, dtype, "iso"))

    @property
    def ids(self) -> tuple[str, ...]:
        """Columns that hold ids, there or not."""
        order = (self.order,) if self.order else ()
        return (self.user, self.item, self.event_id or EVENT_ID, *order)

    def optional(
        self, role: Literal["event", "weight", "created", "event_id"], present: list[str]
    ) -> str | None:
        """Column that plays an optional role in a file with the columns ``present``, or None.

        A role that is given as "" is played by none, whatever the columns are called.
        """
        given = {
            EVENT: self.event,
            WEIGHT: self.weight,
            CREATED: self.created,
            EVENT_ID: self.event_id,
        }
        if role == CREATED and not self.has_clock:
            return None
        if given[role] is not None:
            return given[role] or None
        taken = {self.user, self.item, self.timestamp, self.order, self.quantity, *given.values()}
        return role if role in present and role not in taken else None
