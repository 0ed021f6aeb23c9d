"""What a layout is: how the rows of a table become rows of one event, or of one item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import polars as pl

from features.tables.reading import ReadOptions

__all__ = [
    "CLICK",
    "EVENT",
    "HISTORY",
    "ITEM",
    "ORDER",
    "POSITION",
    "REQUEST",
    "SHOWN",
    "TIMESTAMP",
    "USER",
    "WEIGHT",
    "FoundLayout",
    "Layout",
    "Place",
    "Unfolding",
]

Layout: TypeAlias = Literal[
    "rows", "impressions", "sequences", "lists", "matrix", "order_lines", "properties"
]
Place: TypeAlias = Callable[[int], str]
"""Where row n of a frame stands, for a message."""

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
EVENT = "event"
WEIGHT = "weight"
ORDER = "order_id"
REQUEST = "request_id"
POSITION = "position"
CLICK, SHOWN, HISTORY = "click", "shown", "history"


@dataclass(frozen=True)
class Unfolding:
    r"""How a table of a layout becomes plain rows.

    Attributes:
        layout: "rows": it is plain already. "impressions": a row is what was shown at once.
            "sequences": a line is a user, then the user's items in their order. "lists": cells
            hold several values. "matrix": a row is a user and a column an item. "order_lines": a
            row is a line of an order, and another table says whose order it is and when.
            "properties": a row is one property of an item at one time.
        columns: name of a column of the plain rows -> the column of the table that it is made of.
            What is not named is found from the values.
        lists: columns of several values a cell, of layout "lists". Empty: found.
        separator: what stands between the values of a cell, or of a line of "sequences": " " is
            any white space. None: found.
        missing: values of a matrix that mean that there was no event.
        properties: those that become columns. Empty: the 64 that most items have.
        orders: of layout "order_lines", the table of the orders.
        read_orders: how the file of the orders is written. None: found.

    Raises:
        ValueError: there is no such layout.
    """

    layout: Layout = "rows"
    columns: Mapping[str, str] = field(default_factory=dict)
    lists: tuple[str, ...] = ()
    separator: str | None = None
    missing: tuple[float, ...] = ()
    properties: tuple[str, ...] = ()
    orders: pl.DataFrame | Path | str | None = None
    read_orders: ReadOptions | None = None

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            known = ", ".join(repr(one) for one in get_args(Layout))
            raise ValueError(f"layout must be one of {known}, got {self.layout!r}")


@dataclass(frozen=True)
class FoundLayout:
    """A layout that the values of a table show.

    Attributes:
        unfolding: how it is unfolded, with everything said that was found.
        evidence: what shows it, as a sentence.
        kinds: weight of each kind of event that unfolding tells apart; empty: it tells none.
        targets: kinds that are to be predicted; empty: all likes.
    """

    unfolding: Unfolding
    evidence: str
    kinds: Mapping[str, float] = field(default_factory=dict)
    targets: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What was found, by the names of `Unfolding`; what says nothing is left out."""
        unfolding = self.unfolding
        found: dict[str, Any] = {
            "columns": dict(unfolding.columns),
            "lists": list(unfolding.lists),
            "separator": unfolding.separator,
            "missing": list(unfolding.missing),
            "properties": list(unfolding.properties),
        }
        return {name: value for name, value in found.items() if value not in (None, [], {})}
