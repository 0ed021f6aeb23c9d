"""Names of the columns every table uses inside, and which columns of a file play those roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

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

TimeUnit = Literal["s", "ms", "us", "iso"]
MICROSECONDS_PER: dict[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}


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
            otherwise every weight is 1.
        created: column of the time at which the event arrived. None: the column "created" if there
            is one, otherwise every event arrived when it happened.
        event_id: column of ids that an event keeps when it is sent once more. None: the column
            "event_id" if there is one, otherwise user, item, time and kind tell events apart.
        order: column of an order's, basket's or session's id. Its lines are one moment: that of the
            first.
        quantity: column of how many; a quantity below 0 is a return.
        unit: what a number in ``timestamp`` counts since 1970-01-01 UTC, or "iso" for text such
            as "2024-05-01T12:30:00". Columns of a date or datetime type need no unit.
        default_event: the kind of an event where the file has no such column.

    Raises:
        ValueError: ``unit`` is none of the four, or two roles name the same column.
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
    default_event: str = "interaction"

    def __post_init__(self) -> None:
        if self.unit not in get_args(TimeUnit):
            raise ValueError(f"unit must be one of 's', 'ms', 'us', 'iso', got {self.unit!r}")
        named = [
            self.user,
            self.item,
            self.timestamp,
            self.event,
            self.weight,
            self.created,
            self.event_id,
            self.order,
            self.quantity,
        ]
        used = [name for name in named if name is not None]
        twice = sorted({name for name in used if used.count(name) > 1})
        if twice:
            raise ValueError(f"each role needs its own column, got {twice[0]!r} for two roles")

    @property
    def ids(self) -> tuple[str, ...]:
        """Columns that hold ids, there or not."""
        order = () if self.order is None else (self.order,)
        return (self.user, self.item, self.event_id or EVENT_ID, *order)

    def optional(
        self, role: Literal["event", "weight", "created", "event_id"], present: list[str]
    ) -> str | None:
        """Column that plays an optional role in a file with the columns ``present``, or None."""
        given = {
            EVENT: self.event,
            WEIGHT: self.weight,
            CREATED: self.created,
            EVENT_ID: self.event_id,
        }
        if given[role] is not None:
            return given[role]
        taken = {self.user, self.item, self.timestamp, self.order, self.quantity, *given.values()}
        return role if role in present and role not in taken else None
